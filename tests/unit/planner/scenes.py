"""Scenes of a small world, for tests of what is decided before anything is packed."""

from __future__ import annotations

from dataclasses import replace

from heliostat.model.node_type import NodeType, Policy
from heliostat.planner.scene import Scene, look
from tests.unit.planner.world import World


def scene_of(world: World, *, round_first: bool = True) -> Scene:
    """Return the scene after one more round of observation."""
    if round_first:
        world.round()
    scene = look(world.snapshot(), world.history, world.policy)
    assert scene is not None
    return scene


def apply(world: World, changed: Policy) -> None:
    """Let a changed file count, as `heliostat apply` does; its types are known to work."""
    world.policy = changed
    shapes = {one.name: one.shape_id for one in changed.node_types}
    world.history = replace(world.history, proven=shapes)


def newer(node_type: NodeType) -> NodeType:
    """Return the same type in another shape."""
    return replace(node_type, shape_id=f"{node_type.shape_id}-new")
