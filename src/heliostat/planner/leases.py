"""Leases: when a node takes no more planned work, when its work is told, by when it must have left.

Pure arithmetic on what the backend says of the end (`expires_at_s`) and what was observed.
"""

from __future__ import annotations

from dataclasses import dataclass

from heliostat.model.history import History
from heliostat.model.instance import Instance
from heliostat.planner.limits import (
    LEASE_GRACE_S,
    LEASE_MARGIN_S,
    LEASE_NEAR_S,
    LEASE_NOTICE_S,
    LEASE_SHARE,
)


@dataclass(frozen=True)
class Lease:
    """The end of one instance's time, in Unix seconds.

    near_at_s    from then on it is no supply: what replaces it is planned, to be there in time
    notice_at_s  from then on work on it is told that it must go
    deadline_s   by then it must have left; what is still there is released, a little before the
                 backend would take it unasked
    """

    expires_at_s: float
    near_at_s: float
    notice_at_s: float
    deadline_s: float


def lease_of(instance: Instance, history: History) -> Lease | None:
    """Return the instance's lease; None if it has no end that is known.

    A lease that is shorter than twice a span of ours is given half of it: otherwise a node
    could be as good as gone when it comes, and be replaced for ever. What has not joined yet
    is near nothing but its very end.
    """
    row = instance.row
    if row is None or row.expires_at_s is None:
        return None
    expires_s = row.expires_at_s
    joined_s = history.joined_at.get(instance.instance_id)
    if joined_s is None:
        return Lease(expires_s, expires_s, expires_s, expires_s)
    most_s = max(0.0, expires_s - joined_s) * LEASE_SHARE
    near_s = min(_ahead_s(instance.node_type, history), most_s)
    notice_s = min(LEASE_NOTICE_S if row.notice_s is None else row.notice_s, most_s)
    grace_s = min(LEASE_GRACE_S, notice_s * LEASE_SHARE)
    return Lease(expires_s, expires_s - near_s, expires_s - notice_s, expires_s - grace_s)


def is_over(instance: Instance, history: History, now_s: float) -> bool:
    """Say whether the instance joined and had its time: that it is gone then is nobody's failure."""
    lease = lease_of(instance, history)
    joined = instance.instance_id in history.joined_at
    return lease is not None and joined and now_s >= lease.deadline_s


def _ahead_s(node_type: str, history: History) -> float:
    """Return how long before the end a replacement is asked for: the slowest start's time, and more."""
    slowest_s = max(history.start_s.get(node_type, ()), default=0.0)
    return max(LEASE_NEAR_S, slowest_s + LEASE_MARGIN_S)
