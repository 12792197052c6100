"""Which nodes may be drained that could stay: `max_draining`, and none of a type that is not well.

Lease ends and what people ask for are not voluntary: they neither wait nor count.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from heliostat.model.drain_limit import DrainLimit
from heliostat.model.instance import Instance, InstanceState
from heliostat.model.plan import Reason, Why
from heliostat.planner.health import ailing
from heliostat.planner.limits import DRAIN_COUNTS_S
from heliostat.planner.scene import Scene

_VOLUNTARY = {Why.IDLE: "idle", Why.DRIFT: "drift", Why.OVER_MAX: "over_max"}
_UNKNOWN = ""


class Disruption:
    """Counts what drains now, with what this round adds."""

    def __init__(self, scene: Scene) -> None:
        self._scene = scene
        self._ailing = ailing(scene)
        local_s = scene.now_s + scene.snapshot.utc_offset_s
        self._limits = [one for one in scene.policy.max_draining if one.holds_at(local_s)]
        going = list(self._going())
        self._by_reason = Counter(reason for _, reason in going)
        # What has left Ray and counts still was up a moment ago.
        left = sum(one.state is InstanceState.STOPPING for one, _ in going)
        counts = scene.snapshot.by_state
        self._up = len(counts[InstanceState.RUNNING]) + len(counts[InstanceState.DRAINING]) + left

    def held(self, node_type: str, reason: Reason) -> Reason | None:
        """Return why no node of the type may be drained for this reason now, None if one may."""
        why = _VOLUNTARY.get(reason.why)
        if why is None:
            return None
        if node_type in self._ailing:
            down, expected = self._ailing[node_type]
            text = f"{down} of {expected} {node_type} that should be up are not, so nothing else of it ends"
            return Reason(
                Why.IDLE, f"{reason.text}; {text}", {**reason.data, "down": down, "expected": expected}
            )
        tight = self._tightest(why)
        if tight is None or tight[1] > 0:
            return None
        limit, _ = tight
        most = limit.most(self._up)
        named = "max_draining" if limit.hours is None else f"max_draining, {limit}"
        text = f"{most} others drain first" if most else "none may drain now"
        return Reason(Why.IDLE, f"{reason.text}; {text} ({named})", {**reason.data, "max_draining": most})

    def goes(self, reason: Reason) -> None:
        """Count one that is drained in this round."""
        if reason.why in _VOLUNTARY:
            self._by_reason[_VOLUNTARY[reason.why]] += 1

    def _tightest(self, why: str) -> tuple[DrainLimit, int] | None:
        """Return the limit that leaves the least, and how many that is."""
        rooms = [(one, one.most(self._up) - self._count(one)) for one in self._limits if one.concerns(why)]
        return min(rooms, key=lambda each: each[1], default=None)

    def _count(self, limit: DrainLimit) -> int:
        return sum(count for reason, count in self._by_reason.items() if limit.concerns(reason))

    def _going(self) -> Iterator[tuple[Instance, str]]:
        """Return what drains because it could go, or has drained and is not gone yet, and why."""
        for one in self._scene.in_states(InstanceState.DRAINING, InstanceState.STOPPING):
            if one.state is InstanceState.STOPPING and not self._just_left(one):
                continue
            why = self._scene.snapshot.drains.get(one.instance_id)
            if why is None and not self._must_go(one):
                # Asked for before a restart, or by somebody else: it counts whatever the limit is for.
                yield one, _UNKNOWN
            elif why in _VOLUNTARY:
                yield one, _VOLUNTARY[why]

    def _just_left(self, one: Instance) -> bool:
        """Say whether it drained a moment ago. A backend that never ends it shall not block the others."""
        released_s = one.intent.released_at_s
        lately = released_s is None or self._scene.now_s - released_s < DRAIN_COUNTS_S
        return lately and one.instance_id in self._scene.history.drained

    def _must_go(self, one: Instance) -> bool:
        lease = self._scene.leases.get(one.instance_id)
        ends = lease is not None and self._scene.now_s >= lease.notice_at_s
        return ends or self._scene.removed(one)
