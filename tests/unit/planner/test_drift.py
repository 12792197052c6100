"""A changed file: nodes of an old shape leave when idle, no faster than the new one can come; `max_surge`."""

from __future__ import annotations

from dataclasses import replace

import pytest

from heliostat.model.drain_limit import DrainLimit
from heliostat.model.history import Backoff
from heliostat.model.instance import BackendState, NodeStatus
from heliostat.model.node_type import Policy
from heliostat.model.plan import Why
from heliostat.model.resources import Resources
from heliostat.model.snapshot import OperatorSettings
from heliostat.planner.surge import surge
from tests.unit.planner.scenes import apply, newer, scene_of
from tests.unit.planner.world import (
    World,
    demand,
    drained,
    kind,
    launched,
    limiters,
    policy,
    released,
)

NEAR_S = 100.0


def changed(world: World, **policy_changes: object) -> None:
    """Give every type of the file a new shape."""
    types = tuple(newer(one) for one in world.policy.node_types)
    apply(world, replace(world.policy, node_types=types, **policy_changes))  # type: ignore[arg-type]


def up(world: World) -> None:
    """Let what is on its way join."""
    for _ in range(3):
        world.tick(places=False)


class TestAllowance:
    @pytest.mark.parametrize(
        ("max_surge", "drifted", "ending", "allowed"),
        [(0, 2, 2, 0), (1, 0, 0, 0), (1, 2, 2, 1), (3, 1, 1, 2), (9, 2, 1, 3)],
    )
    def test_as_many_as_end_and_never_more_than_max_surge(
        self, max_surge: int, drifted: int, ending: int, allowed: int
    ) -> None:
        world = World(policy=policy(max_surge=max_surge))
        for _ in range(drifted):
            world.running(used={"CPU": 1})
        changed(world)
        for _ in range(ending):
            world.change_row(world.running(used={"CPU": 1}), expires_at_s=world.now_s + NEAR_S)
        world.running(used={"CPU": 1})
        scene = scene_of(world)
        assert surge(scene, "cpu") == surge(scene) == allowed

    def test_of_the_cluster_all_types_together(self) -> None:
        world = World(policy=policy(kind("a"), kind("b"), max_surge=3))
        for name in ("a", "b", "b"):
            world.running(name, used={"CPU": 1})
        changed(world)
        scene = scene_of(world)
        assert (surge(scene, "a"), surge(scene, "b"), surge(scene)) == (1, 2, 3)

    def test_one_that_a_person_protects_does_not_end(self) -> None:
        world = World(policy=policy(max_surge=1))
        world.operator = OperatorSettings(protected=frozenset({world.running()}))
        changed(world)
        assert surge(scene_of(world), "cpu") == 0

    def test_what_has_gone_allows_nothing(self) -> None:
        world = World(policy=policy(max_surge=1))
        one = world.running()
        changed(world)
        world.change_node(one, status=NodeStatus.DEAD)
        world.change_row(one, state=BackendState.ENDED)
        assert surge(scene_of(world), "cpu") == 0

    @pytest.mark.parametrize(("max_surge", "nodes"), [(0, 0), (1, 1), (5, 2)])
    def test_both_maxima_give_way_by_so_many(self, max_surge: int, nodes: int) -> None:
        world = World(policy=policy(kind(max_workers=2), max_workers=2, max_surge=max_surge))
        for _ in range(2):
            world.running(used={"CPU": 4})
        changed(world)
        world.demands = (demand(9, CPU=4),)
        made = world.round()
        assert launched(made) == ({"cpu": nodes} if nodes else {})
        assert limiters(made) == ["TYPE_MAX_WORKERS"]

    def test_what_came_so_is_not_too_many_while_the_old_ones_work(self) -> None:
        world = World(policy=policy(kind(max_workers=1), max_workers=1, max_surge=1))
        old = world.running(used={"CPU": 4})
        changed(world)
        world.demands = (demand(4),)
        world.obey(world.round())
        assert len(world.intents) == 2
        made = world.rounds(4)
        assert (released(made), drained(made)) == ({}, {})
        # When nothing ends any more the maximum holds again.
        world.intents[old] = replace(world.intents[old], shape_id=world.policy.node_types[0].shape_id)
        assert list(released(world.round()).values()) == [Why.OVER_MAX]

    def test_a_maximum_that_was_lowered_meanwhile_holds_for_the_rest(self) -> None:
        world = World(policy=policy(kind(), max_surge=1))
        for _ in range(2):
            world.running(used={"CPU": 4})
        changed(world)
        several = [world.coming() for _ in range(2)]
        world.demands = (demand(8),)
        world.policy = replace(world.policy, node_types=(replace(world.policy.node_types[0], max_workers=2),))
        assert set(released(world.round())) == {several[1]}


def test_retiring_are_idle_ones_first_so_many_of_each_type() -> None:
    world = World(policy=policy(kind("a"), kind("b"), max_surge=1))
    world.running("a", used={"CPU": 1})
    idle, longest = world.running("a", idle_s=5), world.running("a", idle_s=50)
    other = world.running("b", idle_s=5)
    assert scene_of(world).retiring == frozenset()
    changed(world)
    assert scene_of(world).retiring == {longest, other}
    world.policy = replace(world.policy, max_surge=2)
    assert scene_of(world).retiring == {idle, longest, other}
    world.change_node(longest, status=NodeStatus.DRAINING)
    assert scene_of(world).retiring == {idle, other}
    world.policy = replace(world.policy, max_surge=1)
    assert scene_of(world).retiring == {other}
    world.change_row(other, expires_at_s=world.now_s + NEAR_S)
    assert scene_of(world).retiring == frozenset()
    world.policy = replace(world.policy, max_surge=0)
    assert scene_of(world).retiring == frozenset()


def rolling(**changes: object) -> tuple[World, list[str]]:
    world = World(policy=policy(kind(min_workers=3), **changes))
    several = [world.running(idle_s=100 - index) for index in range(3)]
    changed(world)
    return world, several


class TestOldOnesFirst:
    """`max_surge` is 0: nobody says that there is room for a new one beside the old."""

    def test_one_at_a_time_where_a_floor_needs_them(self) -> None:
        world, several = rolling()
        made = world.round()
        assert drained(made) == {several[0]: Why.DRIFT}
        assert made.kept[several[1]].text == (
            "has a shape that the file no longer has; goes when a new one is up"
        )
        world.obey(made)
        made = world.round()
        assert (launched(made), drained(made)) == ({"cpu": 1}, {})
        world.obey(made)
        for _ in range(2):
            assert drained(world.round()) == {}
            world.tick(places=False)
        up(world)
        assert drained(world.round()) == {several[1]: Why.DRIFT}

    def test_it_ends_with_all_of_the_new_shape_and_gives_nothing_back(self) -> None:
        world, several = rolling()
        fewest, new = 3, 0
        for _ in range(40):
            made = world.round()
            new += sum(launched(made).values())
            assert set(released(made)) <= set(several)
            world.obey(made)
            world.tick(places=False)
            alive = [n for n in world.nodes.values() if n.status is not NodeStatus.DEAD]
            fewest = min(fewest, len(alive))
        assert (fewest, new) == (2, 3)
        assert {one.shape_id for one in world.intents.values()} == {"shape-cpu-new"}

    def test_at_once_what_nothing_needs(self) -> None:
        world, several = rolling()
        world.policy = replace(world.policy, node_types=(replace(world.policy.node_types[0], min_workers=0),))
        assert drained(world.round()) == dict.fromkeys(several, Why.DRIFT)

    def test_a_new_shape_that_does_not_come_up_costs_one_node_and_not_all(self) -> None:
        world, several = rolling()
        world.obey(world.round())
        world.history = replace(world.history, backoff={"cpu": Backoff(3, world.now_s + 500, "no image")})
        for _ in range(20):
            made = world.round()
            assert drained(made) == {}
        assert set(made.kept) == set(several[1:])

    def test_those_that_a_constraint_needs_go_one_at_a_time_too(self) -> None:
        world = World(constraint=(demand(8),))
        several = [world.running(idle_s=100 - index) for index in range(2)]
        changed(world)
        made = world.round()
        assert len(drained(made)) == 1
        world.obey(made)
        for _ in range(3):
            made = world.round()
            assert drained(made) == {}
            world.obey(made)
        up(world)
        assert set(drained(world.round())) < set(several)

    def test_a_failing_type_is_not_drained_below_what_a_constraint_asks(self) -> None:
        world = World(constraint=(demand(4),))
        world.running(idle_s=100)
        changed(world)
        world.history = replace(world.history, backoff={"cpu": Backoff(3, world.now_s + 500, "no image")})
        assert drained(world.round()) == {}


class TestStays:
    def test_while_it_works_and_one_of_the_new_shape_comes_for_the_rest(self) -> None:
        world = World(demands=(demand(4, CPU=4),))
        world.running(used={"CPU": 4})
        changed(world)
        made = world.rounds(3)
        assert (drained(made), launched(made)) == ({}, {"cpu": 4})

    def test_while_demand_fits_on_it_or_a_person_protects_it(self) -> None:
        world = World(demands=(demand(1),))
        one = world.running(idle_s=100)
        changed(world)
        assert world.round().kept[one].why is Why.DEMAND
        world.demands = ()
        world.operator = OperatorSettings(protected=frozenset({one}))
        assert world.round().kept[one].why is Why.PROTECTED

    def test_not_past_the_notice_of_its_lease(self) -> None:
        world, several = rolling(max_surge=1)
        for one in several:
            world.change_row(one, expires_at_s=world.now_s + NEAR_S)
        assert set(drained(world.round()).values()) == {Why.LEASE_ENDS}


def test_not_more_drain_than_max_draining() -> None:
    world = World(policy=policy(max_draining=(DrainLimit(2),)))
    for _ in range(5):
        world.running(idle_s=10)
    changed(world)
    made = world.round()
    assert len(drained(made)) == 2
    assert sum("max_draining" in one.text for one in made.kept.values()) == 3


def test_a_type_that_the_file_no_longer_has() -> None:
    world = World(policy=policy(kind("a"), kind("b")))
    one = world.running("a", idle_s=1)
    busy = world.running("a", used={"CPU": 1})
    apply(world, Policy((kind("b"),), max_workers=5, idle_timeout_s=60))
    assert drained(world.round()) == {one: Why.DRIFT}
    world.change_node(busy, available=Resources.of({"CPU": 4}), status=NodeStatus.IDLE)
    assert drained(world.rounds(2)) == {one: Why.DRIFT, busy: Why.DRIFT}
