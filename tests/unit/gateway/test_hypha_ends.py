"""How calls end: by who made them, with a caller that has gone, and when the gateway goes down."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from heliostat.gateway.hypha import streams
from heliostat.gateway.hypha.presence import Presence
from tests.gateway_parts import WorkOnCall
from tests.unit.gateway.served_calls import ADA, BOB, ROOT, ended, made


async def test_calls_are_ended_by_who_made_them_and_by_admins(tmp_path: Path) -> None:
    one = made(tmp_path)
    run, stop = one.functions()["run_python"], one.functions()["stop_call"]
    first, second = (asyncio.create_task(run("1", context=ADA)) for _ in range(2))
    ids = [(await one.work.arrived.get()).call_id for _ in range(2)]
    assert (await stop(ids[0], context=BOB))["error"]["code"] == "unknown_job"
    assert (await stop(ids[0], context=ADA))["value"] is True
    assert (await stop(ids[1], context=ROOT))["value"] is True
    assert [(await task)["error"] for task in (first, second)] == [
        {"code": "stopped", "message": "you ended it"},
        {"code": "stopped", "message": "an administrator ended it"},
    ]
    assert one.work.cancelled == 2
    assert one.rules.running == []


async def test_ones_own_job_is_ended_like_a_call_and_what_is_unknown_is_said_to_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("heliostat.gateway.hypha.job_keeper.LOOK_AFTER_S", 0.0)
    one = made(tmp_path)
    stop = one.functions()["stop_call"]
    job_id = (await one.functions()["submit"]("x", context=ADA))["value"]
    unknown = [await stop(given, context=who) for given, who in ((job_id, BOB), ("none such", ADA))]
    assert [each["error"]["code"] for each in unknown] == ["unknown_job"] * 2
    assert unknown[0]["error"]["message"] == unknown[1]["error"]["message"]
    assert (await stop(job_id, context=ADA))["value"] is True
    await ended(one)
    assert one.work.jobs[job_id].state == "stopped"
    assert (await stop(job_id, context=ROOT))["value"] is False


async def test_a_waiting_caller_that_is_cut_off_frees_its_slot(tmp_path: Path) -> None:
    one = made(tmp_path)
    waiting = asyncio.create_task(one.functions()["run_python"]("1", context=ADA))
    await one.work.arrived.get()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    while one.rules.running:
        await asyncio.sleep(0)
    assert one.work.cancelled == 1


@pytest.mark.parametrize(
    ("wait", "passed_s", "found", "looks"),
    [
        (True, 0.0, Presence.GONE, 2),
        (True, 0.0, Presence.SILENT, 6),
        (False, streams.ABANDONED_S + 1, Presence.THERE, 1),
    ],
)
async def test_a_caller_that_has_gone_frees_its_slot(
    tmp_path: Path, wait: bool, passed_s: float, found: Presence, looks: int
) -> None:
    async def look(peer: str) -> Presence:
        return found

    one = made(tmp_path)
    asked = asyncio.create_task(one.functions()["run_python"]("1", wait=wait, context=ADA))
    await one.work.arrived.get()
    for number in range(looks):
        assert len(one.rules.running) == 1, f"ended before look {number}"
        one.now[0] += passed_s
        await one.underway.sweep(look)
        await asyncio.sleep(0)
    await asked
    while one.rules.running:
        await asyncio.sleep(0)


async def test_who_is_there_keeps_its_call_and_who_comes_back_begins_anew(tmp_path: Path) -> None:
    seen = iter([Presence.THERE, Presence.GONE] * 3)

    async def look(peer: str) -> Presence:
        assert peer == ADA["from"]
        return next(seen)

    one = made(tmp_path)
    asked = asyncio.create_task(one.functions()["run_python"]("1", context=ADA))
    arrived = await one.work.arrived.get()
    for _ in range(6):
        one.now[0] += streams.ABANDONED_S
        await one.underway.sweep(look)
    arrived.end.set_result(1)
    assert (await asked)["value"] == 1


async def test_closing_a_stream_ends_its_call(tmp_path: Path) -> None:
    one = made(tmp_path)
    stream = await one.functions()["run_python"]("1", stream=True, context=ADA)
    await anext(stream)
    await one.work.arrived.get()
    await stream.aclose()
    while one.rules.running:
        await asyncio.sleep(0)
    assert one.work.cancelled == 1


async def test_going_down_lets_calls_end_and_then_ends_them(tmp_path: Path) -> None:
    one = made(tmp_path)
    run = one.functions()["run_python"]
    quick, slow = (asyncio.create_task(run("1", context=ADA)) for _ in range(2))
    (await one.work.arrived.get()).end.set_result(1)
    await one.work.arrived.get()
    await one.services.aclose(timeout_s=0.01)
    assert ((await quick)["ok"], (await slow)["error"]["code"]) == (True, "stopped")
    assert (await run("1", context=ADA))["error"]["code"] == "unavailable"


async def test_whatever_waits_has_its_answer_when_the_gateway_goes_down(tmp_path: Path) -> None:
    class Silent(WorkOnCall):
        async def submit(self, *_: Any, **__: Any) -> str:
            return await self._future()

        async def job_status(self, job_id: str) -> Any:
            return await self._future()

        async def functions(self) -> Any:
            return await self._future()

    one = made(tmp_path, Silent())
    one.services._jobs._owners.add("j", "ada@example.org")
    functions = one.functions()
    asked = {
        "submit": {"entrypoint": "x"},
        "job_status": {"job_id": "j"},
        "functions": {},
        "job_logs": {"job_id": "j", "offset": 5, "wait_s": 25},
    }
    waiting = [asyncio.create_task(functions[name](**given, context=ADA)) for name, given in asked.items()]
    while len(one.rules.contexts) < len(asked):
        await asyncio.sleep(0)
    async with asyncio.timeout(10):
        await one.services.aclose(timeout_s=0.01)
        answers = [await task for task in waiting]
    assert [answer["error"]["code"] for answer in answers[:3]] == ["lost"] * 3
    # Of a log there is what there is.
    assert answers[3]["ok"]
    assert "job_status" in answers[0]["error"]["message"]
    assert {one["call_id"] for one in answers} == {"c1", "c2", "c3", "c4"}
    for name, given in asked.items():
        assert (await functions[name](**given, context=ADA))["error"]["code"] == "unavailable"
