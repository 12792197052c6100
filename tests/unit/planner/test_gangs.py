"""Placement groups: whole or not at all."""

from __future__ import annotations

from dataclasses import replace

import pytest

from heliostat.model.demand import GangStrategy
from heliostat.model.history import History
from heliostat.model.instance import BackendState
from heliostat.model.plan import Why
from heliostat.model.resources import Resources
from heliostat.model.snapshot import OperatorSettings
from tests.unit.planner.world import World, bundle, demand, gang, kind, launched, launches, limiters, policy

PACK, SPREAD = GangStrategy.PACK, GangStrategy.SPREAD
STRICT_PACK, STRICT_SPREAD = GangStrategy.STRICT_PACK, GangStrategy.STRICT_SPREAD


@pytest.mark.parametrize(
    ("strategy", "nodes"),
    [(PACK, {"cpu": 2}), (SPREAD, {"cpu": 2}), (STRICT_SPREAD, {"cpu": 4}), (STRICT_PACK, {"big": 1})],
)
def test_each_strategy_from_zero(strategy: GangStrategy, nodes: dict[str, int]) -> None:
    kinds = policy(kind("cpu", 4), kind("big", 16, price_usd_per_h=9.0))
    world = World(policy=kinds, gangs=(gang(strategy, demand(4, CPU=2)),))
    made = world.round()
    assert launched(made) == nodes
    assert {one.reason.why for one in launches(made)} == {Why.GANG}
    assert "whole or not at all" in launches(made)[0].reason.text


@pytest.mark.parametrize("strategy", [PACK, SPREAD, STRICT_SPREAD])
def test_nothing_for_a_gang_that_a_maximum_forbids_to_complete(strategy: GangStrategy) -> None:
    world = World(policy=policy(kind(max_workers=3)), gangs=(gang(strategy, demand(4, CPU=3)),))
    made = world.round()
    assert made.actions == ()
    assert limiters(made) == ["TYPE_MAX_WORKERS"]
    assert made.deferred[0].wanted == world.gangs[0]
    assert made.deferred[0].text.startswith("a part of it would not fit, so none is launched: cpu has 3")


def test_a_strict_pack_that_no_type_holds_can_never_be() -> None:
    made = World(gangs=(gang(STRICT_PACK, demand(3, CPU=2)),)).round()
    assert made.actions == ()
    assert made.infeasible[0].text.startswith("no node type can hold {CPU: 6}; nearest is cpu")


def test_a_strict_pack_waits_when_its_type_is_full() -> None:
    world = World(policy=policy(kind(max_workers=1)), gangs=(gang(STRICT_PACK, demand(2, CPU=2)),))
    world.running(used={"CPU": 1})
    made = world.round()
    assert (launched(made), limiters(made)) == ({}, ["TYPE_MAX_WORKERS"])


def test_what_is_there_serves_a_gang_in_part() -> None:
    world = World(gangs=(gang(STRICT_SPREAD, demand(3, CPU=1)),))
    world.running()
    world.coming()
    assert launched(world.round()) == {"cpu": 1}


def test_one_strict_spread_bundle_a_node_even_where_two_would_fit() -> None:
    world = World(gangs=(gang(STRICT_SPREAD, demand(2, CPU=1)),))
    world.running()
    assert launched(world.round()) == {"cpu": 1}


def test_two_strict_spread_gangs_may_share_nodes() -> None:
    several = (gang(STRICT_SPREAD, demand(2), name="a"), gang(STRICT_SPREAD, demand(2), name="b"))
    assert launched(World(gangs=several).round()) == {"cpu": 2}


def test_rays_own_mark_keeps_a_node_that_already_holds_a_part() -> None:
    marked = replace(bundle(CPU=1), anti_affinity="_PG_a")
    world = World(gangs=(gang(STRICT_SPREAD, replace(demand(1), bundle=marked)),))
    one = world.running()
    assert launched(world.round()) == {}
    world.change_node(one, labels={"_PG_a": "1"})
    assert launched(world.round()) == {"cpu": 1}


def test_a_gang_goes_before_demand_and_a_small_one_gets_what_is_left() -> None:
    world = World(policy=policy(kind(max_workers=2)), demands=(demand(9),))
    world.gangs = (gang(STRICT_SPREAD, demand(2, CPU=3)),)
    made = world.round()
    assert launched(made) == {"cpu": 2}
    assert [one.wanted for one in made.deferred] == [demand(7)]


def test_a_gang_that_cannot_be_completed_leaves_its_room_to_others() -> None:
    world = World(policy=policy(kind(max_workers=2)), demands=(demand(8),))
    world.gangs = (gang(STRICT_SPREAD, demand(3, CPU=4)),)
    made = world.round()
    assert launched(made) == {"cpu": 2}
    assert [one.wanted for one in made.deferred] == [world.gangs[0]]


def test_a_gang_one_bundle_of_which_is_impossible_costs_nothing() -> None:
    made = World(gangs=(gang(PACK, demand(2), demand(1, CPU=64)),)).round()
    assert made.actions == ()
    assert made.infeasible[0].text.startswith("no node type can hold {CPU: 64}")


def test_a_gang_is_not_held_back_by_speed_or_split_by_the_first_try() -> None:
    world = World(policy=policy(kind(), upscaling_speed=1.0), gangs=(gang(STRICT_SPREAD, demand(7)),))
    world.history = History()
    assert launched(world.round()) == {"cpu": 7}


def test_a_gang_larger_than_the_first_try_waits_while_others_try() -> None:
    world = World(gangs=(gang(STRICT_SPREAD, demand(5, CPU=4)),))
    world.coming(ago_s=1)
    world.history = History()
    made = world.round()
    assert launched(made) == {}
    assert limiters(made) == ["FIRST_SUCCESS"]
    assert made.deferred[0].wanted == world.gangs[0]


@pytest.mark.parametrize(("state", "goes"), [(BackendState.QUEUED, {"cpu": 4}), (BackendState.STARTING, {})])
def test_a_gang_queues_beside_what_queues_where_the_backend_itself_throttles(
    state: BackendState, goes: dict[str, int]
) -> None:
    world = World(policy=policy(kind(throttles=True)), gangs=(gang(STRICT_SPREAD, demand(5, CPU=4)),))
    world.operator = OperatorSettings(protected=frozenset({world.coming(state=state, ago_s=1)}))
    world.history = History()
    assert launched(world.round()) == goes


def test_of_several_gangs_one_queues_until_the_type_has_come_up_or_that_one_is_gone() -> None:
    """What queues whole starts whole: all of them would try the same broken image at once."""
    several = tuple(gang(STRICT_SPREAD, demand(4, CPU=4), name=name) for name in "abc")
    world = World(policy=policy(kind(max_workers=12, throttles=True)), gangs=several)
    world.history = History()
    made = world.round()
    assert launched(made) == {"cpu": 4}
    assert limiters(made) == ["FIRST_SUCCESS", "FIRST_SUCCESS"]
    world.obey(made)
    assert launched(world.rounds(3)) == {}
    for one in list(world.intents):
        world.give_up(one)
        del world.rows[one]
    made = world.round()
    assert launched(made) == {"cpu": 4}
    world.obey(made)
    for one in sorted(world.rows):
        world.change_row(one, state=BackendState.RUNNING)
        world.join(one, Resources())
    assert launched(world.round()) == {"cpu": 8}


def test_two_gangs_that_share_new_nodes_are_held_back_together() -> None:
    """The second gang's node is withheld, so the first, which needs it too, must not go alone."""
    world = World(policy=policy(kind("cpu", 4)))
    world.history = History()
    world.gangs = (gang(STRICT_SPREAD, demand(3), name="a"), gang(STRICT_SPREAD, demand(5), name="b"))
    made = world.round()
    assert launched(made) in ({"cpu": 5}, {})
    waiting = {one.wanted for one in made.deferred}
    assert waiting == (set(world.gangs) if not launched(made) else set())


def test_labels_of_a_gangs_bundles_are_all_kept_when_they_must_share_a_node() -> None:
    kinds = policy(kind("a", 8, labels={"zone": "a"}), kind("b", 8, labels={"zone": "a", "disk": "ssd"}))
    world = World(policy=kinds)
    world.gangs = (gang(STRICT_PACK, demand(1, "zone=a", CPU=1), demand(1, "disk=ssd", CPU=1)),)
    assert launched(world.round()) == {"b": 1}


def test_demand_that_was_to_share_a_withheld_gangs_node_is_said_to_wait_too() -> None:
    world = World(gangs=(gang(STRICT_SPREAD, demand(5, CPU=2)),), demands=(demand(3),))
    world.coming(ago_s=1)
    world.history = History()
    made = world.round()
    assert made.actions == ()
    assert [one.wanted for one in made.deferred] == [world.gangs[0], demand(1)]


def test_different_bundles_of_one_strict_spread_gang_share_no_node_either() -> None:
    world = World(gangs=(gang(STRICT_SPREAD, demand(1, CPU=1), demand(1, CPU=2)),))
    world.running()
    assert launched(world.round()) == {"cpu": 1}


def test_whole_devices_beside_a_gang_on_one_node_are_counted_one_by_one() -> None:
    """Five shares of 0.4 fill 2 GPUs by their sum and 3 of 4 in truth, so nothing is there for 2 more."""
    node_type = kind("gpu", 16, gpus=4, min_workers=1, max_workers=1)
    shares = demand(5, CPU=1, GPU=0.4)
    world = World(
        policy=policy(node_type), gangs=(gang(STRICT_PACK, shares),), demands=(demand(1, CPU=2, GPU=2),)
    )
    made = world.round()
    assert launched(made) == {"gpu": 1}
    assert [one.wanted for one in made.deferred] == list(world.demands)


def test_a_floor_of_a_type_that_never_came_up_does_not_wait_for_a_gang_that_waits_for_it() -> None:
    kinds = policy(kind(min_workers=1, max_workers=8))
    world = World(policy=kinds, gangs=(gang(STRICT_SPREAD, demand(4, CPU=2)),))
    world.history = History()
    assert launched(world.round()) == {"cpu": 1}
