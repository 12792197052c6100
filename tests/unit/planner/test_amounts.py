"""Amounts are exact, whatever they are of; and Ray's implicit resources, which no node type lists."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heliostat.model.demand import Demand, GangStrategy
from heliostat.model.instance import NodeStatus
from heliostat.model.resources import IMPLICIT_RESOURCE, Resources
from tests.examples import many
from tests.unit.planner.world import World, bundle, demand, gang, kind, launched, policy

GIB = 2.0**30
SERVE = f"{IMPLICIT_RESOURCE}replica-of-a"


def of(**units: float) -> World:
    """A world with one type that has just these resources."""
    return World(policy=policy(kind(resources=Resources.of(units))))


@pytest.mark.parametrize(
    ("asked", "there", "nodes"),
    [
        ([(3, 0.1), (1, 0.7)], 1, 1),
        ([(3, 0.1), (1, 0.7001)], 1, 2),
        ([(10_000, 0.0001)], 1, 1),
        ([(10_001, 0.0001)], 1, 2),
        ([(10, 0.1)], 1, 1),
        ([(11, 0.1)], 1, 2),
        ([(1, 0.3), (1, 0.6), (1, 0.1)], 1, 1),
        ([(3, 1.1)], 3.3, 1),
        ([(3, 1.1)], 3.2999, 2),
        ([(7, 0.7)], 4.9, 1),
        # Ray's unit is 1/10000: what is finer is rounded to it.
        ([(3, 1 / 3)], 1, 1),
        ([(4, 0.25004)], 1, 1),
    ],
)
@pytest.mark.parametrize("name", ["CPU", "memory", "object_store_memory", "licence", "node:10.0.0.1"])
def test_what_adds_up_fills_a_node_exactly(
    name: str, asked: list[tuple[int, float]], there: float, nodes: int
) -> None:
    world = of(**{name: there})
    world.demands = tuple(demand(count, **{name: each}) for count, each in asked)
    assert launched(world.round()) == {"cpu": nodes}


def test_the_same_on_a_node_that_runs() -> None:
    world = World(policy=policy(kind(cpus=1)), demands=(demand(1, CPU=0.1), demand(1, CPU=0.2)))
    world.running(used={"CPU": 0.7})
    assert launched(world.round()) == {}
    world.demands = (demand(1, CPU=0.1), demand(1, CPU=0.2001))
    assert launched(world.round()) == {"cpu": 1}


@many(60)
@given(st.lists(st.integers(1, 10_000), min_size=1, max_size=6), st.integers(0, 3))
def test_a_node_is_full_to_the_last_part_of_ten_thousand(parts: list[int], lacks: int) -> None:
    """However an amount is cut into parts, they fill it, and with a hair less they do not."""
    there = max(*parts, sum(parts) - lacks)
    world = World(policy=policy(kind(resources=Resources((("CPU", there),)))))
    world.demands = tuple(Demand(replace(bundle(), resources=Resources((("CPU", one),))), 1) for one in parts)
    assert (launched(world.round()) == {"cpu": 1}) is (sum(parts) <= there)


class TestMemory:
    @pytest.mark.parametrize("name", ["memory", "object_store_memory"])
    def test_terabytes_to_the_byte(self, name: str) -> None:
        there = 12 * 1024 * GIB
        world = of(CPU=64, **{name: there})
        world.demands = (demand(12, CPU=1, **{name: 1024 * GIB}),)
        assert launched(world.round()) == {"cpu": 1}
        world.demands = (demand(11, CPU=1, **{name: 1024 * GIB}), demand(1, **{name: 1024 * GIB + 1}))
        assert launched(world.round()) == {"cpu": 2}

    def test_each_resource_binds_by_itself(self) -> None:
        world = of(CPU=8, memory=8 * GIB)
        world.demands = (demand(8, CPU=1, memory=2 * GIB),)
        assert launched(world.round()) == {"cpu": 2}
        world.demands = (demand(8, CPU=2, memory=GIB),)
        assert launched(world.round()) == {"cpu": 2}
        world.demands = (demand(4, CPU=2), demand(4, memory=2 * GIB))
        assert launched(world.round()) == {"cpu": 1}

    def test_what_no_node_has_is_never(self) -> None:
        world = of(CPU=8, memory=8 * GIB)
        world.demands = (demand(1, memory=8 * GIB + 1),)
        assert len(world.round().infeasible) == 1

    def test_a_custom_resource_brings_the_type_that_has_it(self) -> None:
        world = World(policy=policy(kind("a"), kind("b", resources=Resources.of({"CPU": 4, "licence": 2}))))
        world.demands = (demand(3, licence=1),)
        assert launched(world.round()) == {"b": 2}


class TestOneNodeByName:
    """`node:<ip>` is a resource that one node has, and no node type."""

    def test_on_that_node_and_no_other(self) -> None:
        world = World(demands=(demand(1, **{"node:10.0.0.2": 0.001}),))
        world.foreign(CPU=4, **{"node:10.0.0.1": 1})
        world.foreign(CPU=4, **{"node:10.0.0.2": 1})
        made = world.round()
        assert (made.actions, made.deferred, made.infeasible) == ((), (), ())

    def test_it_waits_for_that_node_where_it_is_full(self) -> None:
        world = World(demands=(demand(1, CPU=1, **{"node:10.0.0.2": 0.001}),))
        world.foreign(CPU=4, **{"node:10.0.0.1": 1})
        world.foreign(CPU=4, used={"CPU": 4}, **{"node:10.0.0.2": 1})
        made = world.round()
        assert (made.actions, made.infeasible) == ((), ())
        assert made.deferred[0].text.startswith("only nodes that are already here can hold")

    def test_it_can_never_be_where_no_node_has_it(self) -> None:
        world = World(demands=(demand(1, **{"node:10.0.0.9": 0.001}),))
        world.foreign(CPU=4, **{"node:10.0.0.1": 1})
        made = world.round()
        assert made.actions == ()
        assert len(made.infeasible) == 1

    def test_a_thousand_of_a_thousandth(self) -> None:
        world = World(demands=(demand(1000, **{"node:10.0.0.1": 0.001}),))
        world.foreign(CPU=4, **{"node:10.0.0.1": 1})
        assert world.round().deferred == ()
        world.demands = (demand(1001, **{"node:10.0.0.1": 0.001}),)
        assert [one.wanted.count for one in world.round().deferred] == [1]  # type: ignore[union-attr]


class TestImplicit:
    """Every node has one of each resource that Ray makes up: Ray Serve's limit of replicas per node."""

    @pytest.mark.parametrize(
        ("count", "each", "nodes"),
        [(1, 0.5, 1), (2, 0.5, 1), (3, 0.5, 2), (5, 1, 5), (4, 0.3, 2), (9, 0.1, 1)],
    )
    def test_one_on_every_new_node(self, count: int, each: float, nodes: int) -> None:
        world = World(demands=(demand(count, **{SERVE: each}),))
        assert launched(world.round()) == {"cpu": nodes}

    def test_none_holds_more_than_one(self) -> None:
        (one,) = World(demands=(demand(1, **{SERVE: 1.5}),)).round().infeasible
        assert one.lacks[SERVE][0] == 1.5

    def test_beside_others(self) -> None:
        world = World(demands=(demand(4, CPU=1, **{SERVE: 0.5}), demand(2, **{f"{SERVE}-b": 0.5})))
        assert launched(world.round()) == {"cpu": 2}

    def test_on_a_node_that_runs_listed_or_not(self) -> None:
        world = World(demands=(demand(2, **{SERVE: 0.5}),))
        one = world.running(used={"CPU": 1})
        assert launched(world.round()) == {}
        half = Resources.of({"CPU": 3, SERVE: 0.5})
        world.change_node(one, available=half)
        assert launched(world.round()) == {"cpu": 1}

    def test_a_node_that_has_none_left_of_it(self) -> None:
        """Ray lists it with 0 free. Amounts of ours hold no zeros, so the total says that it was there."""
        world = World(demands=(demand(1, **{SERVE: 0.5}),))
        one = world.running(used={"CPU": 1})
        total = Resources.of({"CPU": 4, SERVE: 1})
        world.change_node(one, total=total, available=Resources.of({"CPU": 3}))
        assert launched(world.round()) == {"cpu": 1}

    def test_what_comes_has_one(self) -> None:
        world = World(demands=(demand(4, **{SERVE: 0.5}),))
        world.coming()
        world.asked(ago_s=1)
        assert launched(world.round()) == {}

    def test_in_a_gang(self) -> None:
        world = World(gangs=(gang(GangStrategy.PACK, demand(4, CPU=1, **{SERVE: 0.5})),))
        assert launched(world.round()) == {"cpu": 2}

    def test_held_against_the_total_by_a_constraint(self) -> None:
        world = World(constraint=(demand(4, **{SERVE: 0.5}),))
        world.running(used={"CPU": 4})
        assert launched(world.round()) == {"cpu": 1}

    def test_an_idle_node_is_kept_for_it(self) -> None:
        world = World(demands=(demand(1, **{SERVE: 0.5}),))
        one = world.running(idle_s=500)
        assert world.nodes[f"n-{one}"].status is NodeStatus.IDLE
        assert one in world.round().kept
