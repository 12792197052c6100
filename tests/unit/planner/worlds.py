"""Worlds of every kind for the property tests, and what is left of them when the plan has had its way."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import strategies as st

from heliostat.model.demand import Bundle, Demand, Gang, GangStrategy
from heliostat.model.instance import ALIVE, BackendState, InstanceState, NodeStatus
from heliostat.model.plan import Plan
from heliostat.model.resources import NOTHING
from heliostat.model.snapshot import join
from tests.unit.planner.placer import Bin
from tests.unit.planner.world import World, demand, gang, kind, launched, policy

KINDS = (
    kind("cpu", 4, price_usd_per_h=1.0),
    kind("big", 16, price_usd_per_h=3.0),
    kind("gpu", 8, 2, price_usd_per_h=5.0),
    kind("far", 4, labels={"zone": "b"}, price_usd_per_h=0.5),
)
ASKED: tuple[tuple[str, dict[str, float]], ...] = (
    ("", {"CPU": 1}),
    ("", {"CPU": 3}),
    ("", {"CPU": 0.5}),
    ("", {"CPU": 10}),
    ("", {"GPU": 1}),
    ("", {"CPU": 2, "GPU": 2}),
    ("", {"CPU": 64}),
    ("zone=b", {"CPU": 2}),
    ("zone=a|zone=b", {"CPU": 1}),
)

shapes = st.sampled_from(ASKED)
demands = st.builds(lambda shape, count: demand(count, shape[0], **shape[1]), shapes, st.integers(1, 6))
gangs = st.builds(
    lambda strategy, parts, name: gang(strategy, *parts, name=name),
    st.sampled_from(GangStrategy),
    st.lists(demands.map(lambda one: replace(one, count=min(one.count, 3))), min_size=1, max_size=2),
    st.sampled_from("abc"),
)


@st.composite
def policies(draw: st.DrawFn, *, floors: bool = True) -> object:
    kinds = []
    for one in draw(st.lists(st.sampled_from(KINDS), min_size=1, max_size=4, unique_by=lambda one: one.name)):
        most = draw(st.integers(0, 5))
        least = draw(st.integers(0, min(2, most))) if floors else 0
        kinds.append(replace(one, max_workers=most, min_workers=least))
    return policy(
        *kinds,
        max_workers=draw(st.integers(0, 10)),
        max_cost_usd_per_h=draw(st.sampled_from([None, 6.0, 0.0])),
        upscaling_speed=draw(st.sampled_from([0.0, 1.0])),
    )


@st.composite
def worlds(draw: st.DrawFn, *, asks_for_gangs: bool = True, floors: bool = True) -> World:
    """Draw a world in the middle of things: nodes that work, idle ones, others on their way."""
    world = World(policy=draw(policies(floors=floors)))  # type: ignore[arg-type]
    names = [one.name for one in world.policy.node_types]
    for _ in range(draw(st.integers(0, 3))):
        used = draw(st.sampled_from([None, {"CPU": 1}, {"CPU": 3}]))
        world.running(draw(st.sampled_from(names)), used=used, idle_s=draw(st.sampled_from([0, 30, 300])))
    for _ in range(draw(st.integers(0, 2))):
        state = draw(st.sampled_from([BackendState.QUEUED, BackendState.STARTING]))
        world.coming(draw(st.sampled_from(names)), state)
    world.demands = tuple(draw(st.lists(demands, max_size=3)))
    if asks_for_gangs:
        world.gangs = tuple(draw(st.lists(gangs, max_size=2, unique_by=lambda one: one.gang_id)))
    if draw(st.booleans()):
        world.history = replace(world.history, succeeded=frozenset())
    return world


def alive(world: World) -> dict[str, int]:
    counts = dict.fromkeys((one.name for one in world.policy.node_types), 0)
    for one in join(world.snapshot()):
        if one.state in ALIVE:
            counts[one.node_type] += 1
    return counts


def over_a_limit(world: World, made: Plan) -> list[str]:
    """Say which maximum the plan's launches would break, counting everything not yet gone."""
    there, new = alive(world), launched(made)
    total = {name: there[name] + new.get(name, 0) for name in there}
    prices = {one.name: one.price_usd_per_h for one in world.policy.node_types}
    found = [
        one.name for one in world.policy.node_types if new.get(one.name) and total[one.name] > one.max_workers
    ]
    if new and sum(total.values()) > world.policy.max_workers:
        found.append("all")
    most = world.policy.max_cost_usd_per_h
    if most is not None and new and sum(prices[n] * c for n, c in total.items()) > most + 1e-9:
        found.append("budget")
    return found


def bins_after(world: World, made: Plan) -> list[Bin]:
    """Return all the room there will be: what is free, what comes, and what this plan launches."""
    found = []
    for one in join(world.snapshot()):
        kind_of = world.policy.node_type(one.node_type)
        assert kind_of is not None
        if one.state is InstanceState.RUNNING and one.node is not None:
            found.append(Bin(dict(one.node.available), dict(one.node.labels)))
        elif one.state in ALIVE:
            found.append(Bin(dict(kind_of.resources), dict(kind_of.labels)))
    for name, count in launched(made).items():
        new = world.policy.node_type(name)
        assert new is not None
        found += [Bin(dict(new.resources), dict(new.labels)) for _ in range(count)]
    return found


def refused_by(made: Plan) -> list[Demand | Gang]:
    """Return what the plan says waits, or can never be."""
    return [*(one.wanted for one in made.deferred), *(one.wanted for one in made.infeasible)]


def claimed(world: World, made: Plan) -> list[Bundle]:
    """Return every bundle that the plan says there is, or will be, room for."""
    refused = refused_by(made)
    found: list[Bundle] = []
    for one in dict.fromkeys(each.bundle for each in world.demands):
        asked = sum(each.count for each in world.demands if each.bundle == one)
        held = sum(each.count for each in refused if isinstance(each, Demand) and each.bundle == one)
        found += [one] * max(0, asked - held)
    for group in world.gangs:
        if group not in refused:
            found += bundles_of(group)
    return found


def bundles_of(group: Gang) -> list[Bundle]:
    parts = [part.bundle for part in group.demands for _ in range(part.count)]
    if group.strategy is GangStrategy.STRICT_SPREAD:
        return [replace(one, anti_affinity=group.gang_id) for one in parts]
    if group.strategy is not GangStrategy.STRICT_PACK:
        return parts
    total = NOTHING
    for one in parts:
        total = total.plus(one.resources)
    ways = [one.selectors for one in parts if one.selectors]
    # One node must satisfy each part: the drawn shapes agree in one zone or in none.
    return [Bundle(total, ways[0] if ways else ())]


def shuffled(world: World, order: object) -> World:
    """Return the same world with everything listed in another order."""

    def mixed(pairs: list[tuple[str, object]]) -> dict[str, object]:
        order.shuffle(pairs)  # type: ignore[attr-defined]
        return dict(pairs)

    other = replace(
        world,
        intents=mixed(list(world.intents.items())),  # type: ignore[arg-type]
        rows=mixed(list(world.rows.items())),  # type: ignore[arg-type]
        nodes=mixed(list(world.nodes.items())),  # type: ignore[arg-type]
        demands=tuple(order.sample(world.demands, len(world.demands))),  # type: ignore[attr-defined]
        gangs=tuple(order.sample(world.gangs, len(world.gangs))),  # type: ignore[attr-defined]
        constraint=tuple(order.sample(world.constraint, len(world.constraint))),  # type: ignore[attr-defined]
    )
    other.history = world.history
    return other


def working(world: World) -> set[str]:
    """Return the instances whose node may hold work now."""
    quiet = {NodeStatus.IDLE, NodeStatus.DEAD}
    return {node.instance_id for node in world.nodes.values() if node.status not in quiet}
