"""`max_surge`: how many workers may be there above a maximum while others end, and who is replaced first."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from heliostat.model.instance import ALIVE, Instance, InstanceState, NodeStatus

if TYPE_CHECKING:
    # The scene holds these counts, so that they are made once a round.
    from heliostat.planner.scene import Scene


_GOING = (InstanceState.DRAINING, InstanceState.STOPPING)


def surge(scene: Scene, node_type: str | None = None) -> int:
    """Return how many above `max_workers` of the type (None: of the cluster) may be there now.

    Never more than `max_surge`, and never more than there are instances that end: a lease that is
    nearly over, or a shape that the file no longer has. So the maximum holds again when they are gone.
    """
    if scene.policy.max_surge <= 0:
        return 0
    ends = scene.ending.total() if node_type is None else scene.ending[node_type]
    return min(scene.policy.max_surge, ends)


def ending_counts(scene: Scene) -> Counter[str]:
    """Count per type what is not yet gone and will end: by its lease, or because it has drifted.

    What a person protects does not leave because it has drifted.
    """
    alive = (one for one in scene.instances if one.state in ALIVE)
    return Counter(one.node_type for one in alive if scene.expiring(one) or _outdated(scene, one))


def _outdated(scene: Scene, instance: Instance) -> bool:
    return scene.drifted(instance) and not scene.protected(instance)


def retiring(scene: Scene) -> frozenset[str]:
    """Return the running nodes of an old shape whose replacement comes before they go.

    Floors and `request_resources` do not count them, so that the new shape is launched beside
    them; at most `max_surge` of a type at a time, those on their way out among them, and idle ones
    first. With `max_surge` 0 it is none: an old node goes first, and then the new one comes.
    """
    if scene.policy.max_surge <= 0:
        return frozenset()
    drifted = [one for one in scene.running if _outdated(scene, one) and not scene.leaving(one)]
    chosen: set[str] = set()
    counts = Counter(one.node_type for one in scene.in_states(*_GOING) if scene.drifted(one))
    for one in sorted(drifted, key=lambda one: _longest_idle(scene, one)):
        if counts[one.node_type] < scene.policy.max_surge:
            counts[one.node_type] += 1
            chosen.add(one.instance_id)
    return frozenset(chosen)


def _longest_idle(scene: Scene, instance: Instance) -> tuple[bool, float, str]:
    node = instance.node
    idle = node is not None and node.status is NodeStatus.IDLE
    since_s = scene.history.idle_since.get(node.node_id, scene.now_s) if node else scene.now_s
    return (not idle, since_s, instance.instance_id)
