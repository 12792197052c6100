"""The world as it is seen in one round: the planner's only input besides history and policy."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

from heliostat.model.demand import Constraint, Demand, Gang
from heliostat.model.host_time import HostTime
from heliostat.model.instance import (
    MEMBER,
    BackendInstance,
    BackendState,
    Instance,
    InstanceIntent,
    InstanceState,
    Intent,
    NodeStatus,
    Offer,
    RayNode,
)
from heliostat.model.plan import Why
from heliostat.model.rejection import Answer
from heliostat.model.states import derive

_OVER = frozenset({BackendState.ENDED, BackendState.FAILED})
_LEAVING = _OVER | {BackendState.STOPPING}
_FURTHEST_UP = (
    BackendState.RUNNING,
    BackendState.STARTING,
    BackendState.STOPPING,
    BackendState.QUEUED,
    BackendState.UNKNOWN,
    BackendState.FAILED,
    BackendState.ENDED,
    BackendState.ABSENT,
)
_COMING_OR_UP = frozenset({BackendState.QUEUED, BackendState.STARTING, BackendState.RUNNING})


@dataclass(frozen=True)
class RayState:
    """What the GCS reports. `version` is Ray's own state version; `session_name` its session."""

    version: int
    session_name: str
    nodes: tuple[RayNode, ...] = ()
    demands: tuple[Demand, ...] = ()
    gangs: tuple[Gang, ...] = ()
    constraint: Constraint | None = None


@dataclass(frozen=True)
class BackendView:
    """The last listing of one backend. `fresh` is False where the last call failed.

    Rows of a view that is not fresh are the last good ones: nothing may be terminated or
    relaunched because a row is missing from them. `listed_at_s` is when the listing began.
    `answers` came of launches since the last round. `under_way`: it is not fresh only because the
    last change has not been answered for long; who is listed as coming or up is so. `asking` are the
    instances that it is being asked for just now: that it does not list them yet says nothing. `unseen`
    came, or were asked for, so lately that one which lags may lack them though they are there.
    """

    rows: tuple[BackendInstance, ...] = ()
    listed_at_s: float = 0.0
    fresh: bool = False
    error: str | None = None
    offers: tuple[Offer, ...] = ()
    answers: tuple[Answer, ...] = ()
    under_way: bool = False
    asking: frozenset[str] = frozenset()
    unseen: frozenset[str] = frozenset()

    @cached_property
    def ids(self) -> frozenset[str]:
        """Return the ids of the instances that are listed; of one listing they are read once."""
        return frozenset(row.instance_id for row in self.rows)


@dataclass(frozen=True)
class OperatorSettings:
    """What people asked for by hand; kept in the journal until they take it back.

    `floors` is a minimum per node type on top of the file (`add` raises it). `removals`
    maps an instance id to the Unix time by which it must be gone, or None for «when idle».
    `added` are those of the `protected` that `add` has brought.
    """

    floors: Mapping[str, int] = field(default_factory=dict)
    protected: frozenset[str] = frozenset()
    removals: Mapping[str, float | None] = field(default_factory=dict)
    paused: bool = False
    added: frozenset[str] = frozenset()

    def unprotected(self, instance_ids: Collection[str]) -> OperatorSettings:
        """Return the settings under which nothing keeps these instances by hand."""
        return replace(
            self,
            protected=self.protected.difference(instance_ids),
            added=self.added.difference(instance_ids),
        )

    def without(self, instance_ids: Collection[str]) -> OperatorSettings:
        """Return what is left of it when these instances are no more."""
        removals = {key: until for key, until in self.removals.items() if key not in instance_ids}
        return replace(self.unprotected(instance_ids), removals=removals)


@dataclass(frozen=True)
class Snapshot:
    """One round's observation. `ray` None means the GCS did not answer: unknown, not empty.

    `drains` says why Ray was asked to drain instances, as far as that is remembered; `refused` are those
    of which it said no. Local time on the head's host is `utc_offset_s` ahead of `now_s`; `host` says how
    its clock stands to `now_s`. `asked` is how many more of each type Ray's autoscaler asks for just now,
    where that decides.
    """

    now_s: float
    ray: RayState | None
    backends: Mapping[str, BackendView]
    intents: tuple[InstanceIntent, ...] = ()
    operator: OperatorSettings = field(default_factory=OperatorSettings)
    drains: Mapping[str, Why] = field(default_factory=dict)
    refused: frozenset[str] = frozenset()
    utc_offset_s: float = 0.0
    host: HostTime | None = None
    asked: Mapping[str, int] = field(default_factory=dict)

    @cached_property
    def instances(self) -> tuple[Instance, ...]:
        """Return what `join` makes of it, by instance id; joined once, whoever asks."""
        return tuple(sorted(join(self), key=lambda one: one.intent.instance_id))

    @cached_property
    def by_state(self) -> Mapping[InstanceState, tuple[Instance, ...]]:
        """Return the instances by state, by instance id within each."""
        found: dict[InstanceState, list[Instance]] = {state: [] for state in InstanceState}
        for one in self.instances:
            found[one.state].append(one)
        return {state: tuple(several) for state, several in found.items()}

    @cached_property
    def counts(self) -> Mapping[InstanceState, Counter[str]]:
        """Count per state the instances of each node type."""
        return {
            state: Counter([one.intent.node_type for one in several])
            for state, several in self.by_state.items()
        }

    @cached_property
    def leased(self) -> tuple[Instance, ...]:
        """Return the instances whose backend names an end."""
        return tuple([one for one in self.instances if one.row and one.row.expires_at_s is not None])


def join(snapshot: Snapshot) -> tuple[Instance, ...]:
    """Join intents, backends' rows and Ray's nodes into instances, in the intents' order.

    Ray lists the dead for a while: of several nodes with one instance id a living one counts, of several
    living ones the one with the smallest node id. Of several rows the one that is furthest up counts.
    """
    rows = _rows_by_instance(snapshot)
    nodes = _nodes_by_instance(snapshot.ray)
    return tuple(
        _joined(intent, snapshot, rows.get(intent.instance_id), nodes.get(intent.instance_id))
        for intent in snapshot.intents
    )


def _rows_by_instance(snapshot: Snapshot) -> dict[str, BackendInstance]:
    every = [row for view in snapshot.backends.values() for row in view.rows]
    found = {row.instance_id: row for row in every}
    if len(found) < len(every):
        # The last one stays.
        for row in sorted(every, key=_behind, reverse=True):
            found[row.instance_id] = row
    return found


def _behind(row: BackendInstance) -> tuple[int, str]:
    return _FURTHEST_UP.index(row.state), row.native_id


def _nodes_by_instance(ray: RayState | None) -> dict[str, RayNode]:
    found: dict[str, RayNode] = {}
    for node in ray.nodes if ray else ():
        known = found.get(node.instance_id)
        if node.instance_id and (known is None or _standing(node) < _standing(known)):
            found[node.instance_id] = node
    return found


def _standing(node: RayNode) -> tuple[bool, str]:
    return node.status is NodeStatus.DEAD, node.node_id


def _joined(
    intent: InstanceIntent,
    snapshot: Snapshot,
    row: BackendInstance | None,
    node: RayNode | None,
) -> Instance:
    view = snapshot.backends.get(intent.backend)
    if _lives_on(intent, view, row, node):
        # What was no supply is none because its backend says nothing new.
        backend_state = BackendState.STOPPING
    elif view is not None and view.under_way:
        backend_state = _meanwhile(intent, row, node)
    else:
        backend_state = _backend_state(intent, view, row, node)
    node_status = node.status if node else (NodeStatus.NONE if snapshot.ray else NodeStatus.UNKNOWN)
    return Instance(intent, derive(intent.intent, backend_state, node_status), row, node)


def _lives_on(
    intent: InstanceIntent, view: BackendView | None, row: BackendInstance | None, node: RayNode | None
) -> bool:
    """Say whether Ray shows a node alive that its backend, when last heard, called ending or over."""
    wanted = intent.intent is Intent.WANTED and view is not None and not view.fresh
    said = row is not None and row.state in _LEAVING
    return wanted and said and node is not None and node.status in MEMBER


def _meanwhile(intent: InstanceIntent, row: BackendInstance | None, node: RayNode | None) -> BackendState:
    """Return what is known while a change is under way: who is coming or up is, of nobody that it is over."""
    if row is not None:
        return row.state if row.state in _COMING_OR_UP else BackendState.UNKNOWN
    asked_for = intent.intent is Intent.WANTED and node is None
    return BackendState.ABSENT if asked_for else BackendState.UNKNOWN


def _backend_state(
    intent: InstanceIntent, view: BackendView | None, row: BackendInstance | None, node: RayNode | None
) -> BackendState:
    if view is None:
        return BackendState.UNKNOWN
    if not view.fresh:
        # What its backend has called over does not come back to life because it says nothing more. What it
        # has refused may have come all the same.
        said = row.state if row is not None and row.rejection is None else BackendState.UNKNOWN
        return said if intent.intent is Intent.WANTED and said in _OVER else BackendState.UNKNOWN
    if row is not None:
        return row.state
    # A listing that began before the release can't tell that the instance has gone, nor can one that may
    # not even show that it came.
    too_early = intent.released_at_s is not None and view.listed_at_s <= intent.released_at_s
    left = intent.intent is Intent.RELEASED or (node is not None and node.status is NodeStatus.DEAD)
    if too_early or (left and intent.instance_id in view.unseen):
        return BackendState.UNKNOWN
    return BackendState.ABSENT
