"""What holds in every world, judged by a placer that has nothing of the planner's own."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from heliostat.model.demand import Bundle, Demand, Gang
from heliostat.model.instance import BackendState
from heliostat.model.node_type import NodeType
from heliostat.model.plan import Launch
from heliostat.model.resources import NOTHING
from heliostat.model.snapshot import OperatorSettings
from heliostat.planner.problem import Item, Problem, Source
from tests.unit.planner.optimum import cheapest
from tests.unit.planner.placer import all_fit
from tests.unit.planner.world import World, drained, kind, launched, policy, released
from tests.unit.planner.worlds import (
    bins_after,
    bundles_of,
    claimed,
    demands,
    gangs,
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


# More demand, more types, and what comes already.

PRICED = (
    kind("small", 2, price_usd_per_h=1.0),
    kind("middle", 4, price_usd_per_h=1.8),
    kind("large", 16, price_usd_per_h=5.0),
    kind("gpu", 8, 2, price_usd_per_h=6.0),
    kind("far", 8, labels={"zone": "b"}, price_usd_per_h=2.5),
)
some_types = st.lists(st.sampled_from(PRICED), min_size=1, max_size=4, unique_by=lambda one: one.name)
few_demands = st.lists(demands.map(lambda one: replace(one, count=min(one.count, 4))), min_size=1, max_size=3)


@QUICK
@given(worlds(asks_for_gangs=False), demands)
def test_more_demand_takes_no_node_away(world: World, more: Demand) -> None:
    """Which of equal nodes goes may differ, but no more of them go."""
    other = copy_of(world)
    other.demands = (*other.demands, more)
    for _ in range(4):
        fewer, with_more = drained(world.round()), drained(other.round())
        assert len(with_more) <= len(fewer)


@QUICK
@given(some_types, few_demands, demands)
def test_what_it_costs_at_least_grows_with_demand_and_so_does_the_bill(
    types: list[NodeType], some: list[Demand], more: Demand
) -> None:
    """The least that a cover costs, by brute force, bounds the bill from below: of all, and of a part."""
    least, bill = bounds(types, some)
    least_of_more, bill_of_more = bounds(types, [*some, more])
    assert least <= least_of_more + 1e-9
    assert least - 1e-9 <= bill
    assert least_of_more - 1e-9 <= bill_of_more
    assert least - 1e-9 <= bill_of_more


@QUICK
@given(some_types, st.lists(demands, min_size=1, max_size=4), st.lists(gangs, max_size=1), st.booleans())
def test_a_tight_packing_is_asked_for_once(
    types: list[NodeType], some: list[Demand], groups: list[Gang], priced: bool
) -> None:
    """Whatever state its nodes come up in, one after another: nothing is added and nothing is given back."""
    kinds = [replace(one, price_usd_per_h=one.price_usd_per_h * priced, max_workers=50) for one in types]
    world = World(policy=policy(*kinds, max_workers=200), demands=tuple(some), gangs=tuple(groups))
    world.obey(world.round())
    for index in range(8):
        made = world.round()
        assert (launched(made), released(made), drained(made)) == ({}, {}, {})
        for one in list(world.rows)[: index + 1]:
            starts = world.rows[one].state is BackendState.QUEUED
            world.change_row(one, state=BackendState.STARTING if starts else BackendState.RUNNING)
            if not starts and f"n-{one}" not in world.nodes and index > 4:
                world.join(one, NOTHING)


@QUICK
@given(some_types, few_demands, st.randoms(use_true_random=False))
def test_the_order_of_node_types_in_the_file_is_no_matter(
    types: list[NodeType], some: list[Demand], order: Random
) -> None:
    """Their prices and sizes differ, so there are no ties to be broken by it."""
    mixed = order.sample(types, len(types))
    bills = [bounds(each, some)[1] for each in (types, mixed)]
    assert bills[0] == pytest.approx(bills[1])
    counts = [launched(World(policy=policy(*each), demands=tuple(some)).round()) for each in (types, mixed)]
    assert counts[0] == counts[1]


def bounds(types: list[NodeType], some: list[Demand]) -> tuple[float, float]:
    """Return the least that any cover of what can be served costs, in $/h, and the bill of the plan."""
    kinds = [replace(one, max_workers=100) for one in types]
    made = World(policy=policy(*kinds, max_workers=100), demands=tuple(some)).round()
    never = {one.wanted.bundle for one in made.infeasible if isinstance(one.wanted, Demand)}
    counts: Counter[Bundle] = Counter()
    for one in some:
        if one.bundle not in never:
            counts[one.bundle] += one.count
    prices = {one.name: one.price_usd_per_h for one in types}
    bill = sum(prices[name] * count for name, count in launched(made).items())
    return (cheapest(plain(types, counts)) or 0.0) if counts else 0.0, bill


def plain(types: list[NodeType], counts: Counter[Bundle]) -> Problem:
    """Return the cover as a problem of prices alone: every type that fits will do."""
    names = sorted({name for bundle in counts for name, _ in bundle.resources})
    items = tuple(Item(tuple(one.resources.get(name) for name in names), n) for one, n in counts.items())
    sources = tuple(
        Source(
            capacity=tuple(one.resources.get(name) for name in names),
            cost=one.price_usd_per_h,
            price_micro=0,
            most=100,
            hold=False,
            levels=tuple(0 if bundle.allows(one.labels) else None for bundle in counts),
            burdens=(0,) * len(items),
        )
        for one in types
    )
    return Problem(items, sources, total=100)


def copy_of(world: World) -> World:
    other = replace(
        world,
        intents=dict(world.intents),
        rows=dict(world.rows),
        nodes=dict(world.nodes),
        work={name: list(work) for name, work in world.work.items()},
    )
    other.history = world.history
    return other
