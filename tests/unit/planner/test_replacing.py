"""What works on nodes that end soon, as something to be placed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest

from heliostat.model.demand import LabelConstraint, LabelOperator
from heliostat.model.instance import BackendState, NodeStatus
from heliostat.model.resources import Resources
from heliostat.model.snapshot import OperatorSettings
from heliostat.planner.limits import NODE_GROUP_LABEL
from heliostat.planner.replacing import ending_work
from tests.unit.planner.scenes import scene_of
from tests.unit.planner.world import World, demand, kind, policy

NEAR_S = 100.0


def ending(world: World, name: str = "cpu", *, used: Mapping[str, float] | None) -> str:
    one = world.running(name, used=used, idle_s=0 if used else 5)
    world.change_row(one, expires_at_s=world.now_s + NEAR_S)
    return one


def work(world: World) -> dict[str, int]:
    """Return what is to be planned for, by its resources."""
    return {str(one.demand.bundle.resources): one.demand.count for one in ending_work(scene_of(world))}


def test_all_that_a_busy_node_uses_is_one_bundle() -> None:
    world = World()
    one = ending(world, used={"CPU": 3})
    (found,) = ending_work(scene_of(world))
    assert found.key == "what works on w1"
    assert [node.instance_id for node in found.nodes] == [one]
    assert found.demand.bundle.resources == Resources.of({"CPU": 3})
    assert found.demand.bundle.selectors == (
        (LabelConstraint(NODE_GROUP_LABEL, LabelOperator.IN, ("cpu",)),),
        (),
    )


def test_never_more_bundles_than_nodes_and_equal_ones_are_one_want() -> None:
    world = World(policy=policy(kind("cpu"), kind("other")))
    for used in ({"CPU": 3}, {"CPU": 3}, {"CPU": 1}):
        ending(world, used=used)
    ending(world, "other", used={"CPU": 1})
    found = ending_work(scene_of(world))
    assert [(str(one.demand.bundle.resources), one.demand.count, one.key) for one in found] == [
        ("{CPU: 3}", 2, "what works on w1, w2"),
        ("{CPU: 1}", 1, "what works on w3"),
        ("{CPU: 1}", 1, "what works on w4"),
    ]


def test_many_are_named_and_counted() -> None:
    world = World()
    for _ in range(5):
        ending(world, used={"CPU": 1})
    (found,) = ending_work(scene_of(world))
    assert found.key == "what works on w1, w2, w3 and 2 more"


def test_they_are_named_in_order_whatever_it_is_that_ends_them() -> None:
    world = World()
    told = world.running(used={"CPU": 1})
    world.change_node(told, status=NodeStatus.DRAINING)
    ending(world, used={"CPU": 1})
    (found,) = ending_work(scene_of(world))
    assert found.key == "what works on w1, w2"


class TestWhose:
    def test_not_of_idle_nodes_nor_of_those_with_time_left(self) -> None:
        world = World()
        ending(world, used=None)
        one = ending(world, used={"CPU": 1})
        world.change_row(one, expires_at_s=world.now_s + 5000)
        assert work(world) == {}

    def test_not_of_an_actor_without_resources(self) -> None:
        world = World()
        one = ending(world, used=None)
        world.change_node(one, status=NodeStatus.RUNNING)
        assert work(world) == {}

    @pytest.mark.parametrize(
        ("status", "counts"),
        [
            (NodeStatus.RUNNING, True),
            (NodeStatus.DRAINING, True),
            (NodeStatus.IDLE, False),
            (NodeStatus.DEAD, False),
        ],
    )
    def test_as_long_as_ray_says_that_it_works(self, status: NodeStatus, counts: bool) -> None:
        world = World()
        one = ending(world, used={"CPU": 2})
        world.change_node(one, status=status)
        assert bool(work(world)) is counts

    def test_also_of_a_node_that_was_told_of_a_preemption_without_a_lease(self) -> None:
        world = World()
        one = world.running(used={"CPU": 2})
        assert work(world) == {}
        world.change_node(one, status=NodeStatus.DRAINING)
        assert work(world) == {"{CPU: 2}": 1}

    @pytest.mark.parametrize("left", ["released", "ended"])
    def test_also_after_its_release_until_ray_calls_it_dead(self, left: str) -> None:
        world = World()
        one = ending(world, used={"CPU": 2})
        world.change_node(one, status=NodeStatus.DRAINING)
        if left == "released":
            world.give_up(one)
        else:
            world.change_row(one, state=BackendState.ENDED)
        assert work(world) == {"{CPU: 2}": 1}

    @pytest.mark.parametrize("deadline_s", [None, 60.0])
    def test_not_of_one_that_a_person_removes(self, deadline_s: float | None) -> None:
        world = World()
        one = ending(world, used={"CPU": 2})
        until_s = None if deadline_s is None else world.now_s + deadline_s
        world.operator = OperatorSettings(removals={one: until_s})
        assert work(world) == {}

    def test_not_of_a_foreign_node(self) -> None:
        world = World()
        world.foreign(CPU=4, used={"CPU": 2})
        world.nodes["foreign-0"] = replace(world.nodes["foreign-0"], status=NodeStatus.DRAINING)
        assert work(world) == {}


class TestWhat:
    def node(self, world: World, *, total: dict[str, float], free: dict[str, float]) -> None:
        one = ending(world, used={"CPU": 1})
        world.change_node(one, total=Resources.of(total), available=Resources.of(free))

    def test_only_resources_that_the_file_knows(self) -> None:
        world = World()
        group = "CPU_group_0_00112233445566778899aabbccddeeff"
        total = {"CPU": 4, group: 2, "node:10.0.0.1": 1, "object_store_memory": 9}
        self.node(world, total=total, free={"CPU": 2, group: 1, "node:10.0.0.1": 0.5})
        assert work(world) == {"{CPU: 2}": 1}

    @pytest.mark.parametrize(("used", "counted"), [(0.5, 0.5), (1, 1), (1.2, 2), (2, 2)])
    def test_shares_of_several_devices_are_counted_as_whole_ones(self, used: float, counted: float) -> None:
        world = World(policy=policy(kind("gpu", 8, 2)))
        one = ending(world, "gpu", used={"GPU": used})
        assert one
        assert work(world) == {f"{{GPU: {counted:g}}}": 1}

    def test_what_no_type_of_the_file_can_hold_is_left_to_be_demand_again(self) -> None:
        world = World()
        self.node(world, total={"CPU": 16}, free={"CPU": 1})
        assert work(world) == {}

    def test_a_type_that_is_no_longer_in_the_file_is_replaced_by_any(self) -> None:
        world = World()
        ending(world, "old", used={"CPU": 2})
        (found,) = ending_work(scene_of(world))
        assert found.demand.bundle.selectors == ((),)
        assert found.demand.bundle.allows({"any": "label"})
        assert found.demand.bundle != demand(1, CPU=2).bundle
        assert str(found.demand.bundle) == "{CPU: 2} where anywhere"


def test_the_same_whatever_the_order() -> None:
    world, other = World(), World()
    for each in (world, other):
        for used in ({"CPU": 1}, {"CPU": 2}, {"CPU": 1}):
            ending(each, used=used)
    other.intents = dict(reversed(other.intents.items()))
    other.nodes = dict(reversed(other.nodes.items()))
    assert ending_work(scene_of(world)) == ending_work(scene_of(other))
