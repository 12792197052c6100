"""Worlds of every kind for the property tests, each drawn from a seed, and what is left of them when the
plan has had its way."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from itertools import product
from random import Random
from typing import TypeVar

from hypothesis import note
from hypothesis import strategies as st

from heliostat.model.demand import (
    Bundle,
    Demand,
    Gang,
    GangStrategy,
    LabelConstraint,
    LabelOperator,
)
from heliostat.model.instance import ALIVE, BackendState, Instance, InstanceState, NodeStatus, Offer
from heliostat.model.node_type import NodeType, Policy
from heliostat.model.plan import Plan, Why
from heliostat.model.snapshot import OperatorSettings, join
from tests.examples import seeds
from tests.unit.planner.placer import Bin, Block, all_fit, whole_devices
from tests.unit.planner.world import World, blocks_of, demand, drained, gang, kind, launched, policy, released

KINDS = (
    kind("cpu", 4, price_usd_per_h=1.0),
    kind("big", 16, price_usd_per_h=3.0),
    kind("gpu", 8, 2, price_usd_per_h=5.0),
    kind("gpus", 16, 4, price_usd_per_h=9.0),
    kind("far", 4, labels={"zone": "b"}, price_usd_per_h=0.5),
)
ASKED: tuple[tuple[str, dict[str, float]], ...] = (
    ("", {"CPU": 1}),
    ("", {"CPU": 3}),
    ("", {"CPU": 0.5}),
    ("", {"CPU": 10}),
    ("", {"GPU": 1}),
    ("", {"CPU": 2, "GPU": 2}),
    ("", {"CPU": 1, "GPU": 0.6}),
    ("", {"CPU": 1, "GPU": 0.4}),
    ("", {"GPU": 0.3}),
    ("", {"CPU": 64}),
    ("zone=b", {"CPU": 2}),
    ("zone=a|zone=b", {"CPU": 1}),
)
WORK: tuple[dict[str, float] | None, ...] = (None, {"CPU": 1}, {"CPU": 3}, {"CPU": 1, "GPU": 0.6}, {"GPU": 1})
BACKENDS = ("fake", "other")
BACKEND_LABEL = "backend"
NEAR_S = 120.0
"""A node whose lease ends sooner is no room for anything."""

T = TypeVar("T")


def some(chance: Random, most: int, make: Callable[[], T]) -> tuple[T, ...]:
    return tuple(make() for _ in range(chance.randint(0, most)))


def demand_of(chance: Random, most: int = 6) -> Demand:
    where, units = chance.choice(ASKED)
    return demand(chance.randint(1, most), where, **units)


def gang_of(chance: Random, name: str = "a") -> Gang:
    parts = [demand_of(chance, 3) for _ in range(chance.randint(1, 2))]
    return gang(chance.choice(tuple(GangStrategy)), *parts, name=name)


def types_of(chance: Random, kinds: Iterable[NodeType] = KINDS, *, floors: bool = True) -> list[NodeType]:
    """Return some of the kinds. Their names tell nothing of them, so that none can be decided by its name."""
    kinds = list(kinds)
    kinds = chance.sample(kinds, chance.randint(1, min(4, len(kinds))))
    names = chance.sample("abcdefgh", len(kinds))
    backends = chance.choice((BACKENDS[:1], BACKENDS[:1], BACKENDS))
    found = []
    for name, one in zip(names, kinds, strict=True):
        most = chance.choice([0, 1, 2, 5, 20, 20])
        least = chance.randint(0, min(2, most)) if floors else 0
        backend = chance.choice(backends)
        named = replace(one, name=name, shape_id=f"shape-{name}", backend=backend)
        found.append(replace(named, max_workers=most, min_workers=least))
    return found


def policy_of(chance: Random, *, floors: bool = True) -> Policy:
    return policy(
        *types_of(chance, floors=floors),
        max_workers=chance.choice([0, 2, 5, 10, 40, 40]),
        max_cost_usd_per_h=chance.choice([None, None, None, 12.0, 6.0, 0.0]),
        upscaling_speed=chance.choice([0.0, 1.0]),
        gangs_across_backends=chance.random() < 0.3,
    )


def world_of(chance: Random, *, asks_for_gangs: bool = True, floors: bool = True) -> World:
    """Return a world in the middle of things: nodes that work, idle ones, others on their way."""
    world = World(policy=policy_of(chance, floors=floors))
    names = [one.name for one in world.policy.node_types]
    for _ in range(chance.randint(0, 3)):
        add_node(world, chance, chance.choice(names))
    for _ in range(chance.randint(0, 2)):
        world.coming(chance.choice(names), chance.choice([BackendState.QUEUED, BackendState.STARTING]))
    world.demands = some(chance, 3, lambda: demand_of(chance))
    if asks_for_gangs:
        world.gangs = tuple(gang_of(chance, name) for name in "ab"[: chance.randint(0, 2)])
    if chance.random() < 0.3:
        world.history = replace(world.history, proven={})
    return world


def add_node(world: World, chance: Random, name: str) -> None:
    """Add a node that is idle or works; Ray tells the sum of what is used and not on which device."""
    node_type = world.policy.node_type(name)
    assert node_type is not None
    has = node_type.resources.by_name
    fitting = [one for one in WORK if one is None or all(has.get(each, 0) for each in one)]
    world.running(name, used=chance.choice(fitting), idle_s=chance.choice([0, 30, 300]))


def with_constraint(world: World, chance: Random) -> World:
    world.constraint = some(chance, 2, lambda: demand_of(chance))
    return world


def with_time(world: World, chance: Random) -> World:
    """Let backends say when, how many and for how much, and let some types be late."""
    kinds = [
        replace(one, patience_s=chance.choice([0.0, 10.0, 100.0]), priority=chance.choice([0, 0, 0, 1]))
        for one in world.policy.node_types
    ]
    world.policy = replace(world.policy, node_types=tuple(kinds))
    world.offers = tuple(
        Offer(
            one.name,
            count=chance.choice([None, None, 1, 3]),
            ready_at_s=world.now_s + chance.choice([5, 60, 1000]),
            price_usd_per_h=chance.choice([None, 0.1, 4.0]),
        )
        for one in kinds
        if chance.random() < 0.5
    )
    return world


def with_ends(world: World, chance: Random, *, leases: bool = True) -> World:
    """Let some nodes have a lease, an old shape, or a person who wants them gone or kept."""
    for one, intent in list(world.intents.items()):
        if chance.random() < 0.2:
            world.intents[one] = replace(intent, shape_id="old")
        if leases and chance.random() < 0.3:
            world.change_row(one, expires_at_s=world.now_s + chance.choice([3, 20, 130, 5000]))
    world.policy = replace(world.policy, max_surge=chance.randint(0, 2))
    ids = list(world.intents)
    world.operator = OperatorSettings(
        floors={one.name: 1 for one in world.policy.node_types if chance.random() < 0.2},
        protected=frozenset(one for one in ids if chance.random() < 0.1),
        removals={one: None for one in ids if chance.random() < 0.1},
    )
    return world


def with_strangers(world: World, chance: Random) -> World:
    """Add nodes that Heliostat did not start."""
    for _ in range(chance.randint(1, 2)):
        world.foreign(used=chance.choice(WORK[:3]), CPU=4)
    return world


def anything(chance: Random) -> World:
    """Return a world in which whatever can be may be."""
    world = world_of(chance)
    for with_more in (with_strangers, with_constraint, with_time, with_ends):
        if chance.random() < 0.4:
            world = with_more(world, chance)
    return world


@st.composite
def worlds(draw: st.DrawFn, *, asks_for_gangs: bool = True, floors: bool = True) -> World:
    seed = draw(seeds)
    note(f"world_of(Random({seed}), asks_for_gangs={asks_for_gangs}, floors={floors})")
    return world_of(Random(seed), asks_for_gangs=asks_for_gangs, floors=floors)


def alive(world: World) -> dict[str, int]:
    counts = dict.fromkeys((one.name for one in world.policy.node_types), 0)
    for one in join(world.snapshot()):
        if one.state in ALIVE:
            counts[one.node_type] += 1
    return counts


def prices(world: World) -> dict[str, float]:
    """Return what a node of each type costs just now: as offered, else as in the file."""
    offered = {one.node_type: one.price_usd_per_h for one in world.offers}
    named = {one.name: offered.get(one.name) for one in world.policy.node_types}
    return {
        one.name: one.price_usd_per_h if (price := named[one.name]) is None else price
        for one in world.policy.node_types
    }


def over_a_limit(world: World, made: Plan) -> list[str]:
    """Say which maximum the plan's launches would break, counting everything not yet gone."""
    there, new = alive(world), launched(made)
    total = {name: there[name] + new.get(name, 0) for name in there}
    surge = world.policy.max_surge
    found = [
        one.name
        for one in world.policy.node_types
        if new.get(one.name) and total[one.name] > one.max_workers + surge
    ]
    if new and sum(total.values()) > world.policy.max_workers + surge:
        found.append("all")
    most, price = world.policy.max_cost_usd_per_h, prices(world)
    if most is not None and any(price[name] for name in new):
        found += ["budget"] if sum(price[n] * c for n, c in total.items()) > most + 1e-9 else []
    counts = {one.node_type: one.count for one in world.offers if one.count is not None}
    return found + [f"{name}: capacity" for name, count in counts.items() if new.get(name, 0) > count]


def bins_after(world: World, made: Plan, *, whole: bool = False) -> list[Bin]:
    """Return all the room there will be: what is free, what comes, and what this plan launches.

    With `whole` nodes count in whole, whatever is used. What goes or was told to is no room.
    """
    leaves = released(made) | drained(made)
    # `request_resources` misses what is over a maximum, or of an old shape, only in the round after.
    late = {Why.OVER_MAX, Why.DRIFT} if whole else set()
    going = {one for one, why in leaves.items() if why not in late}
    going |= set(world.operator.removals) - world.operator.protected
    found = [_foreign(world, name, whole=whole) for name in world.nodes if name.startswith("foreign")]
    for one in join(world.snapshot()):
        if one.instance_id not in going and not _near_its_end(one, world):
            found += _room_of(one, world, whole=whole)
    for name, count in launched(made).items():
        found += [_new(world, name) for _ in range(count)]
    return found


def _near_its_end(one: Instance, world: World) -> bool:
    ends_s = one.row.expires_at_s if one.row else None
    return ends_s is not None and one.node is not None and ends_s - world.now_s < NEAR_S


def _room_of(one: Instance, world: World, *, whole: bool) -> Iterator[Bin]:
    if one.state is InstanceState.RUNNING and one.node is not None:
        labels = {**one.node.labels, BACKEND_LABEL: one.intent.backend}
        yield _bin(one.node.total if whole else one.node.available, one.node.total, labels)
    elif one.state in ALIVE - {InstanceState.DRAINING, InstanceState.STOPPING}:
        yield _new(world, one.node_type)


def _new(world: World, name: str) -> Bin:
    new = world.policy.node_type(name)
    assert new is not None
    return _bin(new.resources, new.resources, {**new.labels, BACKEND_LABEL: new.backend})


def _foreign(world: World, name: str, *, whole: bool) -> Bin:
    node = world.nodes[name]
    return _bin(node.total if whole else node.available, node.total, node.labels)


def _bin(free: Iterable[tuple[str, int]], total: object, labels: Mapping[str, str]) -> Bin:
    """Of a node in use Ray tells the sum only, which is believed at first."""
    amounts = dict(free)
    return Bin(amounts, dict(labels), devices=whole_devices(amounts) if free == total else {})


def refused_by(made: Plan, *, constraint: bool = False) -> list[Demand | Gang]:
    """Return what the plan says waits, or can never be: of Ray's work, or of `request_resources`."""
    work = {Why.DEMAND, Why.GANG}
    waiting = [one.wanted for one in made.deferred if one.why in ({Why.CONSTRAINT} if constraint else work)]
    return waiting + [one.wanted for one in made.infeasible if one.from_constraint is constraint]


def claims_fit(world: World, made: Plan) -> bool:
    """Say whether all that the plan says is served has room at once, each gang on nodes of one backend."""
    refused, bins = refused_by(made), bins_after(world, made)
    work = held_of(world.demands, refused)
    gangs = [one for one in world.gangs if one not in refused]
    if world.policy.gangs_across_backends:
        return all_fit(bins, work + [block for one in gangs for block in blocks_of(one)])
    return any(
        all_fit(
            bins,
            work + [block for one, name in zip(gangs, names, strict=True) for block in within(one, name)],
        )
        for names in product(BACKENDS, repeat=len(gangs))
    )


def constraint_fits(world: World, made: Plan) -> bool:
    """Say whether what `request_resources` is said to be kept has room on whole nodes."""
    kept = held_of(world.constraint, refused_by(made, constraint=True))
    return all_fit(bins_after(world, made, whole=True), kept)


def held_of(asked: Iterable[Demand], refused: Iterable[Demand | Gang]) -> list[Block]:
    counts: Counter[Bundle] = Counter()
    for one in asked:
        counts[one.bundle] += one.count
    for other in refused:
        if isinstance(other, Demand):
            counts[other.bundle] -= other.count
    return [(bundle,) for bundle, count in counts.items() for _ in range(count)]


def within(group: Gang, backend: str) -> list[Block]:
    """Return the gang's blocks with the condition that they lie on one backend's nodes or on foreign ones."""
    others = tuple(one for one in BACKENDS if one != backend)
    here = LabelConstraint(BACKEND_LABEL, LabelOperator.NOT_IN, others)
    return [tuple(_with(here, bundle) for bundle in block) for block in blocks_of(group)]


def _with(condition: LabelConstraint, bundle: Bundle) -> Bundle:
    ways = bundle.selectors or ((),)
    return replace(bundle, selectors=tuple((*way, condition) for way in ways))


def shuffled(world: World, order: Random) -> World:
    """Return the same world with everything listed in another order."""

    def mixed(pairs: Mapping[str, T]) -> dict[str, T]:
        return dict(order.sample(list(pairs.items()), len(pairs)))

    other = replace(
        world,
        intents=mixed(world.intents),
        rows=mixed(world.rows),
        nodes=mixed(world.nodes),
        work={name: list(work) for name, work in world.work.items()},
        demands=tuple(order.sample(world.demands, len(world.demands))),
        gangs=tuple(order.sample(world.gangs, len(world.gangs))),
        constraint=tuple(order.sample(world.constraint, len(world.constraint))),
        offers=tuple(order.sample(world.offers, len(world.offers))),
    )
    other.history = world.history
    return other


def working(world: World) -> set[str]:
    """Return the instances whose node may hold work now."""
    quiet = {NodeStatus.IDLE, NodeStatus.DEAD}
    return {node.instance_id for node in world.nodes.values() if node.status not in quiet}
