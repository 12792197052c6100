"""What the planner says: a target, this round's actions, and why, as data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import Enum

from heliostat.model.demand import Demand, Gang
from heliostat.model.instance import DrainReason


class Why(Enum):
    """Why an action is taken or an instance stays; `Reason.text` says the same in words."""

    DEMAND = "demand"
    GANG = "gang"
    CONSTRAINT = "constraint"
    MIN_WORKERS = "min_workers"
    ADDED_BY_HAND = "added by hand"
    REPLACEMENT = "replacement"
    IDLE = "idle"
    NOT_NEEDED = "not needed"
    OVER_MAX = "over max_workers"
    DRIFT = "drift"
    REMOVED_BY_HAND = "removed by hand"
    LEASE_ENDS = "lease ends"
    START_TIMEOUT = "start timeout"
    NODE_DIED = "node died"
    LOST = "lost"
    FAILED = "failed"
    DRAINED = "drained"
    BUSY = "busy"
    PROTECTED = "protected"
    IDLE_TIMEOUT = "idle timeout not reached"
    DOWN = "cluster goes down"
    RAY_ASKS = "Ray's autoscaler asks"
    RAY_RELEASES = "Ray's autoscaler releases"
    RAY_DECIDES = "Ray's autoscaler decides"


@dataclass(frozen=True)
class Reason:
    """A reason as data and in one sentence for people."""

    why: Why
    text: str
    data: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class Rival:
    """A node type that was not taken for what a launch is for. `why` is the first of these that holds:

    fit       no node of it holds some of that
    label     it lacks the labels for some of that
    max       `max_workers`, its own or the cluster's
    failure   it failed lately, or its backend does not answer
    price     the budget forbids it
    queue     its backend has none to give now
    label     its labels are a fallback only
    priority  its priority is lower
    fit       it has a GPU or the like that nobody asked for
    price     the same costs more on it
    queue     its backend gives it later
    fit       it is filled less well
    """

    node_type: str
    why: str
    text: str


@dataclass(frozen=True)
class Launch:
    """Ask for `count` instances of `node_type`; the caller gives the launch its id.

    `reason.data` holds `type`, `count`, `demands` (what it is for: text, resources, count) and
    `rivals` (at most two: type, why, text), for a gang also `gang` (its text) and `gang_id`, JSON-ready.
    """

    node_type: str
    count: int
    reason: Reason


@dataclass(frozen=True)
class Drain:
    """Ask Ray to stop giving work to a node. IDLE may be refused, and the refusal stands."""

    instance_id: str
    node_id: str
    drain_reason: DrainReason
    reason: Reason
    deadline_s: float | None = None


@dataclass(frozen=True)
class Release:
    """Give the instance back to its backend. Planned for a node that may hold work only where work was
    told a deadline, by hand or because the lease ends, and it is over."""

    instance_id: str
    reason: Reason


Action = Launch | Drain | Release


class Limiter(Enum):
    MAX_WORKERS = "max_workers"
    TYPE_MAX_WORKERS = "max_workers of the node type"
    UPSCALING_SPEED = "upscaling_speed"
    BUDGET = "max_cost_usd_per_h"
    BACKOFF = "backoff"
    BREAKER = "breaker"
    CAPACITY = "capacity"
    FIRST_SUCCESS = "first success"
    PAUSED = "paused"
    BACKEND_UNKNOWN = "backend unknown"


@dataclass(frozen=True)
class Deferred:
    """Wanted, but `limiter` holds it back now; `text` says it in words. `why` is what wants it: waiting
    work, a gang, `request_resources`, a floor, or work on nodes that end.

    The same as data: `nearest` is the node type that is held back, `most` what the limiter allows and
    `have` what counts against it, all that this plan launches included; None where it is no number.
    """

    wanted: Demand | Gang
    limiter: Limiter
    text: str
    why: Why = Why.DEMAND
    nearest: str = ""
    have: float | None = None
    most: float | None = None


@dataclass(frozen=True)
class Infeasible:
    """No node type can ever hold it; `text` says what is nearest and what lacks.

    The same as data: `nearest` is a node type, `lacks` maps a resource to (asked, there) in plain
    units, `labels` are the conditions on labels that the nearest type does not meet.
    """

    wanted: Demand | Gang
    text: str
    from_constraint: bool = False
    nearest: str = ""
    lacks: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    labels: tuple[str, ...] = ()


@dataclass(frozen=True)
class Plan:
    """`target` is how many of each type should be; `kept` why each idle or unneeded one stays."""

    target: Mapping[str, int] = field(default_factory=dict)
    actions: tuple[Action, ...] = ()
    deferred: tuple[Deferred, ...] = ()
    infeasible: tuple[Infeasible, ...] = ()
    kept: Mapping[str, Reason] = field(default_factory=dict)

    def without_launches(self) -> Plan:
        """Return the same plan, of which nothing can be launched."""
        return replace(self, actions=tuple(one for one in self.actions if not isinstance(one, Launch)))
