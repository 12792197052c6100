"""What holds in every world, judged by a placer that has nothing of the planner's own."""

from __future__ import annotations

from collections import Counter

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from heliostat.model.demand import Demand
from heliostat.model.plan import Launch
from heliostat.model.snapshot import OperatorSettings
from tests.unit.planner.placer import all_fit
from tests.unit.planner.world import World, drained, launched, released
from tests.unit.planner.worlds import (
    bins_after,
    bundles_of,
    claimed,
    demands,
    over_a_limit,
    refused_by,
    shuffled,
    working,
    worlds,
)

QUICK = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True
)
FEW = settings(QUICK, max_examples=60)

SETTLED_AFTER = 12
"""Rounds in which throttles open one after another and everything launched has joined."""


@QUICK
@given(worlds(), st.randoms(use_true_random=False), st.lists(demands, max_size=2))
def test_the_same_plan_in_whatever_order_the_world_is_listed(
    world: World, order: object, constraint: list[object]
) -> None:
    world.constraint = tuple(constraint)  # type: ignore[arg-type]
    other = shuffled(world, order)
    for _ in range(3):
        assert world.round() == other.round()
        assert world.history == other.history


@QUICK
@given(worlds(), st.lists(demands, max_size=2))
def test_never_over_a_maximum_and_never_without_a_reason(world: World, constraint: list[object]) -> None:
    world.constraint = tuple(constraint)  # type: ignore[arg-type]
    for _ in range(6):
        made = world.round()
        assert over_a_limit(world, made) == []
        assert all(action.reason.text for action in made.actions)
        assert all(one.text for one in made.deferred)
        assert all(one.text for one in made.infeasible)
        assert all(reason.text for reason in made.kept.values())
        world.obey(made)
        world.tick(places=True)


@QUICK
@given(worlds())
def test_what_is_claimed_to_be_served_fits(world: World) -> None:
    made = world.round()
    assert all_fit(bins_after(world, made), claimed(world, made))


@QUICK
@given(worlds(floors=False))
def test_a_gang_gets_all_its_nodes_or_none(world: World) -> None:
    world.demands = ()
    made = world.round()
    for action in made.actions:
        if isinstance(action, Launch):
            assert action.reason.data.get("gang") is not None
    refused = set(refused_by(made))
    if set(world.gangs) <= refused:
        assert launched(made) == {}
    for group in world.gangs:
        if group not in refused:
            assert all_fit(bins_after(world, made), bundles_of(group))


@QUICK
@given(worlds(), st.booleans())
def test_a_node_with_work_is_never_released_nor_drained(world: World, removed: bool) -> None:
    if removed:
        world.operator = OperatorSettings(removals=dict.fromkeys(world.intents))
    for _ in range(12):
        busy = working(world)
        made = world.round(9)
        assert not busy & released(made).keys()
        assert not busy & drained(made).keys()
        world.obey(made)
        world.tick(places=True)


@QUICK
@given(worlds(), st.randoms(use_true_random=False))
def test_a_silent_backend_loses_nothing(world: World, order: object) -> None:
    world.round()
    world.silent = {"fake": "timed out"}
    world.rows = {}
    for _ in range(4):
        made = world.round(60)
        assert (released(made), launched(made)) == ({}, {})


@QUICK
@given(worlds())
def test_it_settles_and_launches_nothing_that_it_gives_back(world: World) -> None:
    """Ray places nothing and nothing else happens: each round goes towards the target, none away from it."""
    new: Counter[str] = Counter()
    before = set(world.intents)
    for index in range(SETTLED_AFTER * 2):
        made = world.round()
        new.update(launched(made))
        gone = {
            world.intents[one].node_type for one in (*released(made), *drained(made)) if one not in before
        }
        assert not gone, "what was launched here goes again"
        if index >= SETTLED_AFTER:
            assert launched(made) == {}
        world.obey(made)
        world.tick(places=False)


@FEW
@given(worlds(asks_for_gangs=False, floors=False))
def test_ray_places_all_that_no_limit_holds_back_and_then_all_goes(world: World) -> None:
    asked = sum(one.count for one in world.demands)
    launches = 0
    for _ in range(30):
        made = world.round()
        launches += sum(launched(made).values())
        world.obey(made)
        world.tick(places=True)
    assert launches <= asked
    refused = {one.bundle for one in refused_by(world.round()) if isinstance(one, Demand)}
    assert {one.bundle for one in world.demands} <= refused
    world.demands = ()
    world.finish_work()
    for _ in range(20):
        world.obey(world.round(9))
        world.tick(places=True)
    assert world.intents == {}
