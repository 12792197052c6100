"""`request_resources`: held against totals, adds nothing to what is there, and keeps idle nodes."""

from __future__ import annotations

from heliostat.model.plan import Why
from tests.unit.planner.world import World, demand, drained, kind, launched, launches, limiters, policy


def test_what_is_there_is_enough_however_busy_it_is() -> None:
    world = World(constraint=(demand(8),))
    world.running(used={"CPU": 4})
    world.running()
    assert launched(world.round()) == {}


def test_only_what_the_total_lacks_is_launched() -> None:
    world = World(constraint=(demand(8),))
    world.running(used={"CPU": 4})
    made = world.round()
    assert launched(made) == {"cpu": 1}
    (one,) = launches(made)
    assert one.reason.why is Why.CONSTRAINT
    assert one.reason.text.startswith("request_resources asks to keep 4 × {CPU: 1}")


def test_demand_and_constraint_share_nodes_rather_than_add_up() -> None:
    assert launched(World(constraint=(demand(8),), demands=(demand(8),)).round()) == {"cpu": 2}


def test_what_comes_counts() -> None:
    world = World(constraint=(demand(8),))
    world.coming()
    world.coming()
    assert world.rounds(5).actions == ()


def test_idle_nodes_that_it_needs_stay_and_others_go() -> None:
    world = World(constraint=(demand(4),))
    first, second = world.running(idle_s=100), world.running(idle_s=200)
    made = world.round()
    assert drained(made) == {second: Why.IDLE}
    assert made.kept[first].why is Why.CONSTRAINT


def test_a_busy_node_counts_first_so_that_idle_ones_may_go() -> None:
    world = World(constraint=(demand(4),))
    world.running(used={"CPU": 1})
    idle = world.running(idle_s=100)
    assert drained(world.round()) == {idle: Why.IDLE}


def test_taken_back_the_nodes_go() -> None:
    world = World(constraint=(demand(4),))
    one = world.running(idle_s=100)
    assert drained(world.round()) == {}
    world.constraint = ()
    assert drained(world.round()) == {one: Why.IDLE}


def test_beyond_a_maximum_it_is_deferred_and_beyond_any_type_infeasible() -> None:
    world = World(policy=policy(kind(max_workers=1)), constraint=(demand(8),))
    made = world.round()
    assert (launched(made), limiters(made)) == ({"cpu": 1}, ["TYPE_MAX_WORKERS"])
    world.constraint = (demand(1, CPU=64),)
    (one,) = world.round().infeasible
    assert one.from_constraint
