"""Calls at a time and GPU seconds a day, as steps of a state machine."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heliostat.gateway.errors import CallError, Code
from heliostat.gateway.rules.limits import DAY_S, Usage, check_asked, check_payload
from heliostat.gateway.work.port import Needs
from heliostat.model.gateway import CallLimits
from tests.unit.gateway.people import NOW_S

GPU = Needs(gpus=1.0, timeout_s=100.0)
DAILY = CallLimits(calls_at_a_time=None, gpu_s_per_day=250.0)


def claim(
    usage: Usage, call_id: str, *, needs: Needs = GPU, limits: CallLimits = DAILY, who: str = "ada"
) -> None:
    usage.claim(call_id, who, needs=needs, limits=limits, now_s=NOW_S)


def test_calls_at_a_time() -> None:
    usage, two = Usage(), CallLimits(calls_at_a_time=2)
    claim(usage, "a", limits=two)
    claim(usage, "b", limits=two)
    with pytest.raises(CallError, match="2 calls at a time") as caught:
        claim(usage, "c", limits=two)
    assert caught.value.code is Code.LIMIT
    claim(usage, "d", limits=two, who="eve")
    usage.settle("a", gpu_s=0.0, now_s=NOW_S)
    claim(usage, "c", limits=two)


def test_what_a_call_can_cost_is_held_until_it_has_ended() -> None:
    usage = Usage()
    claim(usage, "a")
    claim(usage, "b")
    with pytest.raises(CallError, match="you have 50 left today: ask for timeout_s of 50 or less"):
        claim(usage, "c")
    claim(usage, "c", needs=replace(GPU, timeout_s=50.0))
    with pytest.raises(CallError, match="used up, or claimed"):
        claim(usage, "d")
    usage.settle("a", gpu_s=1.0, now_s=NOW_S)
    claim(usage, "d", needs=replace(GPU, timeout_s=99.0))
    assert usage.spent_s("ada", now_s=NOW_S) == 1.0


def test_what_needs_no_gpu_is_not_held_back() -> None:
    usage = Usage()
    claim(usage, "a", needs=Needs(timeout_s=1e6), limits=replace(DAILY, gpu_s_per_day=0.0))
    with pytest.raises(CallError, match="used up"):
        claim(usage, "b", limits=replace(DAILY, gpu_s_per_day=0.0))


def test_a_new_day_begins_at_midnight_utc() -> None:
    usage, midnight_s = Usage(), (NOW_S // DAY_S + 1) * DAY_S
    usage.add("ada", 200.0, at_s=NOW_S, now_s=NOW_S)
    usage.add("ada", 10.0, at_s=NOW_S - DAY_S, now_s=NOW_S)
    assert usage.spent_s("ada", now_s=midnight_s - 1) == 200.0
    assert usage.spent_s("ada", now_s=midnight_s) == 0.0
    # A clock that is set back gives nothing back.
    usage.add("ada", 5.0, at_s=midnight_s, now_s=midnight_s)
    assert usage.spent_s("ada", now_s=NOW_S) == 5.0


@given(st.lists(st.tuples(st.floats(0, 4), st.floats(1, 200), st.floats(0, 1)), max_size=30))
def test_no_calls_at_once_can_pass_the_limit(calls: list[tuple[float, float, float]]) -> None:
    usage, begun = Usage(), list[tuple[str, float]]()
    for index, (gpus, timeout_s, share) in enumerate(calls):
        needs = Needs(gpus=gpus, timeout_s=timeout_s)
        try:
            claim(usage, str(index), needs=needs)
        except CallError:
            continue
        begun.append((str(index), gpus * timeout_s * share))
        if index % 3 == 0:
            call_id, cost = begun.pop(0)
            usage.settle(call_id, gpu_s=cost, now_s=NOW_S)
    for call_id, cost in begun:
        usage.settle(call_id, gpu_s=cost, now_s=NOW_S)
    assert usage.spent_s("ada", now_s=NOW_S) <= 250.0 + 1e-6
    assert usage.calls("ada") == 0


@pytest.mark.parametrize(
    ("needs", "said"),
    [
        (Needs(cpus=-1), "cpus is -1"),
        (Needs(gpus=math.nan), "gpus is nan"),
        (Needs(gpus=math.inf), "gpus is inf"),
        (Needs(memory_bytes=-1), "memory_bytes is -1"),
        (Needs(timeout_s=0), "timeout_s is 0; allowed is a number above 0"),
        (Needs(timeout_s=math.nan), "timeout_s is nan"),
    ],
)
def test_what_can_not_be_asked_for(needs: Needs, said: str) -> None:
    with pytest.raises(CallError, match=said) as caught:
        check_asked(needs)
    assert caught.value.code is Code.INVALID


def test_what_a_call_brings() -> None:
    check_payload(1024, CallLimits(payload_bytes=1024))
    with pytest.raises(CallError, match="brings 1025 bytes; 1024 are allowed") as caught:
        check_payload(1025, CallLimits(payload_bytes=1024))
    assert caught.value.code is Code.TOO_LARGE
