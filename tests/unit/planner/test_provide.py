"""Where Ray's own autoscaler decides: what it asks for comes as far as limits allow, and nothing else."""

from __future__ import annotations

from dataclasses import replace

import pytest

from heliostat.model.history import Backoff, History
from heliostat.model.instance import BackendState, DrainReason, NodeStatus, Offer
from heliostat.model.plan import Plan, Why
from heliostat.model.snapshot import OperatorSettings
from heliostat.planner import fold, plan
from heliostat.planner.limits import LEASE_NEAR_S, LEASE_NOTICE_S
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


def provided(**changed: object) -> World:
    types = (kind(), kind("gpu", gpus=1, max_workers=2, price_usd_per_h=2.0))
    return World(policy(*types, ray_decides=True, **changed))


def ask(world: World, **counts: int) -> Plan:
    """Let one round pass in which Ray's autoscaler asks for so many of each type."""
    world.now_s += 1
    snapshot = replace(world.snapshot(), asked=counts)
    world.history = fold(world.history, snapshot, world.policy)
    return plan(snapshot, world.history, world.policy)


def test_what_is_asked_for_comes_and_the_reason_says_who_asked() -> None:
    made = ask(provided(), cpu=3)
    assert launched(made) == {"cpu": 3}
    assert launches(made)[0].reason.why is Why.RAY_ASKS
    assert launches(made)[0].reason.text == "Ray's autoscaler asks for 3 of cpu"
    assert made.target == {"cpu": 3, "gpu": 0}


def test_work_that_waits_brings_nothing_and_neither_do_minimums() -> None:
    world = World(
        policy(kind(min_workers=2), ray_decides=True), demands=(demand(8),), constraint=(demand(8),)
    )
    assert not world.rounds(3).actions


@pytest.mark.parametrize(
    ("changed", "asked", "comes", "limiter", "words"),
    [
        ({}, {"gpu": 3}, {"gpu": 2}, "TYPE_MAX_WORKERS", "gpu has 2 of at most 2 (max_workers of the type)"),
        ({"max_workers": 4}, {"cpu": 5}, {"cpu": 4}, "MAX_WORKERS", "the cluster has 4 of at most 4 workers"),
        ({"max_cost_usd_per_h": 3.0}, {"gpu": 2}, {"gpu": 1}, "BUDGET", "gpu costs 2 $/h and 2 of at most 3"),
    ],
)
def test_of_an_ask_that_is_too_large_a_part_comes(
    changed: dict[str, object], asked: dict[str, int], comes: dict[str, int], limiter: str, words: str
) -> None:
    made = ask(provided(**changed), **asked)
    assert launched(made) == comes
    assert limiters(made) == [limiter]
    assert made.deferred[0].why is Why.RAY_ASKS
    assert words in made.deferred[0].text


def test_a_backend_with_room_for_four_is_asked_for_four_of_five() -> None:
    world = provided()
    world.offers = (Offer("cpu", 4, why="no room for more"),)
    made = ask(world, cpu=5)
    assert launched(made) == {"cpu": 4}
    assert [(one.wanted.count, one.text) for one in made.deferred] == [(1, "cpu: no room for more")]  # type: ignore[union-attr]


def test_what_is_on_its_way_counts_and_stays_though_nothing_here_needs_it() -> None:
    world = provided(max_workers=3)
    queued = world.coming()
    starting = world.coming(state=BackendState.STARTING)
    made = world.rounds(5)
    assert not made.actions
    assert launched(ask(world, cpu=3)) == {"cpu": 1}
    assert {queued, starting} <= world.intents.keys()


def test_a_type_that_never_came_up_is_tried_a_few_at_a_time() -> None:
    world = provided()
    world.history = History()
    made = ask(world, cpu=5)
    assert launched(made) == {"cpu": 3}
    assert "never came up yet" in made.deferred[0].text


def test_a_type_that_failed_waits_however_often_ray_asks() -> None:
    world = provided()
    backoff = Backoff(2, world.now_s + 60, "no such image", stepped_at_s=world.now_s)
    world.history = replace(world.history, backoff={"cpu": backoff})
    made = ask(world, cpu=1)
    assert not launched(made)
    assert limiters(made) == ["BACKOFF"]
    assert "no such image" in made.deferred[0].text


def test_an_idle_node_stays_until_ray_gives_it_back() -> None:
    world = provided()
    one = world.running(idle_s=10_000)
    kept = world.rounds(5).kept[one]
    assert kept.why is Why.RAY_DECIDES
    world.operator = OperatorSettings(removals={one: None})
    made = world.round()
    assert drained(made) == {one: Why.RAY_RELEASES}
    assert drains(made)[0].drain_reason is DrainReason.IDLE


def test_a_node_that_works_is_not_killed_when_it_is_given_back() -> None:
    world = provided()
    one = world.running(used={"CPU": 1})
    world.operator = OperatorSettings(removals={one: None})
    made = world.rounds(3)
    assert not made.actions
    assert "goes when it is idle" in made.kept[one].text


def test_a_node_that_ray_has_drained_is_released() -> None:
    world = provided()
    one = world.running(idle_s=100)
    world.round()
    world.change_node(one, status=NodeStatus.DEAD)
    assert released(world.round()) == {one: Why.DRAINED}


def test_what_is_not_up_goes_at_once_when_it_is_given_back() -> None:
    world = provided()
    one = world.coming()
    world.operator = OperatorSettings(removals={one: None})
    assert released(world.round()) == {one: Why.RAY_RELEASES}


def test_what_failed_is_released_and_not_replaced() -> None:
    world = provided()
    one = world.coming(state=BackendState.FAILED)
    made = world.round()
    assert released(made) == {one: Why.FAILED}
    assert not launched(made)


def test_work_is_told_of_its_leases_end_and_idle_nodes_go() -> None:
    world = provided()
    busy = world.running(used={"CPU": 1})
    idle = world.running(idle_s=1)
    for one in (busy, idle):
        world.change_row(one, expires_at_s=world.now_s + LEASE_NOTICE_S - 1)
    made = world.round()
    assert {one.instance_id: one.drain_reason for one in drains(made)} == {
        busy: DrainReason.PREEMPTION,
        idle: DrainReason.IDLE,
    }
    assert not launched(made)
    assert LEASE_NEAR_S >= LEASE_NOTICE_S


def test_without_ray_nothing_is_launched() -> None:
    world = provided()
    world.ray_answers = False
    assert not launched(ask(world, cpu=1))
