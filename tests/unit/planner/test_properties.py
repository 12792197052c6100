"""What holds in every world, judged by a placer that has nothing of the planner's own."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from random import Random

import pytest

from heliostat.model.demand import Bundle, Demand
from heliostat.model.drain_limit import DrainLimit
from heliostat.model.history import Breaker
from heliostat.model.instance import BackendState, InstanceState
from heliostat.model.node_type import NodeType
from heliostat.model.plan import Launch, Why
from heliostat.model.resources import NOTHING
from heliostat.model.snapshot import join
from heliostat.planner import plan
from heliostat.planner.problem import Item, Problem, Source
from tests.examples import each_seed
from tests.unit.planner.optimum import cheapest
from tests.unit.planner.world import World, drained, kind, launched, launches, policy, released
from tests.unit.planner.worlds import (
    anything,
    claims_fit,
    constraint_fits,
    demand_of,
    gang_of,
    over_a_limit,
    refused_by,
    shuffled,
    some,
    with_constraint,
    with_ends,
    working,
    world_of,
)

SETTLED_AFTER = 12
"""Rounds in which throttles open one after another and everything launched has joined."""


@each_seed(400)
def test_the_same_plan_in_whatever_order_the_world_is_listed(seed: int) -> None:
    world = anything(Random(seed))
    other = shuffled(world, Random(seed))
    for number in range(3):
        made = world.round()
        assert made == other.round()
        assert world.history == other.history
        for each in (world, other):
            each.obey(made)
            each.step(Random(number))


@each_seed(500)
def test_never_over_a_maximum_and_never_without_a_reason(seed: int) -> None:
    world = anything(Random(seed))
    for _ in range(6):
        made = world.round()
        assert over_a_limit(world, made) == []
        assert all(action.reason.text for action in made.actions)
        assert all(one.text for one in made.deferred)
        assert all(one.text for one in made.infeasible)
        assert all(reason.text for reason in made.kept.values())
        world.obey(made)
        world.tick(places=True)


@each_seed(2000)
def test_what_is_claimed_to_be_served_fits(seed: int) -> None:
    world = anything(Random(seed))
    made = world.round()
    assert claims_fit(world, made)
    assert constraint_fits(world, made)


@each_seed(600)
def test_a_gang_gets_all_its_nodes_or_none(seed: int) -> None:
    world = world_of(Random(seed), floors=False)
    world.demands = ()
    made = world.round()
    for action in made.actions:
        if isinstance(action, Launch):
            assert action.reason.data.get("gang") is not None
    refused = refused_by(made)
    if all(one in refused for one in world.gangs):
        assert launched(made) == {}
    assert claims_fit(world, made)


@each_seed(150)
def test_a_node_with_work_is_never_released_nor_drained(seed: int) -> None:
    chance = Random(seed)
    world = with_ends(world_of(chance), chance, leases=False)
    for _ in range(12):
        busy = working(world)
        made = world.round(9)
        assert not busy & released(made).keys()
        assert not busy & drained(made).keys()
        world.obey(made)
        world.tick(places=True)


@each_seed(200)
def test_a_silent_backend_loses_nothing(seed: int) -> None:
    world = anything(Random(seed))
    world.round()
    world.silent = dict.fromkeys((one.backend for one in world.policy.node_types), "timed out")
    world.rows = {}
    for _ in range(4):
        made = world.round(60)
        assert (released(made), launched(made)) == ({}, {})


@each_seed(300)
def test_no_more_drain_at_a_time_than_every_limit_allows(seed: int) -> None:
    """Counted here from what was planned: who was told to drain and could have stayed, and is not gone."""
    chance = Random(seed)
    world = with_idle_nodes(anything(chance), chance)
    limits = [some_limit(chance) for _ in range(chance.randint(1, 3))]
    world.policy = replace(world.policy, max_draining=tuple(limits))
    going: dict[str, Why] = {}
    for _ in range(8):
        up = sum(one.state in UP for one in join(world.snapshot()))
        made = world.round()
        going = {one: why for one, why in going.items() if one in world.intents}
        going |= {one: why for one, why in drained(made).items() if why in VOLUNTARY}
        for limit in limits:
            counted = [one for one, why in going.items() if limit.concerns(VOLUNTARY[why])]
            new = [one for one in counted if one in drained(made)]
            # What has just left Ray is up in the planner's eyes until it has gone.
            assert not new or len(counted) <= limit.most(up + len(going))
        world.obey(made)
        world.tick(places=False)


VOLUNTARY = {Why.IDLE: "idle", Why.DRIFT: "drift", Why.OVER_MAX: "over_max"}
UP = {InstanceState.RUNNING, InstanceState.DRAINING}


def with_idle_nodes(world: World, chance: Random) -> World:
    names = [one.name for one in world.policy.node_types]
    for _ in range(chance.randint(0, 12)):
        world.running(chance.choice(names), idle_s=chance.choice([5, 900]))
    return world


def some_limit(chance: Random) -> DrainLimit:
    reasons = frozenset(chance.sample(sorted(VOLUNTARY.values()), chance.randint(0, 2)))
    if chance.random() < 0.5:
        return DrainLimit(chance.randint(0, 4), reasons=reasons)
    return DrainLimit(percent=chance.choice([0, 1, 20, 50]), reasons=reasons)


@each_seed(600)
def test_nothing_is_launched_through_an_open_breaker_and_one_node_or_gang_through_half_open_ones(
    seed: int,
) -> None:
    chance = Random(seed)
    world = anything(chance)
    backends = sorted({one.backend for one in world.policy.node_types})
    left_s = {backend: chance.choice([-20.0, -5.0, 3.0, 60.0]) for backend in backends}
    world.history = replace(
        world.history,
        breakers={
            name: Breaker(3, frozenset({"x"}), "down", 1, world.now_s - 50, world.now_s + 1 + left)
            for name, left in left_s.items()
        },
    )
    made = world.round()
    for backend, left in left_s.items():
        mine = [one for one in launches(made) if _backend(world, one.node_type) == backend]
        if left > 0:
            assert mine == []
        else:
            gangs = {one.reason.data.get("gang_id") for one in mine}
            assert sum(one.count for one in mine) <= 1 or (len(gangs) == 1 and None not in gangs)
    if all(left > 0 for left in left_s.values()):
        # Where nothing can be launched elsewhere, all that is needed later is still there then.
        ends = set(released(made)) | set(drained(made))
        assert ends <= ends_without_breakers(world)
        stays = ends_without_breakers(world) - ends
        assert {made.kept[one].why if one in made.kept else None for one in stays} <= {Why.DRIFT}


def ends_without_breakers(world: World) -> set[str]:
    """Return what ends when no breaker is open."""
    other = copy_of(world)
    other.history = replace(other.history, breakers={})
    made = plan(other.snapshot(), other.history, other.policy)
    return set(released(made)) | set(drained(made))


def _backend(world: World, name: str) -> str:
    found = world.policy.node_type(name)
    assert found is not None
    return found.backend


@each_seed(100)
def test_it_settles_and_launches_nothing_that_it_gives_back(seed: int) -> None:
    """Ray places nothing and nothing else happens: each round goes towards the target, none away from it."""
    chance = Random(seed)
    world = with_constraint(world_of(chance), chance)
    before = set(world.intents)
    for index in range(SETTLED_AFTER * 2):
        made = world.round()
        gone = {one for one in (*released(made), *drained(made)) if one not in before}
        assert not gone, "what was launched here goes again"
        if index >= SETTLED_AFTER:
            assert launched(made) == {}
        world.obey(made)
        world.tick(places=False)


@each_seed(150)
def test_ray_places_all_that_no_limit_holds_back_and_then_all_goes(seed: int) -> None:
    world = world_of(Random(seed), asks_for_gangs=False, floors=False)
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


def some_types(chance: Random) -> list[NodeType]:
    return chance.sample(PRICED, chance.randint(1, 4))


def some_demands(chance: Random, most: int) -> list[Demand]:
    return [demand_of(chance, most) for _ in range(chance.randint(1, 3))]


@each_seed(200)
def test_more_demand_takes_no_node_away(seed: int) -> None:
    """Which of equal nodes goes may differ, but no more of them go.

    Of what is above a maximum more may go: the new work may draw what kept one of them to another node.
    """
    chance = Random(seed)
    world = world_of(chance, asks_for_gangs=False)
    other = copy_of(world)
    other.demands = (*other.demands, demand_of(chance))
    for _ in range(4):
        fewer, with_more = drained(world.round()), drained(other.round())
        assert len(with_more) <= len(fewer) or Why.OVER_MAX in with_more.values()


@each_seed(300)
def test_what_it_costs_at_least_grows_with_demand_and_so_does_the_bill(seed: int) -> None:
    """The least that a cover costs, by brute force, bounds the bill from below: of all, and of a part."""
    chance = Random(seed)
    types, some_of_it, more = some_types(chance), some_demands(chance, 4), demand_of(chance)
    least, bill = bounds(types, some_of_it)
    least_of_more, bill_of_more = bounds(types, [*some_of_it, more])
    assert least <= least_of_more + 1e-9
    assert least - 1e-9 <= bill
    assert least_of_more - 1e-9 <= bill_of_more
    assert least - 1e-9 <= bill_of_more


@each_seed(200)
def test_a_tight_packing_is_asked_for_once(seed: int) -> None:
    """Whatever state its nodes come up in, one after another: nothing is added and nothing is given back."""
    chance = Random(seed)
    priced, demands = chance.random() < 0.5, tuple(some_demands(chance, 6))
    kinds = [
        replace(one, price_usd_per_h=one.price_usd_per_h * priced, max_workers=50)
        for one in some_types(chance)
    ]
    gangs = some(chance, 1, lambda: gang_of(chance))
    world = World(policy=policy(*kinds, max_workers=200), demands=demands, gangs=gangs)
    world.obey(world.round())
    for index in range(8):
        made = world.round()
        assert (launched(made), released(made), drained(made)) == ({}, {}, {})
        for one in list(world.rows)[: index + 1]:
            starts = world.rows[one].state is BackendState.QUEUED
            world.change_row(one, state=BackendState.STARTING if starts else BackendState.RUNNING)
            if not starts and f"n-{one}" not in world.nodes and index > 4:
                world.join(one, NOTHING)


@each_seed(500)
def test_the_order_of_node_types_in_the_file_is_no_matter(seed: int) -> None:
    """Their prices and sizes differ, so there are no ties to be broken by it."""
    chance = Random(seed)
    types, demands = some_types(chance), some_demands(chance, 4)
    mixed = chance.sample(types, len(types))
    bills = [bounds(each, demands)[1] for each in (types, mixed)]
    assert bills[0] == pytest.approx(bills[1])
    counts = [
        launched(World(policy=policy(*each), demands=tuple(demands)).round()) for each in (types, mixed)
    ]
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
