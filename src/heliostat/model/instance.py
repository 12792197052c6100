"""Launches, instances, Ray's nodes and a backend's rows, and the table that joins them.

We keep intents only. An instance's state is derived, each round, from (intent, the
backend's row, Ray's node) by `STATES`; nothing else decides it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from heliostat.model.node_type import NodeType
from heliostat.model.rejection import Rejection
from heliostat.model.resources import NOTHING, Resources

HEAD_INSTANCE_ID = "head"
"""The head's, as Ray shows it: no launch's member has such an id."""


class Intent(Enum):
    WANTED = "wanted"
    RELEASED = "released"


class BackendState(Enum):
    """What a backend says of an instance. ABSENT: a fresh listing has no row of it.

    UNKNOWN: the backend did not answer, so nothing may be concluded.
    """

    QUEUED = "queued"
    STARTING = "starting"
    RUNNING = "running"
    STOPPING = "stopping"
    ENDED = "ended"
    FAILED = "failed"
    ABSENT = "absent"
    UNKNOWN = "unknown"


class NodeStatus(Enum):
    """Ray's word for a node. NONE: Ray has never shown one. UNKNOWN: the GCS did not answer."""

    NONE = "none"
    RUNNING = "running"
    IDLE = "idle"
    DRAINING = "draining"
    DEAD = "dead"
    UNKNOWN = "unknown"


MEMBER = frozenset({NodeStatus.RUNNING, NodeStatus.IDLE, NodeStatus.DRAINING})
"""A node of which Ray says so is there, and may have work."""


class InstanceState(Enum):
    REQUESTED = "requested"
    QUEUED = "queued"
    STARTING = "starting"
    RUNNING = "running"
    DRAINING = "draining"
    STOPPING = "stopping"
    GONE = "gone"
    FAILED = "failed"
    UNKNOWN = "unknown"


ALIVE = frozenset(InstanceState) - {InstanceState.GONE, InstanceState.FAILED}
"""States that count against every maximum: everything not yet gone."""

GOING = frozenset({InstanceState.DRAINING, InstanceState.STOPPING})
"""States of what is not yet gone and on its way out: it is no supply any more."""

ON_THE_WAY = frozenset({InstanceState.REQUESTED, InstanceState.QUEUED, InstanceState.STARTING})


class Role(Enum):
    WORKER = "worker"
    HEAD = "head"


class DrainReason(Enum):
    """Ray's two reasons. IDLE may be refused by Ray, and its refusal stands."""

    IDLE = "IDLE_TERMINATION"
    PREEMPTION = "PREEMPTION"


@dataclass(frozen=True)
class InstanceIntent:
    """What the journal holds of one instance.

    Written before the provider is asked; `released_at_s` and `release_reason` are set
    when it is given up, and the record stays as a tombstone until the instance has been
    absent from fresh listings long enough.
    """

    instance_id: str
    launch_id: str
    node_type: str
    backend: str
    shape_id: str
    intent: Intent
    requested_at_s: float
    reason: str
    released_at_s: float | None = None
    release_reason: str | None = None
    adopted: bool = False


@dataclass(frozen=True)
class BackendInstance:
    """One row of a provider's listing: an instance of ours, as the backend sees it.

    `detail` is the backend's own words (a queue's reason, an exit status). `slot` names
    what it holds in words for people ("GPU 1"). Times are Unix seconds. `notice_s` is how long
    before `expires_at_s` work on it is to be told (None: as long as the planner thinks right).
    `throttled`: the backend holds it back behind the first of its launch (`Change.unthrottle`).
    `rejection`: it never came to be, the backend did not accept it.
    """

    instance_id: str
    native_id: str
    node_type: str
    state: BackendState
    shape_id: str = ""
    allocation_id: str | None = None
    host: str | None = None
    detail: str | None = None
    slot: str | None = None
    expected_start_s: float | None = None
    started_at_s: float | None = None
    expires_at_s: float | None = None
    notice_s: float | None = None
    throttled: bool = False
    rejection: Rejection | None = None


@dataclass(frozen=True)
class RayNode:
    """A member of the Ray cluster. `instance_id` is empty for a foreign node.

    `idle_s` is Ray's own count. `activity` is Ray's words for what keeps it busy.
    """

    node_id: str
    status: NodeStatus
    total: Resources
    available: Resources
    instance_id: str = ""
    node_type: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    idle_s: float = 0.0
    ip: str = ""
    activity: tuple[str, ...] = ()
    is_head: bool = False


@dataclass(frozen=True)
class Instance:
    """One member of a launch, joined from all sources; `state` comes from `STATES`.

    `node` is the Ray member on it, if Ray has shown one; `row` the backend's row, if the
    last good listing has one.
    """

    intent: InstanceIntent
    state: InstanceState
    row: BackendInstance | None = None
    node: RayNode | None = None

    @property
    def instance_id(self) -> str:
        return self.intent.instance_id

    @property
    def node_type(self) -> str:
        return self.intent.node_type

    @property
    def available(self) -> Resources:
        return self.node.available if self.node else NOTHING

    @property
    def display_name(self) -> str:
        """The name people use: the backend's own (`w1`, a job id) once known, else the instance id."""
        return self.row.native_id if self.row else self.instance_id


@dataclass(frozen=True)
class OfferQuery:
    """Ask what could be had of `node_type`, up to `count`."""

    node_type: NodeType
    count: int


@dataclass(frozen=True)
class Offer:
    """What a provider could give of a type now.

    `count` None means no known limit. `ready_at_s` None means not known. `why` is set
    where `count` is less than was asked: the words shown to people.
    """

    node_type: str
    count: int | None = None
    ready_at_s: float | None = None
    price_usd_per_h: float | None = None
    lease_s: float | None = None
    why: str | None = None


@dataclass(frozen=True)
class LaunchRequest:
    """One journalled ask for `count` instances of a type. Idempotent by `launch_id`.

    `start` is the bootstrap's start document (docs/bootstrap.md) without `instance_id`,
    which the provider adds for each member. Nothing in it is secret. `environment` is
    added to the worker's environment. `together`: a gang's, of use only when all are there, so
    a backend that can makes them one allocation. `at_once`: of a type that never came up, a backend
    that throttles (`NodeType.throttles`) lets so many run until it is told to let the others go.
    """

    launch_id: str
    node_type: NodeType
    count: int
    start: Mapping[str, object]
    role: Role = Role.WORKER
    environment: Mapping[str, str] = field(default_factory=dict)
    together: bool = False
    at_once: int | None = None

    @property
    def instance_ids(self) -> tuple[str, ...]:
        return tuple(f"{self.launch_id}.{index}" for index in range(self.count))


@dataclass(frozen=True)
class Change:
    """What one provider shall do in one go: launches, and instance ids to terminate.

    `unthrottle` names node types that have come up: what was held back of them may go.
    """

    launch: tuple[LaunchRequest, ...] = ()
    terminate: tuple[str, ...] = ()
    unthrottle: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.launch or self.terminate or self.unthrottle)

    def merged(self, later: Change) -> Change:
        """Return both in one, what is named twice once."""
        return Change(
            self.launch + later.launch,
            tuple(dict.fromkeys((*self.terminate, *later.terminate))),
            tuple(dict.fromkeys((*self.unthrottle, *later.unthrottle))),
        )
