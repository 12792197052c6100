"""A gateway whose cluster's head is a Slurm job: its driver is a step of that job, all goes through srun."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import signal
import sys
import tempfile
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from heliostat.config.record import ClusterRecord
from heliostat.gateway.work.silence import SILENT_S
from tests.hypha_server import HyphaServer, hypha_server_in
from tests.integration.cluster.conftest import Cluster
from tests.integration.slurm.login import NAME, Login, until
from tests.integration.slurm.test_gateway import (
    GATEWAY,
    MANY_BYTES,
    PUBLISHED,
    Served,
    colleague,
    started,
    value_of,
)
from tests.slurm_site import SlurmSite
from tests.waiting import gone
from tools import processes

pytestmark = [pytest.mark.integration, pytest.mark.nightly, pytest.mark.timeout(300)]

DRIVER = "heliostat.gateway.work.driver"
RELAY = "heliostat.api.relay"
ALL_BYTES = bytes(range(256))


@dataclass
class Far:
    """A cluster whose record names another host, with its gateway's process on this one."""

    login: Login
    record: ClusterRecord
    served: Served
    token: str

    @property
    def token_in_file(self) -> str:
        return (self.login.folder / "token").read_text().strip()

    def steps(self, module: str) -> list[int]:
        """Return the processes of that module which are steps of the head's job."""
        assert self.record.job is not None
        mark = f"SLURM_JOB_ID={self.record.job.job_id}".encode()
        return [
            one.pid
            for one in processes.find(lambda environ: mark in environ.split(b"\0"))
            if f"-m {module}" in one.command and not one.command.startswith("srun")
        ]

    def driver(self) -> int:
        (pid,) = until(lambda: self.steps(DRIVER), "driver")
        return pid

    def srun(self) -> int:
        """Return the `srun` that the gateway has started for its driver: the leader of a session."""
        pids = [one.pid for one in processes.find(lambda _: True) if is_srun(one.command)]
        (pid,) = (pid for pid in pids if os.getsid(pid) == pid)
        return pid


def command_lines() -> list[str]:
    """Return what everybody on this host sees of its processes, in full."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            found.append((folder / "cmdline").read_text(errors="replace"))
    return found


def is_srun(command: str) -> bool:
    return command.startswith("srun ") and DRIVER in command


@pytest.fixture(scope="module")
def hypha() -> Iterator[HyphaServer]:
    with tempfile.TemporaryDirectory(prefix="hel-hypha-") as folder, hypha_server_in(Path(folder)) as server:
        yield server


@pytest.fixture(scope="module")
def far(
    shared_site: SlurmSite, hypha: HyphaServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Far]:
    login = Login(shared_site, tmp_path_factory.mktemp("far"))
    path = file_with_gateway(login, hypha)
    login.run("up", str(path), "--detach", timeout_s=60)
    try:
        until(lambda: login.record is not None and login.record.session_name, "head", 90)
        record = login.pretend_to_be_elsewhere()
        with pytest.MonkeyPatch.context() as patch:
            token = hypha.token("owner", seen="in the variable")
            for name, value in {**shared_site.environment, "HYPHA_TOKEN": token}.items():
                patch.setenv(name, value)
            yield from gateway_of(login, record, hypha, token)
    finally:
        login.run("down", NAME)
    login.nothing_is_left(record)


def file_with_gateway(login: Login, hypha: HyphaServer) -> Path:
    """Return a cluster's file; the owner's token is in a file beside it."""
    (login.folder / "published.py").write_text(PUBLISHED)
    token = login.folder / "token"
    token.touch(0o600)
    token.write_text(hypha.token("owner"))
    section = textwrap.indent(f"{GATEWAY.format(url=hypha.url)}  token_file: {token}\n", "  ")
    path = login.file()
    path.write_text(path.read_text().replace("provider:\n", f"provider:\n{section}", 1))
    return path


def gateway_of(login: Login, record: ClusterRecord, hypha: HyphaServer, token: str) -> Iterator[Far]:
    found = Cluster(record, login.folder / "cluster.yaml")
    log = login.folder / "gateway.txt"
    served = Served(found, hypha, started(found, log), log)
    try:
        until(served.is_connected, "gateway that is connected", 90)
        yield Far(login, record, served, token)
    finally:
        if served.process.poll() is None:
            served.process.terminate()
        served.process.wait(90)


async def test_ten_megabytes_go_both_ways_through_srun(far: Far) -> None:
    sent = np.random.default_rng(1).integers(0, 256, MANY_BYTES, dtype=np.uint8)
    async with colleague(far.served, "ada") as gateway:
        back = value_of(await gateway.run_python("result = data[::-1].copy()", {"data": sent}))
        # What a terminal would take for signs to it, each alone and all of them in order.
        each = {f"n{byte}": bytes([byte]) for byte in ALL_BYTES} | {"all": ALL_BYTES * 3}
        same = value_of(await gateway.run_python("result = given", {"given": each}))
    digests = [hashlib.sha256(one.tobytes()).hexdigest() for one in (back[::-1], sent)]
    assert digests[0] == digests[1]
    assert same == each


async def test_functions_and_jobs_work_there(far: Far) -> None:
    async with colleague(far.served, "ada") as gateway:
        assert value_of(await gateway.call("scale", {"values": [1, 2.5]})) == [2.0, 5.0]
        job_id = value_of(
            await gateway.submit(f"{sys.executable} -u -c 'for n in range(3): print(n, \"th\")'")
        )
        text = "".join([part async for part in await gateway.job_logs(job_id, stream=True)])
        assert [line for line in text.splitlines() if line.endswith("th")] == ["0 th", "1 th", "2 th"]
        assert value_of(await gateway.job_status(job_id))["state"] == "succeeded"


async def test_a_long_script_is_ended(far: Far) -> None:
    async with colleague(far.served, "ada") as gateway:
        call_id, calling = await begun(gateway)
        assert value_of(await gateway.stop_call(call_id)) is True
        assert (await calling)["error"] == {"code": "stopped", "message": "you ended it"}


async def begun(gateway: Any) -> tuple[str, asyncio.Task[Any]]:
    """Return a long call that runs on a node, and what waits for its answer."""
    stream = await gateway.run_python("import time\ntime.sleep(600)", stream=True)
    async for part in stream:
        if part.get("progress") == "running":
            break
    calls = value_of(await gateway.status())["calls"]
    (call,) = (one for one in calls if one["function"] == "run_python" and not one["outcome"])
    return call["call_id"], asyncio.create_task(answer_of(stream))


async def answer_of(stream: Any) -> Any:
    parts = [part async for part in stream]
    return parts[-1]


def test_the_token_does_not_go_there(far: Far) -> None:
    (relay,) = far.steps(RELAY)
    for pid in (far.driver(), relay):
        environ = Path(f"/proc/{pid}/environ").read_bytes()
        # It has all else that is exported here.
        assert b"HELIOSTAT_STATE_DIR=" in environ
        assert b"HYPHA_TOKEN" not in environ
    secrets = [far.token, far.token_in_file, Path(far.record.token_path).read_text().strip()]
    assert [line for line in command_lines() if any(one in line for one in secrets)] == []


async def test_looking_on_costs_one_step_however_often(far: Far) -> None:
    before = far.steps(RELAY)
    async with colleague(far.served, "ada") as gateway:
        for _ in range(3):
            value_of(await gateway.status())
    assert far.steps(RELAY) == before
    assert len(before) == 1


@pytest.mark.parametrize("whole", [False, True])
async def test_a_killed_srun_loses_what_runs_and_no_more(far: Far, whole: bool) -> None:
    driver, srun = far.driver(), far.srun()
    async with colleague(far.served, "ada") as gateway:
        _, calling = await begun(gateway)
        # Its other half would end the step, where it lives on: a login node that dies leaves neither.
        (os.killpg if whole else os.kill)(srun, signal.SIGKILL)
        assert (await asyncio.wait_for(calling, 30))["error"]["code"] == "lost"
        assert value_of(await gateway.run_python("result = 1 + 1")) == 2
    assert await gone(driver, deadline_s=SILENT_S + 15)
    assert far.driver() != driver


def test_the_gateway_ends_and_leaves_no_step_behind(far: Far) -> None:
    driver = far.driver()
    far.served.process.send_signal(signal.SIGTERM)
    assert far.served.process.wait(60) == 0, far.served.words()
    assert not Path(f"/proc/{driver}").exists()
    until(lambda: not far.steps(RELAY), "end of the relay", 10)
    words = far.served.words()
    # What the driver writes comes through srun as well.
    assert "heliostat.gateway.driver INFO the gateway has closed the pipe" in words
    assert "Traceback" not in words, words
    assert "eyJ" not in words
