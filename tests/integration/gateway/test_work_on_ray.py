"""Calls as Ray's work on a real cluster at zero workers: scripts, functions, jobs, and how they are lost."""

from __future__ import annotations

import asyncio
import functools
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytest_asyncio

from heliostat.api.client import NoAnswer, NotRunning
from heliostat.cli.clusters import pick
from heliostat.cli.driver import driver_environment
from heliostat.gateway.errors import CallError, Code
from heliostat.gateway.work import link, workplace
from heliostat.gateway.work.port import Done, Needs, Script
from heliostat.gateway.work.workplace import DriverCommand, Workplace, WorkSettings
from heliostat.model.gateway import Sandbox, SandboxKind
from heliostat.model.report import StatusReport
from tests.integration.cluster.conftest import CLUSTER, Cluster, cluster
from tests.integration.gateway.sandboxing import why_not

# On every change the story on Slurm (tests/integration/slurm/test_gateway.py) goes the same ways.
pytestmark = [
    pytest.mark.integration,
    pytest.mark.nightly,
    pytest.mark.timeout(150),
    pytest.mark.asyncio(loop_scope="module"),
]

IDLE_AFTER_S = 8.0
PUBLISHED = Path(__file__).with_name("published.py")
DRIVER = [sys.executable, "-m", "heliostat.gateway.work.driver"]


@pytest.fixture(scope="module")
def two_workers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    text = CLUSTER.format(name=f"it-gw-{os.getpid()}", workers=2, idle_timeout_s=20, orphan_timeout_s=60)
    with cluster(tmp_path_factory.mktemp("cluster"), text) as found:
        yield found


def driver_of(found: Cluster) -> DriverCommand:
    return DriverCommand(DRIVER, driver_environment(found.record))


def status_of(found: Cluster) -> StatusReport | None:
    try:
        return found.client.status()
    except (NotRunning, NoAnswer):
        return None


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def work(two_workers: Cluster) -> AsyncIterator[Workplace]:
    settings = WorkSettings(
        lambda: driver_of(two_workers),
        shapes={"worker": {"CPU": 1.0}},
        sandbox=Sandbox(SandboxKind.NONE),
        functions=str(PUBLISHED),
        runtime_env=True,
    )
    found = Workplace(settings, functools.partial(asyncio.to_thread, status_of, two_workers))
    found.start()
    yield found
    await found.aclose(0.0)


def silent(_: str) -> None:
    """Take a line and say nothing."""


async def script(work: Workplace, text: str, *, call_id: str = "c1", **given: Any) -> Done:
    say, needs = given.pop("say", silent), given.pop("needs", Needs(timeout_s=60.0))
    return await work.run_python(call_id, Script(text, **given), needs=needs, say=say)


async def refused(call: Any) -> CallError:
    with pytest.raises(CallError) as error:
        await call
    return error.value


def begun() -> tuple[asyncio.Event, Callable[[str], None]]:
    """Return an event that is set once a call says that it runs, and what to tell it by."""
    event = asyncio.Event()
    return event, lambda text: event.set() if text == "running" else None


async def test_a_script_brings_its_worker_and_says_so(two_workers: Cluster, work: Workplace) -> None:
    assert two_workers.status().instances == []
    said: list[str] = []
    image = np.arange(10_000_000, dtype="u1")
    done = await script(
        work, "result = {'image': image[::-1], 'there': True}", inputs={"image": image}, say=said.append
    )
    np.testing.assert_array_equal(done.value["image"], image[::-1])
    assert said[0].startswith("waiting for a node")
    assert "waiting for a node: Local" in " ".join(said)
    assert said[-1] == "running"
    assert done.node_id in {one.node_id for one in two_workers.status().instances}


async def test_a_script_gets_no_key_to_the_cluster(work: Workplace) -> None:
    text = "import os\nresult = [name for name in os.environ if name.startswith(('RAY_', 'HELIOSTAT_'))]"
    assert (await script(work, text)).value == []


async def test_a_script_that_fails_says_its_line(work: Workplace) -> None:
    error = await refused(script(work, "x = 1\nx / 0"))
    assert (error.code, error.message) == (Code.FAILED, "ZeroDivisionError: division by zero (line 2)")


async def test_a_sandbox_on_a_node(two_workers: Cluster, work: Workplace) -> None:
    reason = why_not("bwrap")
    if reason:
        pytest.skip(reason)
    settings = WorkSettings(
        lambda: driver_of(two_workers), sandbox=Sandbox(SandboxKind.BWRAP), result_bytes=1000
    )
    boxed = Workplace(settings, functools.partial(asyncio.to_thread, status_of, two_workers))
    boxed.start()
    try:
        text = f"import os, numpy\nresult = [os.getcwd(), os.path.exists({two_workers.record.token_path!r})]"
        assert (await script(boxed, text)).value == ["/scratch", False]
        assert (await refused(script(boxed, "result = 'x' * 2000"))).code is Code.TOO_LARGE
    finally:
        await boxed.aclose(0.0)


async def test_published_functions(work: Workplace) -> None:
    assert [one.name for one in await work.functions()] == ["fails", "long", "mean"]
    call = functools.partial(work.call, "c2", needs=None, say=silent)
    done = await call("mean", arguments={"image": np.array([[1.0, 3.0], [3.0, 5.0]])})
    np.testing.assert_array_equal(done.value, [2.0, 4.0])
    wrong = await refused(call("mean", arguments={"image": "none"}))
    assert wrong.code is Code.INVALID
    raised = await refused(call("fails", arguments={"path": "cells.pt"}))
    assert (raised.code, raised.message) == (Code.FAILED, "FileNotFoundError: no model in …/cells.pt")
    assert (await refused(call("hidden", arguments={}))).code is Code.INVALID


async def test_a_function_has_its_time(work: Workplace) -> None:
    error = await refused(
        work.call("c3", "long", arguments={"seconds": 300}, needs=Needs(timeout_s=1.0), say=silent)
    )
    assert error.code is Code.TIMEOUT
    assert error.ran_s >= 1.0


async def test_cancelling_a_call_ends_it_on_its_node(work: Workplace, tmp_path: Path) -> None:
    event, say = begun()
    note = tmp_path / "pid"
    text = f"import os, time\nopen({str(note)!r}, 'w').write(str(os.getpid()) + '\\n')\ntime.sleep(300)"
    calling = asyncio.create_task(script(work, text, say=say))
    await event.wait()
    pid = await read_pid(note)
    calling.cancel()
    await asyncio.wait([calling])
    assert calling.cancelled()
    await until(lambda: not Path(f"/proc/{pid}").exists())


@pytest.mark.nightly
async def test_what_no_node_can_hold_is_told(work: Workplace) -> None:
    error = await refused(script(work, "result = 1", needs=Needs(cpus=64.0)))
    assert error.code is Code.INVALID
    assert error.message.startswith("no node of this cluster can hold it")


async def test_a_job_and_its_log(work: Workplace) -> None:
    needs = Needs(timeout_s=60.0)
    job_id = await work.submit("c4-job", "echo one; sleep 1; echo two", runtime_env=None, needs=needs)
    lines = "".join([line async for line in work.job_logs(job_id)])
    assert [line for line in lines.splitlines() if line in {"one", "two"}] == ["one", "two"]
    status = await work.job_status(job_id)
    assert (status.state, status.entrypoint) == ("succeeded", "echo one; sleep 1; echo two")
    assert status.started_at_s is not None
    assert (await refused(work.job_status("c5-nobody"))).code is Code.UNKNOWN_JOB


@pytest.mark.nightly
async def test_a_job_is_stopped(work: Workplace) -> None:
    job_id = await work.submit(
        "c6-job", "echo here; sleep 300", runtime_env=None, needs=Needs(timeout_s=60.0)
    )
    async for line in work.job_logs(job_id):
        if "here" in line:
            break
    assert await work.stop_job(job_id)
    async with asyncio.timeout(30):
        while (await work.job_status(job_id)).state != "stopped":
            await asyncio.sleep(0.2)


async def test_a_worker_that_is_killed_loses_the_call(work: Workplace, tmp_path: Path) -> None:
    event, say = begun()
    note = tmp_path / "pid"
    calling = asyncio.create_task(script(work, tells_the_worker(note), say=say))
    await event.wait()
    os.kill(await read_pid(note), signal.SIGKILL)
    error = await refused(calling)
    assert error.code is Code.LOST
    assert error.ran_s > 0


async def test_a_driver_that_is_killed_loses_the_call_and_comes_back(work: Workplace, tmp_path: Path) -> None:
    event, say = begun()
    calling = asyncio.create_task(script(work, "import time\ntime.sleep(300)", say=say))
    await event.wait()
    assert work._link is not None
    os.kill(work._link._process.pid, signal.SIGKILL)
    assert (await refused(calling)).code is Code.LOST
    assert (await script(work, "result = 7")).value == 7


async def test_a_gateway_keeps_a_cluster_up_for_calls_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"it-gw-idle-{os.getpid()}"
    text = CLUSTER.format(name=name, workers=1, idle_timeout_s=600, orphan_timeout_s=60)
    settings = WorkSettings(
        lambda: DriverCommand(DRIVER, driver_environment(pick(name))), sandbox=Sandbox(SandboxKind.NONE)
    )
    # A driver may be started while the cluster still goes down.
    monkeypatch.setattr(link, "START_TIMEOUT_S", 20.0)
    monkeypatch.setattr(workplace, "READY_TIMEOUT_S", 20.0)
    with cluster(tmp_path, text, idle_after_s=IDLE_AFTER_S) as found:
        work = Workplace(settings, functools.partial(asyncio.to_thread, status_of, found))
        work.start()
        call = f"import time\ntime.sleep({IDLE_AFTER_S + 5})\nresult = 'there'"
        assert (await script(work, call)).value == "there"
        assert work.connected
        await until(lambda: status_of(found) is None, IDLE_AFTER_S + 60.0)
        await until(lambda: bool(work.absence), 60.0)
        error = await refused(script(work, "result = 1"))
        assert (error.code, error.message) == (Code.UNAVAILABLE, "the cluster is down; nothing was begun")
        await work.aclose(0.0)


def tells_the_worker(note: Path) -> str:
    """Return a script that writes the process of its Ray worker: the one whose child its keeper was."""
    return f"""
import os, time
from pathlib import Path
for entry in Path("/proc").iterdir():
    try:
        name = (entry / "cmdline").read_bytes() if entry.name.isdigit() else b""
    except OSError:
        continue
    if name.startswith(b"ray::heliostat:"):
        Path({str(note)!r}).write_text(entry.name + "\\n")
time.sleep(300)
"""


async def read_pid(note: Path) -> int:
    await until(lambda: note.exists() and note.read_text().endswith("\n"))
    return int(note.read_text())


async def until(there: Callable[[], bool], seconds: float = 20.0) -> None:
    async with asyncio.timeout(seconds):
        while not there():
            await asyncio.sleep(0.05)
