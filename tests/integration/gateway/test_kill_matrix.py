"""Two hundred callers at once; server, gateway, head and worker killed with calls in flight: of all these
every call has an answer or an error."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from heliostat.cli import gateway_keeper
from heliostat.cli.system import tagged_processes
from tests.hypha_server import HyphaServer, hypha_server_in
from tests.integration.cluster.conftest import CLUSTER, Cluster, cluster, places_of, until
from tests.integration.gateway.in_flight import RETRY_S, Caller, Fates, answered_again, here, settle
from tests.valkey import valkey

pytestmark = [pytest.mark.integration, pytest.mark.nightly, pytest.mark.timeout(900)]

NAME = f"gateway-kills-{os.getpid()}"
TIMES, EACH = 3, 2
CALLERS, CONNECTING = 200, 20
HELLO_S = 2.0
KINDS = 5
SECTION = """\
  gcs_storage: {{address: {storage.address}, password_file: {password_file}}}
  gateway:
    server_url: {url}
    token_file: {token}
    functions: published.py
    sandbox: {{kind: none, accepted: This cluster is thrown away after the test.}}
    allow:
      - {{people: [ada@example.org], rights: [call, run], limits: {{calls_at_a_time: 200}}}}
      - {{people: [owner@example.org], rights: [admin]}}
"""
PUBLISHED = '''\
"""What colleagues may call."""

import time

__all__ = ["slow"]


def slow(seconds: float) -> int:
    """Take so long."""
    time.sleep(seconds)
    return 42
'''


@dataclass
class Served:
    """A cluster with a gateway that is kept, at a server of its own."""

    cluster: Cluster
    server: HyphaServer

    def facts(self) -> dict[str, Any] | None:
        done = self.cluster.command("gateway", "status", "--json", NAME)
        facts = json.loads(done.stdout) if done.returncode == 0 else None
        ready = facts and facts["connection"]["connected"] and facts["connection"]["driver"]
        return facts if ready else None

    def drivers(self) -> list[int]:
        """Return the gateway's drivers: those of one that was killed have to end by themselves."""
        pids = tagged_processes("HELIOSTAT_CLUSTER_UID", self.cluster.record.cluster_uid)
        return [pid for pid in pids if b"heliostat.gateway.work.driver" in command_of(pid)]

    def kill_server(self) -> None:
        self.server.kill()
        self.server.start()

    def kill_gateway(self) -> None:
        facts = self.facts()
        assert facts is not None
        os.kill(facts["pid"], signal.SIGKILL)

    def kill_head(self) -> None:
        kill(tagged_processes("HELIOSTAT_HEAD", self.cluster.record.cluster_uid))

    def kill_worker(self) -> None:
        kill(tagged_processes("HELIOSTAT_INSTANCE_ID", self.cluster.running()[0]))


def command_of(pid: int) -> bytes:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    return b""


def kill(pids: list[int]) -> None:
    assert pids
    for pid in pids:
        # Some end by themselves as soon as the first of them is gone.
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("kills")
    (folder / "published.py").write_text(PUBLISHED)
    with (
        tempfile.TemporaryDirectory(prefix="hel-hypha-") as place,
        hypha_server_in(Path(place)) as server,
        valkey(tmp_path_factory.mktemp("valkey"), password="s3cret-of-the-test") as storage,
    ):
        token = folder / "token"
        token.touch(mode=0o600)
        token.write_text(server.token("owner"))
        section = SECTION.format(
            storage=storage.storage, password_file=storage.password_file, url=server.url, token=token
        )
        text = CLUSTER.format(name=NAME, workers=12, idle_timeout_s=600, orphan_timeout_s=60)
        text = text.replace("provider:\n", f"provider:\n{section}").replace("timeout_s: 20", "timeout_s: 60")
        # Two nodes for all calls: starting twelve would take minutes.
        text = text.replace("{CPU: 1}", "{CPU: 6}")
        with cluster(folder, text, detach=True) as found:
            gateway_keeper.begin(NAME, places_of(NAME))
            served = Served(found, server)
            until(served.facts, "gateway that is connected", 60)
            yield served


async def test_two_hundred_callers_do_not_hold_up_each_other(served: Served) -> None:
    """Each over a connection of their own, through the real rules and the real driver, to Ray and back."""
    facts = await asyncio.to_thread(served.facts)
    assert facts is not None
    service_id = facts["connection"]["service"]
    await answered_again(served.server, service_id)
    some = asyncio.Semaphore(CONNECTING)

    async def come() -> Caller:
        async with some:
            return await Caller.come(served.server, service_id)

    callers = await asyncio.gather(*(come() for _ in range(CALLERS)))
    asked = [asyncio.ensure_future(one.service.call("slow", {"seconds": 0.5})) for one in callers]
    while not any(task.done() for task in asked):
        begun_s = time.monotonic()
        assert (await callers[0].service.hello())["ok"]
        assert time.monotonic() - begun_s < HELLO_S
    answers = await asyncio.gather(*asked)
    assert [answer.get("value") for answer in answers] == [42] * CALLERS, answers
    await asyncio.gather(*(one.leave() for one in callers))


@pytest.mark.parametrize("victim", ["server", "gateway", "worker", "head"])
async def test_every_call_has_its_answer_or_an_error(
    served: Served, victim: str, capsys: pytest.CaptureFixture[str]
) -> None:
    facts = await asyncio.to_thread(served.facts)
    assert facts is not None
    service_id = facts["connection"]["service"]
    fates = Fates()
    for _ in range(TIMES):
        await one_kill(served, service_id, getattr(served, f"kill_{victim}"), fates)
    with capsys.disabled():
        print(f"\n{victim}: {fates.text()}")
    assert fates.total == TIMES * EACH * KINDS
    assert (fates.hang, fates.wrong) == ([], []), fates.text()
    await nothing_is_held(served, service_id)


async def one_kill(served: Served, service_id: str, kill_it: Callable[[], None], fates: Fates) -> None:
    await answered_again(served.server, service_id)
    caller = await Caller.come(served.server, service_id)
    calls = caller.begin(EACH)
    async with asyncio.timeout(90):
        while await caller.running() < EACH * KINDS:
            await asyncio.sleep(RETRY_S)
    began_s = time.monotonic()
    await asyncio.to_thread(kill_it)
    await asyncio.gather(settle(calls, fates), back(served, service_id, began_s, fates))
    with contextlib.suppress(Exception):
        await caller.leave()


async def back(served: Served, service_id: str, began_s: float, fates: Fates) -> None:
    await answered_again(served.server, service_id)
    fates.back_s.append(round(time.monotonic() - began_s, 1))


async def nothing_is_held(served: Served, service_id: str) -> None:
    """Check that no call is in flight any more, nobody's slot is taken for ever, and one driver is there."""
    async with here(served.server, service_id) as ada, asyncio.timeout(60):
        while any(not one["outcome"] for one in (await ada.service.status())["value"]["calls"]):
            await asyncio.sleep(RETRY_S)
    await asyncio.to_thread(until, lambda: len(served.drivers()) == 1 or None, "one driver", 60)
