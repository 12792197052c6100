"""`max_draining`: how many drain at a time, for which reasons, at which hours, and what never waits."""

from __future__ import annotations

from dataclasses import replace

import pytest

from heliostat.model.drain_limit import DrainLimit
from heliostat.model.instance import BackendState, NodeStatus
from heliostat.model.plan import Why
from heliostat.model.snapshot import OperatorSettings
from heliostat.planner.limits import DRAIN_COUNTS_S
from tests.unit.planner.scenes import apply, newer
from tests.unit.planner.world import World, drained, kind, policy, released

HOUR_S = 3600.0
OFF = frozenset({"drift"})


def idle_world(count: int, *limits: DrainLimit, busy: int = 0) -> World:
    world = World(policy=policy(kind(max_workers=500), max_workers=500, max_draining=limits))
    for _ in range(count):
        world.running(idle_s=900)
    for _ in range(busy):
        world.running(used={"CPU": 1})
    return world


class TestHowMany:
    @pytest.mark.parametrize(
        ("limit", "idle", "busy", "most"),
        [
            (DrainLimit(3), 10, 0, 3),
            (DrainLimit(0), 10, 0, 0),
            (DrainLimit(percent=10), 20, 0, 2),
            (DrainLimit(percent=10), 21, 0, 3),
            (DrainLimit(percent=7), 100, 0, 7),
            (DrainLimit(percent=1), 10, 0, 1),
            (DrainLimit(percent=0), 10, 0, 0),
            (DrainLimit(percent=100), 10, 0, 10),
            # Nodes that work are up as well.
            (DrainLimit(percent=10), 10, 40, 5),
        ],
    )
    def test_a_number_or_a_share_of_what_is_up_rounded_up(
        self, limit: DrainLimit, idle: int, busy: int, most: int
    ) -> None:
        assert len(drained(idle_world(idle, limit, busy=busy).round())) == most

    def test_without_a_limit_all_go(self) -> None:
        assert len(drained(idle_world(50).round())) == 50

    def test_the_tightest_of_several_counts(self) -> None:
        limits = (DrainLimit(5), DrainLimit(percent=10), DrainLimit(4))
        assert len(drained(idle_world(30, *limits).round())) == 3

    def test_what_drains_already_counts_and_is_up(self) -> None:
        world = idle_world(10, DrainLimit(percent=30))
        for one in list(world.intents)[:2]:
            world.change_node(one, status=NodeStatus.DRAINING)
        assert len(drained(world.round())) == 1

    def test_what_has_drained_counts_until_it_has_gone(self) -> None:
        world = idle_world(10, DrainLimit(2))
        made = world.round()
        gone = list(drained(made))
        world.obey(made)
        made = world.round()
        assert set(released(made)) == set(gone)
        assert drained(made) == {}
        for one in gone:
            world.give_up(one)
            world.change_row(one, state=BackendState.STOPPING)
        assert drained(world.round()) == {}
        del world.rows[gone[0]], world.intents[gone[0]]
        assert len(drained(world.round())) == 1

    def test_what_ray_keeps_leaves_its_turn_to_others(self) -> None:
        world = idle_world(3, DrainLimit(1))
        (first,) = drained(world.round())
        world.refused = frozenset({first})
        (second,) = drained(world.round())
        assert second != first
        world.refused = frozenset(world.intents)
        # With none left that may agree it is asked again.
        assert set(drained(world.round())) == {first}

    def test_a_backend_that_never_ends_it_blocks_nobody_for_long(self) -> None:
        world = idle_world(4, DrainLimit(1))
        made = world.round()
        (stuck,) = drained(made)
        world.obey(made)
        world.round()
        world.give_up(stuck)
        assert drained(world.round(DRAIN_COUNTS_S - 1)) == {}
        assert len(drained(world.round())) == 1


class TestForWhichReasons:
    def test_others_are_not_held_back(self) -> None:
        world = idle_world(3, DrainLimit(0, reasons=frozenset({"drift"})))
        assert set(drained(world.round()).values()) == {Why.IDLE}
        apply(world, replace(world.policy, node_types=(newer(kind(max_workers=500)),)))
        assert drained(world.round()) == {}

    @pytest.mark.parametrize(("why", "counts"), [(Why.IDLE, False), (Why.DRIFT, True), (None, True)])
    def test_what_drains_for_another_reason_does_not_count_what_nobody_knows_does(
        self, why: Why | None, counts: bool
    ) -> None:
        world = idle_world(4, DrainLimit(1, reasons=frozenset({"drift"})))
        first = next(iter(world.intents))
        world.change_node(first, status=NodeStatus.DRAINING)
        world.drains = {first: why} if why else {}
        apply(world, replace(world.policy, node_types=(newer(kind(max_workers=500)),)))
        assert len(drained(world.round())) == (0 if counts else 1)

    def test_over_max_is_a_reason_of_its_own(self) -> None:
        world = idle_world(0, DrainLimit(1, reasons=frozenset({"over_max"})))
        for _ in range(4):
            world.running(idle_s=5)
        world.policy = replace(world.policy, max_workers=0)
        assert list(drained(world.round()).values()) == [Why.OVER_MAX]


class TestAtWhichHours:
    @pytest.mark.parametrize(
        ("hours", "at_h", "held"),
        [
            ((8, 18), 8.0, True),
            ((8, 18), 17.99, True),
            ((8, 18), 18.0, False),
            ((8, 18), 7.99, False),
            ((22, 6), 23.0, True),
            ((22, 6), 5.99, True),
            ((22, 6), 6.0, False),
            ((0, 24), 12.0, True),
        ],
    )
    @pytest.mark.parametrize("offset_h", [0.0, 5.5, -8.0])
    def test_it_counts_at_these_hours_of_the_heads_host(
        self, hours: tuple[int, int], at_h: float, held: bool, offset_h: float
    ) -> None:
        first, last = hours
        world = idle_world(3, DrainLimit(0, hours=(first * 60, last * 60)))
        world.utc_offset_s = offset_h * HOUR_S
        day_s = 20_000 * 24 * HOUR_S
        world.history = replace(world.history, rounds_at_s=None)
        for node in list(world.nodes.values()):
            world.nodes[node.node_id] = replace(node, idle_s=900.0)
        world.now_s = day_s + (at_h - offset_h) * HOUR_S - 1
        world.round()
        assert bool(drained(world.round(0))) is not held

    def test_it_says_until_when(self) -> None:
        world = idle_world(1, DrainLimit(0, reasons=frozenset({"idle", "drift"}), hours=(0, 24 * 60)))
        (kept,) = world.round().kept.values()
        assert kept.text.endswith("; none may drain now (max_draining, 0, idle and drift, 00:00-24:00)")


class TestWhatItNeverHoldsBack:
    def test_what_people_ask_for(self) -> None:
        world = idle_world(3, DrainLimit(0))
        one = next(iter(world.intents))
        world.operator = OperatorSettings(removals={one: None})
        # Ray is asked in every third report.
        plans = [drained(world.round()) for _ in range(3)]
        assert [one for one in plans if one] == [{one: Why.REMOVED_BY_HAND}]

    def test_a_lease_that_ends(self) -> None:
        world = idle_world(3, DrainLimit(0))
        one = next(iter(world.intents))
        world.change_row(one, expires_at_s=world.now_s + 90)
        assert drained(world.round()) == {one: Why.LEASE_ENDS}

    def test_nor_do_these_count(self) -> None:
        world = idle_world(4, DrainLimit(1))
        asked, ends, *_ = world.intents
        for one in (asked, ends):
            world.change_node(one, status=NodeStatus.DRAINING)
        world.operator = OperatorSettings(removals={asked: None})
        world.change_row(ends, expires_at_s=world.now_s + 90)
        assert len(drained(world.round())) == 1
        world.drains = {asked: Why.REMOVED_BY_HAND, ends: Why.LEASE_ENDS}
        world.operator = OperatorSettings()
        world.change_row(ends, expires_at_s=None)
        assert len(drained(world.round())) == 1


@pytest.mark.parametrize(
    ("limit", "text"),
    [
        (DrainLimit(20), "20"),
        (DrainLimit(percent=10), "10%"),
        (DrainLimit(2, reasons=frozenset({"over_max", "idle"})), "2, idle and over_max"),
        (DrainLimit(percent=5, hours=(22 * 60 + 30, 6 * 60)), "5%, 22:30-06:00"),
    ],
)
def test_a_limit_in_words(limit: DrainLimit, text: str) -> None:
    assert str(limit) == text
