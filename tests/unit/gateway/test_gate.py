"""The way in, whole: who is let in, what is held and settled, what is written, what a kill leaves."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from heliostat.gateway.errors import CallError, Code
from heliostat.gateway.rules.audit import lines_in
from heliostat.gateway.rules.gate import Gate, open_gate
from heliostat.gateway.rules.history import read_back
from heliostat.gateway.work.port import Done, Needs
from heliostat.model.gateway import Allowance, CallLimits, GatewaySettings, Right, Sandbox, SandboxKind
from tests.unit.gateway.people import ADA, NOW_S, WORKSPACE, allowance, caller, context

RUN = Right.RUN
GPU = Needs(gpus=2.0, timeout_s=100.0)
ALLOW = (
    allowance(Right.RUN, Right.ADMIN, Right.CALL, limits=CallLimits(calls_at_a_time=2, gpu_s_per_day=500.0)),
    allowance(Right.CALL, people=("eve@example.org",)),
)


@dataclass(frozen=True)
class Want:
    call_id: str
    function: str = "run_python"
    right: Right | None = RUN
    published: str | None = None
    payload_bytes: int = 0
    needs: Needs | None = GPU
    script: str | None = "result = 1"


HELLO = Want("h", "hello", right=None, needs=None, script=None)


@dataclass
class Clock:
    now_s: float = NOW_S

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def opened(tmp_path: Path, clock: Clock) -> Callable[..., Gate]:
    def make(allow: tuple[Allowance, ...] = ALLOW, **settings: Any) -> Gate:
        sandbox = settings.pop("sandbox", Sandbox(SandboxKind.BWRAP))
        values = GatewaySettings("https://h", allow, workspace=WORKSPACE, sandbox=sandbox)
        return open_gate(replace(values, **settings), tmp_path, now_s=clock)

    return make


@pytest.fixture
def gate(opened: Callable[..., Gate]) -> Gate:
    return opened()


def written(gate: Gate, tmp_path: Path) -> list[dict[str, Any]]:
    assert gate.audit.settle(10)
    return list(lines_in(tmp_path / "audit.jsonl"))


async def test_a_call_from_its_beginning_to_its_end(gate: Gate, clock: Clock, tmp_path: Path) -> None:
    async with gate.admit(context(), Want("c1")) as admitted:
        assert admitted.caller == caller()
        assert gate.usage.claimed_s(ADA) == 200.0
        (mine,) = gate.calls(caller())
        assert (mine["call_id"], mine["outcome"], mine["is_waiting"]) == ("c1", "", False)
        admitted.say("waiting for a node: Slurm, Priority")
        assert gate.calls(None)[0]["is_waiting"]
        clock.now_s += 30.0
        admitted.cost(Done(1, ran_s=10.0, gpu_s=20.0, node_id="n1"))
    assert gate.usage.spent_s(ADA, now_s=clock.now_s) == 20.0
    assert gate.calls(caller())[0]["outcome"] == "ok"
    begun, ended = written(gate, tmp_path)
    assert begun == {
        "at_s": NOW_S,
        "event": "begun",
        "call_id": "c1",
        "who": ADA,
        "account": ADA,
        "caller_id": "u-ada",
        "workspace": "ws-user-ada",
        "function": "run_python",
        "cpus": 1.0,
        "gpus": 2.0,
        "timeout_s": 100.0,
        "payload_bytes": 0,
        "script_sha256": hashlib.sha256(b"result = 1").hexdigest(),
    }
    assert ended == {
        "at_s": NOW_S + 30.0,
        "event": "ended",
        "call_id": "c1",
        "who": ADA,
        "account": ADA,
        "function": "run_python",
        "outcome": "ok",
        "began_at_s": NOW_S,
        "took_s": 30.0,
        "ran_s": 10.0,
        "gpu_s": 20.0,
        "node_id": "n1",
    }


async def test_scripts_are_kept_if_the_owner_asks(opened: Callable[..., Gate], tmp_path: Path) -> None:
    gate = opened(keep_scripts=True)
    async with gate.admit(context(), Want("c1")):
        pass
    begun = written(gate, tmp_path)[0]
    assert "script" not in begun
    assert (tmp_path / "scripts" / begun["script_sha256"]).read_text() == "result = 1"


async def test_a_script_that_cannot_be_kept_does_not_run(
    opened: Callable[..., Gate], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    gate = opened(keep_scripts=True)
    monkeypatch.setattr("heliostat.gateway.rules.scripts.os.fsync", refuse)
    assert (await refused(gate, Want("c1"))).code is Code.UNAVAILABLE
    assert gate.calls(None) == []
    assert list((tmp_path / "scripts").iterdir()) == []


async def refused(gate: Gate, want: Want, **user: Any) -> CallError:
    with pytest.raises(CallError) as caught:
        async with gate.admit(context(**user), want):
            pytest.fail("it was let in")
    return caught.value


@pytest.mark.parametrize(
    ("want", "user", "code"),
    [
        (Want("c"), {"email": "mallory@example.org"}, Code.NOT_ALLOWED),
        (Want("c"), {"email": "eve@example.org"}, Code.NOT_ALLOWED),
        (HELLO, {"email": "mallory@example.org"}, Code.NOT_ALLOWED),
        (HELLO, {"is_anonymous": True}, Code.NOT_ALLOWED),
        (HELLO, {"expires_at": NOW_S}, Code.SIGN_IN),
        (HELLO, {"id": None}, Code.SIGN_IN),
        (Want("c"), {"parent": "u-ada", "id": "x", "scope": {"workspaces": {"lab": "r"}}}, Code.SIGN_IN),
        (Want("c", payload_bytes=2**40), {}, Code.TOO_LARGE),
        (Want("c", needs=Needs(gpus=-1)), {}, Code.INVALID),
        (Want("c", needs=Needs(gpus=9.0, timeout_s=100.0)), {}, Code.LIMIT),
    ],
)
async def test_who_is_not_let_in_leaves_nothing_but_a_line(
    gate: Gate, tmp_path: Path, want: Want, user: dict[str, Any], code: Code
) -> None:
    error = await refused(gate, want, **user)
    assert error.code is code
    (line,) = written(gate, tmp_path)
    assert (line["event"], line["outcome"], line["times"]) == ("refused", code.value, 1)
    assert gate.calls(None) == []
    assert gate.usage.claimed_s(ADA) == 0.0


async def test_code_is_off_without_a_sandbox(opened: Callable[..., Gate]) -> None:
    gate = opened(sandbox=None)
    assert (await refused(gate, Want("c"))).message == "code of callers is switched off here"
    async with gate.admit(context(), HELLO):
        pass


@pytest.mark.parametrize(
    ("user", "code"),
    [({}, Code.LIMIT), ({"email": "mallory@example.org"}, Code.NOT_ALLOWED), ({"id": None}, Code.SIGN_IN)],
)
async def test_who_may_not_is_told_so_before_what_they_bring_is_looked_at(
    gate: Gate, tmp_path: Path, user: dict[str, Any], code: Code
) -> None:
    gate.screen(context(), Want("c"))
    assert written(gate, tmp_path) == []
    async with (
        gate.admit(context(), Want("a", needs=Needs())),
        gate.admit(context(), Want("b", needs=Needs())),
    ):
        with pytest.raises(CallError) as caught:
            gate.screen(context(**user), Want("c"))
    assert caught.value.code is code
    assert [one["outcome"] for one in written(gate, tmp_path) if one["event"] == "refused"] == [code.value]


async def test_a_call_may_take_no_longer_than_its_limits_say(opened: Callable[..., Gate]) -> None:
    gate = opened((allowance(RUN, limits=CallLimits(timeout_s=50.0)),))
    async with gate.admit(context(), Want("c")) as admitted:
        assert admitted.needs == replace(GPU, timeout_s=50.0)
        assert gate.usage.claimed_s(ADA) == 100.0


async def test_a_call_whose_line_may_be_lost_is_refused_and_none_that_is_lost_later(
    gate: Gate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr("heliostat.gateway.rules.audit_file.os.fsync", refuse)
    assert (await refused(gate, Want("c"))).code is Code.UNAVAILABLE
    assert [one.get("outcome") for one in written(gate, tmp_path)] == [None, "unavailable", "unavailable"]
    assert read_back(lines_in(tmp_path / "audit.jsonl")).unfinished == {}


async def test_slots_come_back_however_a_call_ends(gate: Gate) -> None:
    for index, error in enumerate((CallError(Code.FAILED, "x"), asyncio.CancelledError(), GeneratorExit())):
        with contextlib.suppress(CallError, asyncio.CancelledError, GeneratorExit):
            async with gate.admit(context(), Want(f"c{index}", needs=Needs())):
                raise error
    assert [one["outcome"] for one in gate.calls(None)] == ["cancelled", "cancelled", "failed"]
    async with (
        gate.admit(context(), Want("a", needs=Needs())),
        gate.admit(context(), Want("b", needs=Needs())),
    ):
        assert (await refused(gate, Want("c", needs=Needs()))).code is Code.LIMIT
    async with gate.admit(context(), Want("d", needs=Needs())):
        pass


@pytest.mark.parametrize(
    ("error", "waited_s", "ran_s", "charged"),
    [
        (CallError(Code.TIMEOUT, "x", ran_s=100.0, gpu_s=200.0), 0.0, 900.0, 200.0),
        (CallError(Code.UNAVAILABLE, "x"), 0.0, 10.0, 0.0),
        (asyncio.CancelledError(), 0.0, 10.0, 20.0),
        (asyncio.CancelledError(), 0.0, 900.0, 200.0),
        (asyncio.CancelledError(), 900.0, 10.0, 20.0),
        (asyncio.CancelledError(), 900.0, 0.0, 0.0),
        (CallError(Code.STOPPED, "x"), 900.0, 10.0, 20.0),
    ],
)
async def test_a_call_without_a_value_is_charged_for_what_it_ran_or_can_have_run(
    gate: Gate, clock: Clock, error: BaseException, waited_s: float, ran_s: float, charged: float
) -> None:
    with contextlib.suppress(CallError, asyncio.CancelledError):
        async with gate.admit(context(), Want("c")) as admitted:
            if waited_s:
                admitted.say("waiting for a node: nothing is free")
                clock.now_s += waited_s
            if ran_s:
                admitted.say("running")
                clock.now_s += ran_s
            raise error
    assert gate.usage.spent_s(ADA, now_s=clock.now_s) == charged


async def test_when_a_call_was_first_seen_to_run_is_kept(gate: Gate, clock: Clock, tmp_path: Path) -> None:
    async with gate.admit(context(), Want("c1", "submit")) as admitted:
        for _ in range(3):
            admitted.say("waiting for a node")
            assert gate.calls(None)[0]["is_waiting"]
            clock.now_s += 100.0
        for _ in range(3):
            admitted.starts()
            clock.now_s += 5.0
        assert (admitted.ran_s(), admitted.ran_s(NOW_S + 310.0), admitted.waits) == (15.0, 10.0, False)
        assert gate.calls(None)[0]["note"] == "running"
        admitted.cost(Done(None, 15.0, 30.0))
    _, running, last = written(gate, tmp_path)
    assert (running["event"], running["call_id"], running["at_s"]) == ("running", "c1", NOW_S + 300.0)
    assert last["gpu_s"] == 30.0


async def held(gate: Gate, want: Want, begun: asyncio.Event, **user: Any) -> None:
    async with gate.admit(context(**user), want):
        begun.set()
        await asyncio.Event().wait()


async def test_a_call_that_somebody_ends_says_why(gate: Gate, tmp_path: Path) -> None:
    begun = asyncio.Event()
    task = asyncio.create_task(held(gate, Want("c"), begun))
    await begun.wait()
    assert gate.register.stop("c", "an administrator has ended it")
    with pytest.raises(CallError, match="an administrator has ended it") as caught:
        await task
    assert caught.value.code is Code.STOPPED
    assert task.cancelling() == 0
    assert written(gate, tmp_path)[-1]["outcome"] == "stopped"
    assert not gate.register.stop("c", "again")


async def test_a_caller_who_goes_away_frees_the_slot(gate: Gate) -> None:
    begun = asyncio.Event()
    task = asyncio.create_task(held(gate, Want("c"), begun))
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert gate.usage.calls(ADA) == 0


@pytest.mark.parametrize("who", ["ADA@example.org", "u-ada"])
async def test_who_is_shut_out_is_out_at_once_and_after_a_restart(
    opened: Callable[..., Gate], who: str, tmp_path: Path
) -> None:
    gate, begun = opened(), asyncio.Event()
    task = asyncio.create_task(held(gate, Want("c"), begun))
    await begun.wait()
    assert gate.shut_out(who) == 1
    with pytest.raises(CallError, match="revoked"):
        await task
    for one in (gate, opened()):
        assert (await refused(one, HELLO)).message == "the owner has revoked your access"
    assert (
        await refused(gate, HELLO, id="child", parent="u-ada", email="ada@example.org")
    ).code is Code.NOT_ALLOWED
    assert not gate.may_call(caller(), "count")
    assert gate.let_back(who)
    assert not gate.let_back(who)
    async with gate.admit(context(), HELLO):
        pass
    events = [one["event"] for one in written(gate, tmp_path)]
    assert [one for one in events if one in ("revoked", "let_back")] == ["revoked", "let_back"]


async def test_questions_and_refusals_do_not_push_others_out_of_the_log(
    gate: Gate, clock: Clock, tmp_path: Path
) -> None:
    for _ in range(100):
        async with gate.admit(context(), HELLO):
            pass
        await refused(gate, HELLO, id=f"anonymouz-{clock.now_s}", is_anonymous=True, email=None)
        clock.now_s += 1.0
    gate.close()
    asked = [one for one in written(gate, tmp_path) if one["event"] == "asked"]
    refusals = [one for one in written(gate, tmp_path) if one["event"] == "refused"]
    assert [one["times"] for one in asked] == [1, 60, 39]
    assert [one["times"] for one in refusals] == [1, 60, 39]
    assert {one["who"] for one in refusals} == {"anonymous"}


async def test_what_was_used_today_counts_after_a_restart(opened: Callable[..., Gate], clock: Clock) -> None:
    gate = opened()
    async with gate.admit(context(), Want("c1")) as admitted:
        admitted.cost(Done(None, ran_s=50.0, gpu_s=350.0))
    gate.close()
    again = opened()
    assert again.usage.spent_s(ADA, now_s=clock.now_s) == 350.0
    assert (await refused(again, Want("c2"))).code is Code.LIMIT


async def test_a_call_that_a_killed_gateway_left_is_ended_as_lost(
    opened: Callable[..., Gate], clock: Clock, tmp_path: Path
) -> None:
    killed = opened()
    await killed.admit(context(), Want("c1")).__aenter__()
    clock.now_s += 60.0
    gate = opened()
    assert gate.usage.spent_s(ADA, now_s=clock.now_s) == 120.0
    line = written(gate, tmp_path)[-1]
    assert (line["call_id"], line["outcome"], line["gpu_s"], line["took_s"]) == ("c1", "lost", 120.0, 60.0)
    assert opened().usage.spent_s(ADA, now_s=clock.now_s) == 120.0


async def test_a_full_disk_refuses_and_holds_nothing(
    gate: Gate, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def full(*_: Any) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("heliostat.gateway.rules.audit_file.os.write", full)
    for want in (Want("c"), HELLO):
        error = await refused_or_broken(gate, want)
        assert error.code is Code.UNAVAILABLE
    assert gate.usage.calls(ADA) == 0
    assert gate.calls(None) == []
    assert gate.metrics.registry.get_sample_value("heliostat_gateway_audit_behind") == 1.0
    monkeypatch.undo()
    async with gate.admit(context(), Want("c")):
        pass
    assert gate.metrics.registry.get_sample_value("heliostat_gateway_audit_behind") == 0.0
    assert [one["event"] for one in written(gate, tmp_path) if "call_id" in one] == ["begun", "ended"]


async def refused_or_broken(gate: Gate, want: Want) -> CallError:
    """Return the error of a call; one that costs nothing fails only as it is written, at its end."""
    with pytest.raises(CallError) as caught:
        async with gate.admit(context(), want):
            pass
    return caught.value


async def test_metrics_by_function_and_outcome(gate: Gate) -> None:
    from prometheus_client import generate_latest

    async with gate.admit(context(), Want("a", "call", right=Right.CALL, published="count", needs=Needs())):
        pass
    with pytest.raises(CallError):
        async with gate.admit(
            context(), Want("b", "call", right=Right.CALL, published="made_up", needs=Needs())
        ):
            raise CallError(Code.INVALID, "no such function")
    async with gate.admit(context(), Want("c")) as admitted:
        admitted.cost(Done(None, 1.0, 5.0))
        text = generate_latest(gate.metrics.registry).decode()
        assert "heliostat_gateway_in_flight 1.0" in text
    text = generate_latest(gate.metrics.registry).decode()
    calls = "heliostat_gateway_calls_total"
    assert f'{calls}{{function="call",outcome="ok",published="count"}} 1.0' in text
    assert f'{calls}{{function="call",outcome="invalid",published="other"}} 1.0' in text
    assert "heliostat_gateway_gpu_seconds_total 5.0" in text
    assert "made_up" not in text


async def test_a_gate_that_closes_takes_no_more_work(gate: Gate) -> None:
    gate.is_closing = True
    assert (await refused(gate, Want("c"))).code is Code.UNAVAILABLE


async def test_metrics_count_without_a_walk_through_what_another_thread_changes(
    gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    def walked(*_: object) -> None:
        raise RuntimeError("dictionary changed size during iteration")

    monkeypatch.setattr(gate.register, "in_flight", walked)

    def shown() -> tuple[float | None, ...]:
        value = gate.metrics.registry.get_sample_value
        return value("heliostat_gateway_in_flight"), value("heliostat_gateway_waiting")

    async with gate.admit(context(), Want("c1", needs=Needs())) as admitted:
        async with gate.admit(context(), Want("c2", needs=Needs())) as other:
            other.say("waiting for a node")
            assert shown() == (2.0, 1.0)
            admitted.say("waiting for a node")
            assert shown() == (2.0, 2.0)
            admitted.say("running")
            assert shown() == (2.0, 1.0)
        assert shown() == (1.0, 0.0)
    assert shown() == (0.0, 0.0)


def test_metrics_are_served_on_loopback(gate: Gate) -> None:
    from urllib.request import urlopen

    port = gate.metrics.serve(None)
    try:
        with urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
            assert b"heliostat_gateway_waiting 0.0" in answer.read()
    finally:
        gate.metrics.close()
