"""The whole story: a gateway at a real Hypha server, and colleagues whose calls bring real Slurm jobs."""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.gateway_browser import open_link
from tests.hypha_server import HyphaServer, hypha_server_in
from tests.integration.cluster.conftest import Cluster, cluster, until
from tests.integration.slurm.cluster_text import cluster_text
from tests.slurm_site import SlurmSite

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

NAME = f"gateway-{os.getpid()}"
TYPES = """\
cpu:
  resources: {CPU: 1, memory: 400000000, object_store_memory: 200000000}
  max_workers: 1
  idle_timeout_s: 4
  node_config: {backend: slurm}
"""
GATEWAY = """\
gateway:
  server_url: {url}
  functions: published.py
  sandbox: {{kind: none, accepted: This cluster is thrown away after the test.}}
  allow:
    - {{people: [owner@example.org], rights: [call, run, admin]}}
    - {{people: [ada@example.org], rights: [call, run]}}
"""
PUBLISHED = '''\
"""What colleagues may call."""

__all__ = ["scale"]


def scale(values: list[float], by: float = 2.0) -> list[float]:
    """Multiply each value."""
    return [one * by for one in values]
'''
MANY_BYTES = 10 * 2**20
LINK = re.compile(r"http://127\.0\.0\.1:\d+/\S+")
CALL_S = 120.0


@pytest.fixture(scope="module")
def hypha() -> Iterator[HyphaServer]:
    with tempfile.TemporaryDirectory(prefix="hel-hypha-") as folder, hypha_server_in(Path(folder)) as server:
        yield server


@dataclass
class Served:
    """A cluster with its gateway's process; `log` is what that has printed."""

    cluster: Cluster
    server: HyphaServer
    process: subprocess.Popen[bytes]
    log: Path

    def words(self) -> str:
        return self.log.read_text(errors="replace")

    def link(self) -> str | None:
        assert self.process.poll() is None, self.words()
        shown = LINK.search(self.words())
        return shown.group() if shown else None

    def facts(self) -> dict[str, Any] | None:
        assert self.process.poll() is None, self.words()
        done = self.cluster.command("gateway", "status", "--json", self.cluster.record.cluster_name)
        return json.loads(done.stdout) if done.returncode == 0 else None

    def is_connected(self) -> dict[str, Any] | None:
        facts = self.facts()
        return facts if facts and facts["connection"]["connected"] and facts["connection"]["driver"] else None


@pytest.fixture(scope="module")
def served(
    shared_site: SlurmSite, hypha: HyphaServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("gateway")
    (folder / "published.py").write_text(PUBLISHED)
    section = textwrap.indent(GATEWAY.format(url=hypha.url), "  ")
    text = cluster_text(NAME, TYPES, minutes=20).replace("  backends:\n", f"{section}  backends:\n")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in shared_site.environment.items():
            patch.setenv(name, value)
        patch.delenv("HYPHA_TOKEN", raising=False)
        with cluster(folder, text) as found, gateway_of(found, hypha, folder / "gateway.txt") as served:
            yield served


@contextmanager
def gateway_of(found: Cluster, server: HyphaServer, log: Path) -> Iterator[Served]:
    """`heliostat gateway FILE` while the block runs; the link that it shows is opened by its owner."""
    served = Served(found, server, started(found, log), log)
    try:
        link = until(served.link, "link to sign in with", 60)
        open_link(link, server, "owner")
        until(served.is_connected, "gateway that is connected", 60)
        yield served
    finally:
        served.process.terminate()
        served.process.wait(90)


def started(found: Cluster, log: Path) -> subprocess.Popen[bytes]:
    argv = [sys.executable, "-m", "heliostat.cli.main", "gateway", str(found.path)]
    with log.open("ab") as file:
        return subprocess.Popen(argv, stdout=file, stderr=file)


@asynccontextmanager
async def colleague(served: Served, user: str) -> AsyncIterator[Any]:
    """The gateway's service as a user sees it, from a connection of their own."""
    import hypha_rpc

    facts = served.facts()
    assert facts is not None
    config = {"server_url": served.server.url, "token": served.server.token(user), "logger": None}
    server = await hypha_rpc.connect_to_server({**config, "method_timeout": CALL_S})
    try:
        yield await server.get_service(facts["connection"]["service"])
    finally:
        await server.disconnect()


def value_of(answer: Mapping[str, Any]) -> Any:
    assert answer["ok"], answer
    return answer["value"]


async def test_a_call_brings_a_job_and_gets_an_array_back(served: Served, shared_site: SlurmSite) -> None:
    assert served.cluster.status().instances == []
    said, answer = [], None
    async with colleague(served, "ada") as gateway:
        script = "import numpy\nresult = numpy.arange(count).reshape(2, -1) * 0.5"
        async for part in await gateway.run_python(script, {"count": 6}, stream=True):
            if "progress" in part:
                said.append(part["progress"])
            else:
                answer = part
    assert answer is not None
    np.testing.assert_array_equal(value_of(answer), np.arange(6).reshape(2, -1) * 0.5)
    assert any(line.startswith("waiting for a node") for line in said), said
    assert [one.backend for one in served.cluster.status().instances] == ["slurm"]
    assert [row.state for row in shared_site.jobs(ended=False)] == ["RUNNING"]


async def test_ten_megabytes_go_both_ways(served: Served) -> None:
    sent = np.random.default_rng(1).integers(0, 256, MANY_BYTES, dtype=np.uint8)
    async with colleague(served, "ada") as gateway:
        back = value_of(await gateway.run_python("result = data[::-1].copy()", {"data": sent}))
    digests = [hashlib.sha256(one.tobytes()).hexdigest() for one in (back[::-1], sent)]
    assert digests[0] == digests[1]


async def test_a_published_function_is_called_by_name(served: Served) -> None:
    async with colleague(served, "ada") as gateway:
        listed = value_of(await gateway.functions())
        assert [(one["name"], one["doc"]) for one in listed] == [("scale", "Multiply each value.")]
        assert value_of(await gateway.call("scale", {"values": [1, 2.5]})) == [2.0, 5.0]
        wrong = await gateway.call("scale", {"values": "many"})
    assert wrong["error"]["code"] == "invalid"


async def test_a_job_is_followed_as_it_runs(served: Served) -> None:
    async with colleague(served, "ada") as gateway:
        command = f"{sys.executable} -u -c 'for n in range(3): print(\"line\", n)'"
        job_id = value_of(await gateway.submit(command))
        text = "".join([part async for part in await gateway.job_logs(job_id, stream=True)])
        assert [line for line in text.splitlines() if line.startswith("line")] == [
            "line 0",
            "line 1",
            "line 2",
        ]
        assert value_of(await gateway.job_status(job_id))["state"] == "succeeded"


async def test_a_stranger_is_refused_in_a_sentence(served: Served) -> None:
    async with colleague(served, "eve") as gateway:
        answers = [await gateway.hello(), await gateway.status(), await gateway.run_python("result = 1")]
    for answer in answers:
        assert (answer["ok"], answer["error"]["code"]) == (False, "not_allowed")
        assert len(answer["error"]["message"]) < 120
        assert not re.search(r"Traceback|/|\.py", answer["error"]["message"])


async def test_who_calls_sees_the_cluster_and_the_owner_sees_everything(served: Served) -> None:
    async with colleague(served, "owner") as gateway:
        seen = value_of(await gateway.status())
        assert seen["cluster"]["name"] == NAME
        everybodys = value_of(await gateway.calls())
    assert {one["who"] for one in everybodys} >= {"ada@example.org"}
    logged = served.cluster.command("gateway", "logs", NAME, "--json").stdout.splitlines()
    ended = [one for one in map(json.loads, logged) if one["event"] == "ended"]
    assert {one["outcome"] for one in ended} <= {"ok", "invalid"}
    assert all(one["who"] == "ada@example.org" for one in ended)


def test_the_cluster_goes_back_to_zero_and_the_gateway_ends_when_told(served: Served) -> None:
    served.cluster.wait_empty(90)
    served.process.send_signal(signal.SIGTERM)
    assert served.process.wait(60) == 0, served.words()
    assert "Traceback" not in served.words(), served.words()
    # A token begins like this.
    assert "eyJ" not in served.words()


def test_a_second_start_needs_nobody(served: Served) -> None:
    if served.process.poll() is None:
        pytest.skip("the first gateway still runs: the test before this one has failed")
    served.process = started(served.cluster, served.log)
    facts = until(served.is_connected, "gateway that is connected again", 60)
    assert facts["connection"]["service"].endswith(f"heliostat-{NAME}:heliostat")
