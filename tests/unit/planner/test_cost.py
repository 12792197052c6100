"""Planning costs as many steps as there are distinct shapes and states, whatever the number of tasks."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import FrameType

from tests.unit.planner.world import World, demand, kind, policy

SHAPES = 10


def busy_world(tasks: int, nodes: int) -> World:
    """Return `nodes` nodes in five different states, and `tasks` waiting in ten shapes."""
    kinds = policy(*(kind(f"t{n}", 4 * (n + 1), max_workers=50) for n in range(5)), max_workers=200)
    world = World(policy=kinds)
    for index in range(nodes):
        world.running(f"t{index % 5}", used={"CPU": 1 + index % 4})
    world.demands = tuple(demand(tasks // SHAPES, CPU=0.5 * (n + 1)) for n in range(SHAPES))
    return world


def calls_of(action: Callable[[], object]) -> int:
    """Count the Python functions that the planner enters: a measure that no busy machine can spoil."""
    count = 0

    def entered(frame: FrameType, event: str, _arg: object) -> None:
        nonlocal count
        count += event == "call" and "heliostat" in frame.f_code.co_filename

    before = sys.getprofile()
    sys.setprofile(entered)
    try:
        action()
    finally:
        sys.setprofile(before)
    return count


def test_five_thousand_tasks_over_fifty_nodes() -> None:
    world = busy_world(5_000, 50)
    world.round()
    # A call costs a small part of a microsecond to one: this stays far below 50 ms.
    assert calls_of(world.round) < 60_000


def test_a_hundred_times_the_tasks_cost_no_more_when_the_nodes_are_the_same() -> None:
    small, large = busy_world(1_000, 50), busy_world(100_000, 50)
    for one in (small, large):
        one.policy = policy(*(kind(f"t{n}", 4 * (n + 1), max_workers=0) for n in range(5)))
        one.round()
    assert calls_of(large.round) <= calls_of(small.round) * 1.1


def test_twice_the_nodes_in_the_same_states_are_not_twice_the_spots() -> None:
    from heliostat.planner.scene import look
    from heliostat.planner.supply import room
    from heliostat.planner.wants import wants_of

    def spots(nodes: int) -> int:
        world = busy_world(5_000, nodes)
        world.round()
        scene = look(world.snapshot(), world.history, world.policy)
        assert scene is not None
        return len(room(scene, wants_of(scene).lens))

    assert spots(40) == spots(200) == 20
