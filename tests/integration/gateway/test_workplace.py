"""The gateway's side of the driver, with one that has no cluster: nothing waits in silence."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from heliostat.gateway.errors import CallError, Code
from heliostat.gateway.work import link, workplace
from heliostat.gateway.work.port import Done, Needs, Script
from heliostat.gateway.work.workplace import DriverCommand, Workplace, WorkSettings
from heliostat.model.gateway import Sandbox, SandboxKind
from heliostat.model.report import StatusReport
from tests.waiting import gone, written

pytestmark = [pytest.mark.integration, pytest.mark.timeout(60)]

DRIVER = Path(__file__).with_name("stand_in_driver.py")
NEEDS = Needs()


async def nobody() -> StatusReport | None:
    return None


@asynccontextmanager
async def place(tmp_path: Path, *words: str, **settings: Any) -> AsyncIterator[Workplace]:
    environment = {**os.environ, "STAND_IN_NOTE": str(tmp_path / "note")}
    chosen = {"sandbox": Sandbox(SandboxKind.NONE), **settings}
    command = DriverCommand([sys.executable, str(DRIVER), *words], environment)
    found = Workplace(WorkSettings(lambda: command, **chosen), nobody)
    found.start()
    try:
        yield found
    finally:
        await found.aclose(0.0)


def silent(_: str) -> None:
    """Take a line and say nothing."""


async def run(found: Workplace, what: str, say: Callable[[str], None] = silent, **inputs: Any) -> Done:
    return await found.run_python(what, Script("", inputs), needs=NEEDS, say=say)


async def code_of(call: Any) -> Code:
    with pytest.raises(CallError) as error:
        await call
    return error.value.code


def begun() -> tuple[asyncio.Event, Callable[[str], None]]:
    """Return an event that is set once a call says that it runs, and what to tell it by."""
    event = asyncio.Event()
    return event, lambda text: event.set() if text == "running" else None


async def test_large_values_both_ways(tmp_path: Path) -> None:
    image = np.arange(8 * 2**20, dtype="f8")
    said: list[str] = []
    async with place(tmp_path) as found:
        done = await run(found, "echo", said.append, image=image)
    np.testing.assert_array_equal(done.value["image"], image)
    assert (done.ran_s, done.gpu_s) == (1.0, 0.0)
    assert said[-1] == "running"


async def test_two_hundred_at_a_time(tmp_path: Path) -> None:
    async with place(tmp_path) as found:
        done = await asyncio.gather(*(run(found, "echo", number=number) for number in range(200)))
    assert [one.value for one in done] == [{"number": number} for number in range(200)]


async def test_a_driver_that_dies_loses_what_it_did_and_is_replaced(tmp_path: Path) -> None:
    async with place(tmp_path) as found:
        event, say = begun()
        waiting = asyncio.create_task(run(found, "wait", say))
        await event.wait()
        lost = await asyncio.gather(waiting, run(found, "die"), return_exceptions=True)
        assert [one.code for one in lost if isinstance(one, CallError)] == [Code.LOST] * 2
        assert (await run(found, "echo", a=1)).value == {"a": 1}


async def test_a_lost_call_says_what_it_cost(tmp_path: Path) -> None:
    async with place(tmp_path) as found:
        with pytest.raises(CallError) as error:
            await found.run_python("die", Script(""), needs=Needs(gpus=2.0), say=silent)
    assert error.value.ran_s > 0
    assert error.value.gpu_s == 2 * error.value.ran_s


async def test_cancelling_a_call_ends_its_work(tmp_path: Path) -> None:
    async with place(tmp_path) as found:
        event, say = begun()
        waiting = asyncio.create_task(run(found, "wait", say))
        await event.wait()
        waiting.cancel()
        await asyncio.wait([waiting])
        assert waiting.cancelled()
        assert await written(tmp_path / "note") == "cancelled\n"


async def test_a_cluster_that_never_answers_refuses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workplace, "READY_TIMEOUT_S", 0.5)
    async with place(tmp_path, "fail") as found:
        assert await code_of(run(found, "echo")) is Code.UNAVAILABLE
        assert not found.connected


async def test_what_runs_may_end_before_the_gateway_does(tmp_path: Path) -> None:
    async with place(tmp_path) as found:
        event, say = begun()
        running = asyncio.create_task(run(found, "wait", say))
        await event.wait()
        closing = asyncio.create_task(found.aclose(0.2))
        assert await code_of(running) is Code.STOPPED
        await closing
        assert await code_of(run(found, "echo")) is Code.UNAVAILABLE


async def test_a_driver_ends_with_its_gateway(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link, "TOLD_S", 0.1)
    async with place(tmp_path) as found:
        await run(found, "echo")
        assert found._link is not None
        pid = found._link._process.pid
        os.kill(pid, signal.SIGSTOP)
    assert await gone(pid)


@pytest.mark.parametrize(
    ("settings", "call", "code"),
    [
        ({"sandbox": None}, {"script": Script("")}, Code.NOT_ALLOWED),
        ({}, {"script": Script("", runtime_env={"pip": ["x"]})}, Code.NOT_ALLOWED),
        ({"runtime_env": True}, {"script": Script("", runtime_env={"working_dir": "/"})}, Code.INVALID),
        ({"runtime_env": True}, {"script": Script("", runtime_env={"env_vars": {"A": 1}})}, Code.INVALID),
        ({}, {"script": Script("", {"no name": 1})}, Code.INVALID),
        ({}, {"script": Script("", {"a": {1}})}, Code.INVALID),
        ({}, {"needs": Needs(cpus=0.0)}, Code.INVALID),
        ({}, {"needs": Needs(cpus=-1.0)}, Code.INVALID),
        ({}, {"needs": Needs(cpus=float("nan"))}, Code.INVALID),
        ({}, {"needs": Needs(gpus=1.5)}, Code.INVALID),
        ({}, {"needs": Needs(gpus=0.01)}, Code.INVALID),
        ({}, {"needs": Needs(timeout_s=0.0)}, Code.INVALID),
    ],
)
async def test_what_is_refused_before_anything_begins(
    tmp_path: Path, settings: dict[str, Any], call: dict[str, Any], code: Code
) -> None:
    async with place(tmp_path, **settings) as found:
        script, needs = call.get("script", Script("")), call.get("needs", NEEDS)
        assert await code_of(found.run_python("echo", script, needs=needs, say=silent)) is code


async def test_jobs_need_an_owner_who_lends_the_account(tmp_path: Path) -> None:
    async with place(tmp_path, sandbox=Sandbox(SandboxKind.BWRAP)) as found:
        assert await code_of(found.submit("c1", "true", runtime_env=None, needs=NEEDS)) is Code.NOT_ALLOWED


async def test_a_driver_does_not_have_the_gateways_token(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LAB_TOKEN", "secret")
    async with place(tmp_path, withheld=frozenset({"LAB_TOKEN"})) as found:
        names = (await run(found, "environment")).value
    assert "LAB_TOKEN" not in names
    assert "STAND_IN_NOTE" in names


async def test_a_log_ends(tmp_path: Path) -> None:
    async with place(tmp_path) as found:
        assert [line async for line in found.job_logs("c1")] == []
