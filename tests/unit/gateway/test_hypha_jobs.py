"""Jobs as callers see them, and their logs: whose they are, what they cost, and when they end."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from heliostat.gateway.errors import CallError, Code
from heliostat.gateway.work.port import JobStatus
from tests.gateway_parts import RulesByName, WorkOnCall, gateway
from tests.unit.gateway.served_calls import ADA, BOB, MAY, ROOT, ended, made


async def test_a_submit_that_is_through_in_time_is_answered_well(tmp_path: Path) -> None:
    go_on = asyncio.Event()

    class Slow(WorkOnCall):
        async def submit(self, call_id: str, entrypoint: str, **more: Any) -> str:
            await go_on.wait()
            return await super().submit(call_id, entrypoint, **more)

    one = made(tmp_path, Slow())
    asked = asyncio.create_task(one.functions()["submit"]("x", context=ADA))
    while not one.rules.running:
        await asyncio.sleep(0)
    closing = asyncio.create_task(one.services.aclose(timeout_s=10))
    await asyncio.sleep(0)
    late = await one.functions()["submit"]("y", context=ADA)
    assert late["error"]["code"] == "unavailable"
    go_on.set()
    await closing
    assert (await asked)["value"] == "c1"


async def test_jobs_are_their_owners_alone_over_restarts(tmp_path: Path) -> None:
    one = made(tmp_path)
    submitted = await one.functions()["submit"]("python train.py", context=ADA)
    job_id = submitted["value"]
    again = gateway(tmp_path, RulesByName(MAY), one.work).functions()
    assert (await again["job_status"](job_id, context=ADA))["value"]["state"] == "running"
    for function in ("job_status", "job_logs", "stop_job"):
        assert (await again[function](job_id, context=BOB))["error"]["code"] == "unknown_job"
    assert (await again["stop_job"](job_id, context=ADA))["value"] is True
    await one.services.aclose(0)


async def test_a_job_keeps_its_slot_until_it_ends_and_costs_what_it_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("heliostat.gateway.hypha.job_keeper.LOOK_AFTER_S", 0.0)
    one = made(tmp_path)
    job_id = (await one.functions()["submit"]("sleep", resources={"GPU": 2}, context=ADA))["value"]
    assert len(one.rules.running) == 1
    await one.functions()["stop_job"](job_id, context=ADA)
    while one.rules.running:
        await asyncio.sleep(0)
    (entry,) = (each for each in one.rules.entries if each.ask.function == "submit")
    assert [(done.ran_s, done.gpu_s) for done in entry.costs] == [(20.0, 40.0)]


@pytest.mark.parametrize(
    ("seen", "ended_at_s", "ran_s"),
    [
        ([("pending", 500.0), ("running", 600.0), ("running", 620.0)], 625.0, 25.0),
        ([("running", 105.0)], 110.0, 5.0),
        # Over between two looks: since the last one at most.
        ([("pending", 500.0)], 504.0, 4.0),
        ([], 103.0, 3.0),
        # Ended in the queue.
        ([("pending", 500.0)], 500.0, 0.0),
    ],
)
async def test_a_job_does_not_pay_for_the_queue(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    seen: list[tuple[str, float]],
    ended_at_s: float,
    ran_s: float,
) -> None:
    monkeypatch.setattr("heliostat.gateway.hypha.job_keeper.LOOK_AFTER_S", 0.0)

    class Queued(WorkOnCall):
        async def job_status(self, job_id: str) -> Any:
            # Ray's start of a job is its submission.
            job = JobStatus(job_id, "running", "", "x", started_at_s=100.0)
            if not seen:
                one.rules.now_s = ended_at_s + 1.0
                return replace(job, state="succeeded", ended_at_s=ended_at_s)
            state, one.rules.now_s = seen.pop(0)
            return replace(job, state=state)

    one = made(tmp_path, Queued())
    one.rules.now_s = 100.0
    await one.functions()["submit"]("x", resources={"GPU": 2}, context=ADA)
    await ended(one)
    (entry,) = one.rules.entries
    assert [(done.ran_s, done.gpu_s) for done in entry.costs] == [(ran_s, 2 * ran_s)]


async def test_a_job_outlives_a_head_that_is_away_and_ends_with_its_owners_rights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("heliostat.gateway.hypha.job_keeper.LOOK_AFTER_S", 0.0)
    one = made(tmp_path)
    job_id = (await one.functions()["submit"]("sleep", context=ADA))["value"]
    looks, there = [], one.work.job_status

    async def away(job_id: str) -> Any:
        looks.append(job_id)
        raise CallError(Code.UNAVAILABLE, "the head does not answer")

    monkeypatch.setattr(one.work, "job_status", away)
    while len(looks) < 5:
        await asyncio.sleep(0)
    assert len(one.rules.running) == 1
    assert (await one.functions()["stop_call"]("c1", context=ROOT))["value"] is True
    monkeypatch.setattr(one.work, "job_status", there)
    await ended(one)
    assert one.work.jobs[job_id].state == "stopped"


async def test_a_job_goes_on_within_the_rules_when_its_submitter_is_cut_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hypha's client cancels a handler whose caller's heartbeat fails; the caller chooses that heartbeat."""
    monkeypatch.setattr("heliostat.gateway.hypha.job_keeper.LOOK_AFTER_S", 0.0)
    begun, go_on = asyncio.Event(), asyncio.Event()

    class Slow(WorkOnCall):
        async def submit(self, call_id: str, entrypoint: str, **more: Any) -> str:
            begun.set()
            await go_on.wait()
            return await super().submit(call_id, entrypoint, **more)

    one = made(tmp_path, Slow())
    asked = asyncio.create_task(one.functions()["submit"]("sleep", resources={"GPU": 1}, context=ADA))
    await begun.wait()
    asked.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asked
    go_on.set()
    while not one.work.jobs:
        await asyncio.sleep(0)
    assert len(one.rules.running) == 1
    assert (await one.functions()["job_status"]("c1", context=ADA))["ok"]
    one.rules.stop("c1", "the owner has revoked your access")
    await ended(one)
    assert one.work.jobs["c1"].state == "stopped"
    assert [done.gpu_s for done in one.rules.entries[0].costs] == [20.0]


@pytest.mark.parametrize("is_there", [True, False])
async def test_a_job_of_which_nobody_knows_is_its_submitters_until_it_is_clear(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_there: bool
) -> None:
    monkeypatch.setattr("heliostat.gateway.hypha.job_keeper.LOOK_AFTER_S", 0.0)
    looks = []

    class Unclear(WorkOnCall):
        async def submit(self, call_id: str, entrypoint: str, **more: Any) -> str:
            if is_there:
                await super().submit(call_id, entrypoint, **more)
            raise CallError(Code.LOST, "the cluster did not answer in time; it may have acted")

        async def job_status(self, job_id: str) -> Any:
            looks.append(job_id)
            return await super().job_status(job_id)

    one = made(tmp_path, Unclear())
    found = await one.functions()["submit"]("sleep", context=ADA)
    assert (found["error"]["code"], found["call_id"]) == ("lost", "c1")
    while len(looks) < 3:
        await asyncio.sleep(0)
    assert len(one.rules.running) == 1
    if is_there:
        assert (await one.functions()["stop_job"](found["call_id"], context=ADA))["value"] is True
    await ended(one)
    assert one.rules.entries[0].outcome == ("ok" if is_there else "lost")


async def test_a_job_that_is_refused_is_nobodys_and_over(tmp_path: Path) -> None:
    class Refused(WorkOnCall):
        async def submit(self, *_: Any, **__: Any) -> str:
            raise CallError(Code.INVALID, "Ray refuses a job like this")

    one = made(tmp_path, Refused())
    assert (await one.functions()["submit"]("x", context=ADA))["error"]["code"] == "invalid"
    assert (one.rules.running, one.rules.entries[0].outcome) == ([], "invalid")


async def test_whose_a_job_is_stands_on_the_disk_before_ray_has_it(tmp_path: Path) -> None:
    one = made(tmp_path)
    (tmp_path / "jobs").mkdir()
    assert (await one.functions()["submit"]("x", context=ADA))["error"]["code"] == "unavailable"
    assert (one.work.jobs, one.rules.running) == ({}, [])


async def test_who_ends_a_job_is_not_put_off_by_a_silent_head(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("heliostat.gateway.hypha.job_keeper.LOOK_AFTER_S", 0.0)
    tries = []

    class Away(WorkOnCall):
        async def stop_job(self, job_id: str) -> bool:
            tries.append(job_id)
            if len(tries) < 4:
                raise CallError(Code.UNAVAILABLE, "the head does not answer")
            return await super().stop_job(job_id)

    one = made(tmp_path, Away())
    await one.functions()["submit"]("sleep", context=ADA)
    for _ in range(2):
        assert one.rules.stop("c1", "the owner has revoked your access")
        await asyncio.sleep(0)
    await ended(one)
    assert (one.work.jobs["c1"].state, len(tries)) == ("stopped", 4)
    assert one.rules.entries[0].outcome == "stopped"


async def test_logs_come_as_a_stream_or_bit_by_bit(tmp_path: Path) -> None:
    one = made(tmp_path, WorkOnCall(logs=["one\n", "two\n"]))
    functions = one.functions()
    job_id = (await functions["submit"]("x", context=ADA))["value"]
    stream = await functions["job_logs"](job_id, stream=True, context=ADA)
    assert [text async for text in stream] == ["one\n", "two\n"]
    seen, offset = "", 0
    while True:
        look = (await functions["job_logs"](job_id, offset=offset, wait_s=5, context=ADA))["value"]
        seen, offset = seen + look["text"], look["offset"]
        if look["done"]:
            break
    assert seen == "one\ntwo\n"
    await one.services.aclose(0)


class Torn(WorkOnCall):
    """A cluster whose driver goes now and then: a log that is opened anew begins at its beginning."""

    torn = 2
    opened = 0
    error = Code.LOST

    async def job_logs(self, job_id: str) -> Any:
        self.opened += 1
        yield "one\ntw"
        if self.opened <= self.torn:
            raise CallError(self.error, "the driver went away")
        yield "o\nthree\n"


async def read(functions: dict[str, Any], job_id: str, *, stream: bool) -> str:
    """Return a job's log to its end, in one of the two ways."""
    if stream:
        return "".join([text async for text in await functions["job_logs"](job_id, stream=True, context=ADA)])
    text, look = "", {"offset": 0, "done": False}
    while not look["done"]:
        found = await functions["job_logs"](job_id, offset=look["offset"], wait_s=5, context=ADA)
        look = found["value"]
        text += look["text"]
    return text


@pytest.mark.parametrize("stream", [True, False])
async def test_a_log_goes_on_over_a_driver_that_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stream: bool
) -> None:
    monkeypatch.setattr("heliostat.gateway.hypha.job_logs.RETRY_AFTER_S", 0.0)
    one = made(tmp_path, Torn())
    functions = one.functions()
    job_id = (await functions["submit"]("x", context=ADA))["value"]
    assert await read(functions, job_id, stream=stream) == "one\ntwo\nthree\n"
    await one.services.aclose(0)


async def test_a_log_that_can_not_be_had_is_no_end_of_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("heliostat.gateway.hypha.job_logs.RETRY_AFTER_S", 0.0)
    work = Torn()
    work.torn = 10**6
    one = made(tmp_path, work)
    functions = one.functions()
    job_id = (await functions["submit"]("x", context=ADA))["value"]
    look = (await functions["job_logs"](job_id, wait_s=5, context=ADA))["value"]
    assert (look["text"], look["done"]) == ("one\ntw", False)
    refused = await functions["job_logs"](job_id, offset=look["offset"], wait_s=5, context=ADA)
    assert refused["error"] == {"code": "lost", "message": "the driver went away"}
    parts = [part async for part in await functions["job_logs"](job_id, stream=True, context=ADA)]
    assert [parts[0], parts[-1]["error"]["code"]] == ["one\ntw", "lost"]
    # Who looks again tries again.
    work.torn = 0
    assert await read(functions, job_id, stream=False) == "one\ntwo\nthree\n"
    await one.services.aclose(0)


async def test_a_stream_ends_with_its_callers_rights_and_with_the_gateway(tmp_path: Path) -> None:
    lines = asyncio.Queue[str]()

    class Growing(WorkOnCall):
        async def job_logs(self, job_id: str) -> Any:
            while True:
                yield await lines.get()

    one = made(tmp_path, Growing())
    functions = one.functions()
    job_id = (await functions["submit"]("x", context=ADA))["value"]
    streams = [await functions["job_logs"](job_id, stream=True, context=ADA) for _ in range(2)]
    lines.put_nowait("one\n")
    assert await anext(streams[0]) == "one\n"
    one.rules.rights = {}
    lines.put_nowait("two\n")
    assert [part["error"]["code"] async for part in streams[0]] == ["not_allowed"]
    waiting = asyncio.create_task(anext(streams[1]))
    await asyncio.sleep(0)
    async with asyncio.timeout(10):
        await one.services.aclose(0)
        assert (await waiting)["error"]["code"] == "unavailable"


async def test_a_log_is_read_only_while_somebody_looks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("heliostat.gateway.hypha.job_logs.TAIL_IDLE_S", 0.05)
    closed, opened = asyncio.Event(), []

    class Endless(WorkOnCall):
        async def job_logs(self, job_id: str) -> Any:
            opened.append(job_id)
            try:
                yield "one\n"
                await self._future()
            finally:
                closed.set()

    one = made(tmp_path, Endless())
    functions = one.functions()
    job_id = (await functions["submit"]("x", context=ADA))["value"]
    assert (await functions["job_logs"](job_id, context=ADA))["value"]["text"] == "one\n"
    async with asyncio.timeout(10):
        await closed.wait()
    look = (await functions["job_logs"](job_id, offset=4, context=ADA))["value"]
    assert (look, len(opened)) == ({"text": "", "offset": 4, "done": False}, 2)
    await one.services.aclose(0)
