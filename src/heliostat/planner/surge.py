"""`max_surge`: how many workers may be there above a maximum while others end, and who is replaced first."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from math import inf
from typing import Protocol

from heliostat.model.instance import Instance, NodeStatus
from heliostat.model.node_type import Policy


class Ends(Protocol):
    """What these rules know of a scene: `ending` counts per type what is not yet gone and will end."""

    @property
    def policy(self) -> Policy: ...

    @property
    def ending(self) -> Counter[str]: ...


def surge(scene: Ends, node_type: str | None = None) -> int:
    """Return how many above `max_workers` of the type (None: of the cluster) may be there now.

    Never more than `max_surge`, and never more than there are instances that end: a lease that is
    nearly over, or a shape that the file no longer has. So the maximum holds again when they are gone.
    """
    if scene.policy.max_surge <= 0:
        return 0
    ends = scene.ending.total() if node_type is None else scene.ending[node_type]
    return min(scene.policy.max_surge, ends)


def retiring(
    outdated: Iterable[Instance], *, going: Counter[str], max_surge: int, idle_since: Mapping[str, float]
) -> frozenset[str]:
    """Return those of the running nodes of an old shape (`outdated`) whose replacement comes before they go.

    Floors and `request_resources` do not count them, so that the new shape is launched beside
    them; at most `max_surge` of a type at a time, those on their way out (`going`) among them, and idle
    ones first. With `max_surge` 0 it is none: an old node goes first, and then the new one comes.
    """

    def longest_idle(one: Instance) -> tuple[bool, float, str]:
        idle = one.node is not None and one.node.status is NodeStatus.IDLE
        since_s = idle_since.get(one.node.node_id, inf) if one.node else inf
        return (not idle, since_s, one.instance_id)

    chosen: set[str] = set()
    counts = Counter(going)
    for one in sorted(outdated, key=longest_idle):
        if counts[one.node_type] < max_surge:
            counts[one.node_type] += 1
            chosen.add(one.instance_id)
    return frozenset(chosen)
