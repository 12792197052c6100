"""What to do with a group's seats: a table of views and steps."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heliostat.train.decide import (
    Ask,
    Bury,
    Check,
    Leave,
    Limits,
    Phase,
    Seat,
    Settle,
    Start,
    Step,
    View,
    Withdraw,
    decide,
)
from heliostat.train.types import Reason

NOW_S = 1000.0
INF = float("inf")
LIMITS = Limits(start_timeout_s=60.0, health_every_s=30.0, health_timeout_s=20.0)


def asked(name: str, number: int = 1) -> Seat:
    return Seat(name, Phase.ASKED, NOW_S - 500, number=number)


def placed(name: str, node: str = "n") -> Seat:
    return Seat(name, Phase.PLACED, NOW_S, node)


def starting(name: str, node: str = "n", *, for_s: float = 1, number: int = 1) -> Seat:
    return Seat(name, Phase.STARTING, NOW_S - for_s, node, number=number)


def member(
    name: str, node: str = "n", *, dead: str | None = None, cost: float = 1.0, number: int = 1
) -> Seat:
    return Seat(name, Phase.MEMBER, NOW_S - 100, node, dead=dead, cost=cost, number=number)


@pytest.mark.parametrize(
    ("seats", "target", "draining", "steps"),
    [
        pytest.param([], 2, {}, [Ask(2)], id="from nothing"),
        pytest.param([], 0, {}, [], id="nothing wanted"),
        pytest.param([member("a"), asked("b")], 2, {}, [], id="what waits is left to wait"),
        pytest.param([member("a"), asked("b")], 4, {}, [Ask(2)], id="more is wanted"),
        pytest.param([placed("a")], 1, {}, [Start("a")], id="a place is used"),
        pytest.param([Seat("a", Phase.UP, NOW_S, "n")], 1, {}, [Settle("a")], id="who is up joins"),
        pytest.param([placed("a")], 0, {}, [Withdraw("a")], id="a place comes too late"),
        pytest.param(
            [member("a"), asked("b", 1), asked("c", 2)],
            2,
            {},
            [Withdraw("c")],
            id="the newest ask goes first",
        ),
        pytest.param(
            [member("a"), starting("b"), asked("c")], 1, {}, [Withdraw("c"), Withdraw("b")], id="members last"
        ),
        pytest.param(
            [member("a", number=1), member("b", number=2)],
            1,
            {},
            [Leave("b", Reason.RELEASED)],
            id="the last to join leaves first",
        ),
        pytest.param(
            [member("a", cost=3, number=1), member("b", number=2)],
            1,
            {},
            [Leave("a", Reason.RELEASED)],
            id="the costliest leaves first",
        ),
        pytest.param(
            [member("a", dead="gone")], 1, {}, [Bury("a", "gone"), Ask(1)], id="the dead is replaced"
        ),
        pytest.param([member("a", dead="gone")], 0, {}, [Bury("a", "gone")], id="the dead is not wanted"),
        pytest.param(
            [starting("a", for_s=61)],
            1,
            {},
            [Bury("a", "it did not come up within 60 s"), Ask(1)],
            id="a start takes too long",
        ),
        pytest.param([asked("a")], 1, {}, [], id="a placement group may wait for ever"),
        pytest.param(
            [member("a", "x"), member("b", "y")],
            2,
            {"x": 12.0},
            [Ask(1), Leave("a", Reason.DRAINED, 12.0)],
            id="a successor is asked for before the drained one leaves",
        ),
        pytest.param(
            [member("a", "x"), member("b", "x")],
            2,
            {"x": INF},
            [Ask(2), Leave("a", Reason.DRAINED, INF), Leave("b", Reason.DRAINED, INF)],
            id="all on a node leave together",
        ),
        pytest.param(
            [member("a", "x")], 0, {"x": -3.0}, [Leave("a", Reason.DRAINED, 0.0)], id="past its deadline"
        ),
        pytest.param(
            [placed("a", "x"), starting("b", "x")],
            2,
            {"x": 9.0},
            [Withdraw("a"), Withdraw("b"), Ask(2)],
            id="nothing starts on a node that drains",
        ),
        pytest.param([member("a", "y")], 1, {"x": 5.0}, [], id="another node drains"),
        pytest.param(
            [member("a", "x", dead="gone")],
            1,
            {"x": 5.0},
            [Bury("a", "gone"), Ask(1)],
            id="dead and draining",
        ),
        pytest.param(
            [member("a", "x", number=1), member("b", "y", number=2), member("c", "z", number=3)],
            2,
            {"x": 5.0},
            [Leave("a", Reason.DRAINED, 5.0)],
            id="a drained member is the one too many",
        ),
    ],
)
def test_steps(seats: list[Seat], target: int, draining: dict[str, float], steps: list[Step]) -> None:
    view = View(seats, target, NOW_S, LIMITS, draining=draining)
    assert decide(view) == steps


def test_unwanted_seats_go_first() -> None:
    seats = [member("a", number=1), member("b", number=2), asked("c")]
    view = View(seats, 1, NOW_S, LIMITS, unwanted=frozenset({"a"}))
    assert decide(view) == [Withdraw("c"), Leave("a", Reason.RELEASED)]


def up(name: str, node: str = "n") -> Seat:
    return Seat(name, Phase.UP, NOW_S, node)


LEAVES = Leave("a", Reason.DRAINED, 50.0)


@pytest.mark.parametrize(
    ("seats", "min_size", "lead_s", "steps"),
    [
        pytest.param([member("a", "x")], 0, 30.0, [Ask(1), LEAVES], id="nobody needs it"),
        pytest.param([member("a", "x")], 1, 30.0, [Ask(1)], id="it stays, and a successor is asked for"),
        pytest.param([member("a", "x"), asked("b")], 1, 30.0, [], id="it stays while the successor waits"),
        pytest.param([member("a", "x"), starting("b")], 1, 30.0, [], id="and while that starts"),
        pytest.param([member("a", "x"), up("b")], 1, 30.0, [LEAVES, Settle("b")], id="then it hands over"),
        pytest.param([member("a", "x"), asked("b")], 1, 50.0, [LEAVES], id="its time is over"),
        pytest.param([member("a", "x"), member("b")], 1, 30.0, [LEAVES], id="there are enough without it"),
        pytest.param(
            [member("a", "x"), member("b", "y")], 1, 30.0, [Ask(1), LEAVES], id="who has more time stays"
        ),
    ],
)
def test_who_is_needed_stays_while_there_is_time(
    seats: list[Seat], min_size: int, lead_s: float, steps: list[Step]
) -> None:
    draining = {"x": 50.0, "y": 90.0}
    target = max(1, min_size)
    view = View(seats, target, NOW_S, LIMITS, min_size=min_size, lead_s=lead_s, draining=draining)
    assert decide(view) == steps


@pytest.mark.parametrize(
    ("healthy_s", "asked_s", "steps"),
    [
        (None, None, []),
        (NOW_S - 29, None, []),
        (NOW_S - 30, None, [Check("a")]),
        (NOW_S - 45, NOW_S - 15, []),
        (
            NOW_S - 51,
            NOW_S - 21,
            [Bury("a", "it did not answer its health check within 20 s"), Ask(1)],
        ),
    ],
)
def test_health_checks(healthy_s: float | None, asked_s: float | None, steps: list[Step]) -> None:
    seat = replace(member("a"), healthy_s=healthy_s, asked_health_s=asked_s)
    assert decide(View([seat], 1, NOW_S, LIMITS)) == steps


NODES = ["", "x", "y"]
SEATS = st.lists(
    st.builds(
        Seat,
        id=st.uuids().map(str),
        phase=st.sampled_from(Phase),
        since_s=st.floats(0, NOW_S),
        node_id=st.sampled_from(NODES),
        dead=st.none() | st.just("gone"),
        cost=st.floats(0.1, 9),
        number=st.integers(0, 99),
    ),
    max_size=12,
    unique_by=lambda one: one.id,
)


@given(SEATS, st.integers(0, 8), st.dictionaries(st.sampled_from(NODES[1:]), st.floats(-5, 60)))
def test_after_the_steps_there_are_as_many_as_wanted(
    seats: list[Seat], target: int, draining: dict[str, float]
) -> None:
    steps = decide(View(seats, target, NOW_S, LIMITS, draining=draining))
    gone = [one.seat for one in steps if isinstance(one, Bury | Withdraw | Leave)]
    asked_for = sum(one.count for one in steps if isinstance(one, Ask))
    assert len(set(gone)) == len(gone)
    assert len(seats) - len(gone) + asked_for == target
    assert not (asked_for and any(isinstance(one, Leave) and one.reason is Reason.RELEASED for one in steps))
    started = {one.seat for one in steps if isinstance(one, Start)}
    assert all(seat.node_id not in draining for seat in seats if seat.id in started)
