"""Leases: when a node takes no more work, when its work is told, and what becomes of it at the end."""

from __future__ import annotations

from dataclasses import replace

import pytest

from heliostat.model.drain_limit import DrainLimit
from heliostat.model.instance import BackendState, DrainReason, Instance, NodeStatus
from heliostat.model.plan import Release, Why
from heliostat.model.snapshot import OperatorSettings
from heliostat.planner.leases import lease_of
from heliostat.planner.limits import LEASE_GRACE_S, LEASE_MARGIN_S, LEASE_NEAR_S, LEASE_NOTICE_S
from tests.unit.planner.scenes import scene_of
from tests.unit.planner.world import (
    World,
    demand,
    drained,
    drains,
    kind,
    launched,
    launches,
    limiters,
    policy,
    released,
)

BUSY = {"CPU": 3}


def leased(world: World, *, left_s: float, used: dict[str, float] | None = None, idle_s: float = 1) -> str:
    """Put a node that joined 500 s ago, and whose lease has `left_s` to go in the next round."""
    one = world.running(used=used, idle_s=idle_s)
    world.change_row(one, expires_at_s=world.now_s + 1 + left_s)
    return one


def world_instance(world: World, one: str) -> Instance:
    return next(i for i in scene_of(world, round_first=False).instances if i.instance_id == one)


def started_in(world: World, *seconds: float) -> None:
    world.history = replace(world.history, start_s={"cpu": seconds})


class TestNear:
    @pytest.mark.parametrize(
        ("starts_s", "left_s", "near"),
        [
            ((), LEASE_NEAR_S + 1, False),
            ((), LEASE_NEAR_S, True),
            ((40.0, 10.0), LEASE_NEAR_S + 1, False),
            ((10.0, 300.0, 20.0), 300 + LEASE_MARGIN_S + 1, False),
            ((10.0, 300.0, 20.0), 300 + LEASE_MARGIN_S, True),
            # A queue of hours: half of the lease is for work all the same.
            ((9000.0,), 510, False),
            ((9000.0,), 490, True),
        ],
    )
    def test_early_enough_for_the_slowest_start_but_not_more_than_half_the_lease(
        self, starts_s: tuple[float, ...], left_s: float, near: bool
    ) -> None:
        world = World(demands=(demand(1),))
        started_in(world, *starts_s)
        one = leased(world, left_s=left_s)
        made = world.round()
        assert launched(made) == ({"cpu": 1} if near else {})
        assert scene_of(world, round_first=False).leaving(world_instance(world, one)) is near

    @pytest.mark.parametrize(("age_s", "near"), [(29, False), (31, True)])
    def test_a_lease_shorter_than_that_is_half_work(self, age_s: float, near: bool) -> None:
        world = World()
        one = leased(world, left_s=60 - age_s)
        world.history = replace(world.history, joined_at={one: world.now_s + 1 - age_s})
        assert scene_of(world).leaving(world_instance(world, one)) is near

    def test_what_is_not_up_yet_is_room_however_short_its_lease_will_be(self) -> None:
        world = World(demands=(demand(4),))
        one = world.coming(state=BackendState.STARTING)
        world.change_row(one, expires_at_s=world.now_s + 30)
        assert launched(world.round()) == {}
        world.change_row(one, expires_at_s=world.now_s)
        assert launched(world.round()) == {"cpu": 1}

    def test_without_an_end_there_is_no_lease(self) -> None:
        world = World()
        assert lease_of(world_instance(world, world.running()), world.history) is None

    def test_floors_and_constraints_replace_it_ahead(self) -> None:
        world = World(policy=policy(kind(min_workers=1)))
        leased(world, left_s=100, used={"CPU": 1})
        assert launched(world.round()) == {"cpu": 1}
        world = World(constraint=(demand(4),))
        leased(world, left_s=100, used={"CPU": 0.1})
        assert launched(world.round()) == {"cpu": 1}


class TestNotice:
    def test_work_is_told_once_with_a_deadline_a_little_before_the_end(self) -> None:
        world = World(policy=policy(max_workers=1))
        one = leased(world, left_s=LEASE_NOTICE_S + 1, used=BUSY)
        assert drains(world.round()) == []
        (drain,) = drains(world.round())
        assert (drain.instance_id, drain.node_id, drain.drain_reason) == (
            one,
            f"n-{one}",
            DrainReason.PREEMPTION,
        )
        assert drain.deadline_s == world.now_s + LEASE_NOTICE_S - LEASE_GRACE_S
        assert (drain.reason.why, drain.reason.text) == (
            Why.LEASE_ENDS,
            "w1 works and its lease ends in 120 s",
        )
        world.change_node(one, status=NodeStatus.DRAINING)
        assert world.round().actions == ()

    def test_a_short_lease_is_told_at_half_time(self) -> None:
        world = World(policy=policy(max_workers=1))
        one = leased(world, left_s=31, used=BUSY)
        world.history = replace(world.history, joined_at={one: world.now_s - 28})
        assert drains(world.round()) == []
        (drain,) = drains(world.round())
        assert drain.deadline_s == world.now_s + 30 - LEASE_GRACE_S
        world.change_row(one, expires_at_s=world.now_s + 5)
        world.history = replace(world.history, joined_at={one: world.now_s - 3})
        (drain,) = drains(world.round())
        assert drain.deadline_s == world.now_s + 4 - 2

    def test_many_that_drain_hold_back_no_notice(self) -> None:
        world = World(policy=policy(max_workers=2, max_draining=(DrainLimit(1),)))
        other = world.running(used=BUSY)
        world.change_node(other, status=NodeStatus.DRAINING)
        one = leased(world, left_s=100, used=BUSY)
        assert drained(world.round()) == {one: Why.LEASE_ENDS}

    def test_a_protected_node_and_a_removed_one_are_told_too(self) -> None:
        world = World(policy=policy(max_workers=2))
        one, two = (leased(world, left_s=100, used=BUSY) for _ in range(2))
        world.operator = OperatorSettings(protected=frozenset({one}), removals={two: None})
        assert {d.drain_reason for d in drains(world.round())} == {DrainReason.PREEMPTION}
        assert drained(world.round()) == {one: Why.LEASE_ENDS, two: Why.LEASE_ENDS}

    def test_a_persons_deadline_counts_if_it_is_earlier(self) -> None:
        world = World(policy=policy(max_workers=1))
        one = leased(world, left_s=100, used=BUSY)
        world.operator = OperatorSettings(removals={one: world.now_s + 20})
        (drain,) = drains(world.round())
        assert drain.deadline_s == world.now_s + 19

    def test_paused_tells_nothing(self) -> None:
        world = World(operator=OperatorSettings(paused=True))
        leased(world, left_s=100, used=BUSY)
        assert world.round().actions == ()


class TestDeadline:
    def world(self) -> tuple[World, str]:
        world = World(policy=policy(max_workers=1))
        one = leased(world, left_s=100, used=BUSY)
        world.change_node(one, status=NodeStatus.DRAINING)
        return world, one

    def test_what_was_told_is_released_then_and_not_before(self) -> None:
        world, one = self.world()
        assert released(world.round()) == {}
        assert released(world.round(100 - LEASE_GRACE_S - 1)) == {}
        made = world.round(1)
        assert released(made) == {one: Why.LEASE_ENDS}
        (release,) = (each for each in made.actions if isinstance(each, Release))
        assert release.reason.text == "the lease of w1 ends in 10 s, its deadline is over"

    def test_what_was_not_told_is_told_even_then(self) -> None:
        world, one = self.world()
        world.change_node(one, status=NodeStatus.RUNNING)
        made = world.round(95)
        assert (drained(made), released(made)) == ({one: Why.LEASE_ENDS}, {})
        assert drains(made)[0].deadline_s == world.now_s

    def test_a_protected_one_is_left_to_the_backend(self) -> None:
        world, one = self.world()
        world.operator = OperatorSettings(protected=frozenset({one}))
        assert released(world.round(99)) == {}

    def test_nothing_is_released_while_the_backend_is_silent(self) -> None:
        world, _ = self.world()
        world.silent = {"fake": "timed out"}
        assert released(world.round(99)) == {}

    @pytest.mark.parametrize("state", [BackendState.FAILED, BackendState.ENDED])
    def test_the_end_of_its_time_is_no_failure(self, state: BackendState) -> None:
        world, one = self.world()
        world.round(100)
        world.change_node(one, status=NodeStatus.DEAD)
        world.change_row(one, state=state, detail="TIMEOUT")
        assert released(world.round(1)) == {one: Why.LEASE_ENDS}
        assert (world.history.backoff, world.history.failures) == ({}, ())

    def test_a_failure_before_that_is_one(self) -> None:
        world, one = self.world()
        world.change_row(one, state=BackendState.FAILED, detail="node failure")
        world.change_node(one, status=NodeStatus.DEAD)
        assert released(world.round()) == {one: Why.FAILED}
        assert len(world.history.failures) == 1


class TestIdle:
    def test_goes_as_idle_nodes_do_when_others_are_told(self) -> None:
        world = World(policy=policy(kind(idle_timeout_s=900.0)))
        one = leased(world, left_s=LEASE_NOTICE_S - 1)
        (drain,) = drains(world.round())
        assert (drain.instance_id, drain.drain_reason, drain.deadline_s) == (one, DrainReason.IDLE, None)
        assert (drain.reason.why, drain.reason.text) == (
            Why.LEASE_ENDS,
            "w1 is idle and its lease ends in 119 s",
        )

    def test_one_report_is_not_enough_and_protection_holds(self) -> None:
        world = World()
        one = leased(world, left_s=100)
        world.history = replace(world.history, reports={})
        assert "one report only" in world.round().kept[one].text
        world.operator = OperatorSettings(protected=frozenset({one}))
        assert world.rounds(3).kept[one].why is Why.PROTECTED

    def test_a_floor_keeps_it_past_its_timeout_until_its_replacement_is_up(self) -> None:
        world = World(policy=policy(kind(min_workers=1)))
        started_in(world, 400.0)
        old = leased(world, left_s=400, idle_s=100)
        made = world.round()
        assert (launched(made), drained(made)) == ({"cpu": 1}, {})
        assert made.kept[old].text == "its lease ends soon; it stays until its replacement is up"
        world.obey(made)
        world.tick(places=False)
        assert drained(world.round()) == {}
        world.tick(places=False)
        world.tick(places=False)
        assert drained(world.round()) == {old: Why.IDLE}

    def test_before_its_notice_nothing_else_makes_it_go_early(self) -> None:
        world = World()
        started_in(world, 400.0)
        old = leased(world, left_s=400, idle_s=10)
        assert world.round().kept[old].why is Why.IDLE_TIMEOUT
        for _ in range(5):
            assert drained(world.round(9)) == {}
        assert drained(world.round(9)) == {old: Why.IDLE}


def test_at_the_maximum_there_is_no_replacement_without_a_surge() -> None:
    for surge, wanted in ((0, {}), (1, {"cpu": 1}), (5, {"cpu": 1})):
        world = World(policy=policy(kind(min_workers=1, max_workers=1), max_workers=1, max_surge=surge))
        leased(world, left_s=100, used={"CPU": 0.1})
        made = world.round()
        assert launched(made) == wanted
        assert bool(launches(made)) == (not limiters(made))


def test_the_backends_own_notice_is_kept_and_never_more_than_half_the_lease() -> None:
    world = World()
    one = leased(world, left_s=5000)
    for notice_s, expected_s in ((600.0, 600.0), (5.0, 5.0), (None, LEASE_NOTICE_S), (1e6, 2750.5)):
        world.change_row(one, notice_s=notice_s)
        lease = lease_of(world_instance(world, one), world.history)
        assert lease is not None
        assert lease.expires_at_s - lease.notice_at_s == pytest.approx(expected_s, abs=1)
