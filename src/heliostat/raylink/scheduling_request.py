"""What Ray's monitor asks its scheduler → a snapshot and a policy. Pure.

Ray's instance manager stands for the one backend there is: its instances are our intents and
the backend's rows. It times out and retries what it asked for by itself, so nothing here ever
looks lost, late or failed to the planner.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ray.core.generated import instance_manager_pb2

from heliostat.model.demand import Bundle, Gang
from heliostat.model.instance import (
    BackendInstance,
    BackendState,
    InstanceIntent,
    Intent,
    NodeStatus,
    RayNode,
)
from heliostat.model.node_type import NodeType, Policy
from heliostat.model.resources import IMPLICIT_RESOURCE, Resources
from heliostat.model.snapshot import BackendView, RayState, Snapshot
from heliostat.raylink import convert

pb: Any = instance_manager_pb2

BACKEND = "ray"
ENDLESS = 2**31
JUST_LONGER_S = 0.0005
"""Ray lets a node go that was idle for longer than its timeout, the planner one that was idle so long.
Ray counts in whole milliseconds, so half of one more makes them equal."""

NO_SHAPE = ""
"""Ray 2.60 has a field for the launch config that an instance came from, and never fills it."""

ROWS: Mapping[int, BackendState | None] = {
    pb.Instance.QUEUED: BackendState.QUEUED,
    pb.Instance.REQUESTED: None,
    pb.Instance.ALLOCATED: BackendState.STARTING,
    pb.Instance.RAY_INSTALLING: BackendState.STARTING,
    pb.Instance.RAY_RUNNING: BackendState.RUNNING,
    pb.Instance.RAY_STOP_REQUESTED: BackendState.RUNNING,
}
"""What counts in Ray, and as what; every other status counts for nothing, there and here.

Ray asks for at most a few REQUESTED at once and can't cancel them: asked for, not listed yet.
"""


@dataclass(frozen=True)
class Member:
    """A worker that may be let go: Ray's `Instance`, and its `NodeState` once it runs."""

    instance: Any
    node: Any | None = None

    @property
    def going(self) -> bool:
        return bool(self.instance.status == pb.Instance.RAY_STOP_REQUESTED)


@dataclass(frozen=True)
class Asked:
    """One `SchedulingRequest`, parsed once.

    `members` are the workers by their instance id in the snapshot. `fixed` are the nodes that
    are supply and never touched: the head, and what Ray's instance manager does not know.
    `requests` and `gangs` lead back to Ray's own messages.
    """

    request: Any
    snapshot: Snapshot
    policy: Policy
    members: Mapping[str, Member]
    fixed: tuple[Any, ...]
    requests: Mapping[Bundle, Any]
    gangs: Mapping[str, Any]

    @property
    def ray(self) -> RayState:
        assert self.snapshot.ray is not None
        return self.snapshot.ray

    @property
    def configs(self) -> Mapping[str, Any]:
        return node_type_configs(self.request)


def asked(request: Any, *, now_s: float) -> Asked:
    """Convert a `SchedulingRequest`."""
    crowd = _Crowd(request)
    implicit = _implicit(request)
    gangs = _gangs(request.gang_resource_requests)
    ray = RayState(
        version=0,
        session_name="",
        nodes=(*crowd.foreign_nodes(implicit), *crowd.member_nodes(implicit)),
        demands=convert.task_demands(request.resource_requests),
        gangs=tuple(gang for gang, _ in gangs),
        constraint=convert.constraint(request.cluster_resource_constraints),
    )
    return Asked(
        request=request,
        snapshot=crowd.snapshot(ray, now_s=now_s),
        policy=_policy(request, crowd, implicit),
        members=crowd.members,
        fixed=tuple(crowd.fixed),
        requests={convert.bundle(one.request): one.request for one in request.resource_requests},
        gangs={gang.gang_id: message for gang, message in gangs},
    )


def node_type_configs(request: Any) -> Mapping[str, Any]:
    """Return the configured types by name; Ray says None where it has none."""
    found: Mapping[str, Any] = request.node_type_configs or {}
    return found


class _Crowd:
    """Sorts Ray's instances into workers that may go, nodes that stay, and what counts for nothing."""

    def __init__(self, request: Any) -> None:
        self._configs = node_type_configs(request)
        self._checked = not request.disable_launch_config_check
        self.members: dict[str, Member] = {}
        self.fixed: list[Any] = []
        self.fixed_counts: Counter[str] = Counter()
        for index, one in enumerate(request.current_instances):
            self._sort(one, index)

    def _sort(self, one: Any, index: int) -> None:
        instance = one.im_instance
        node = one.ray_node if one.ray_node is not None and _lives(one.ray_node) else None
        if instance is None:
            if node is not None:
                self.fixed.append(node)
        elif instance.status not in ROWS:
            return
        elif instance.node_kind == pb.NodeKind.HEAD or self._is_out_of_reach(instance):
            self._keep(instance, node)
        elif instance.status != pb.Instance.RAY_RUNNING:
            self.members[instance.instance_id or f"#{index}"] = Member(instance)
        elif node is not None:
            self.members[instance.instance_id or f"#{index}"] = Member(instance, node)

    def _is_out_of_reach(self, instance: Any) -> bool:
        """Say whether it has a type that the configuration no longer has, and may stay nevertheless."""
        return not self._checked and instance.instance_type not in self._configs

    def _keep(self, instance: Any, node: Any | None) -> None:
        is_head = instance.node_kind == pb.NodeKind.HEAD
        if is_head or node is not None:
            self.fixed_counts[instance.instance_type] += 1
        if node is not None:
            self.fixed.append(node)

    def member_nodes(self, implicit: Sequence[str]) -> Iterable[RayNode]:
        for key, member in self.members.items():
            if member.node is not None:
                found = _node(member.node, implicit)
                name = member.instance.instance_type
                yield replace(found, node_id=found.node_id or key, instance_id=key, node_type=name)

    def foreign_nodes(self, implicit: Sequence[str]) -> Iterable[RayNode]:
        for index, state in enumerate(self.fixed):
            found = _node(state, implicit)
            # Without an id it is nobody's: the planner counts it and leaves it alone.
            yield replace(found, node_id=found.node_id or f"#fixed{index}", instance_id="")

    def snapshot(self, ray: RayState, *, now_s: float) -> Snapshot:
        rows = tuple(row for key, one in self.members.items() if (row := _row(key, one.instance)))
        # A listing from before every ask: what it lacks is not missing but on its way.
        view = BackendView(rows=rows, listed_at_s=0.0, fresh=True)
        intents = tuple(self._intent(key, one, now_s) for key, one in self.members.items())
        return Snapshot(now_s=now_s, ray=ray, backends={BACKEND: view}, intents=intents)

    def _intent(self, key: str, member: Member, now_s: float) -> InstanceIntent:
        instance = member.instance
        return InstanceIntent(
            instance_id=key,
            launch_id=instance.launch_request_id or key,
            node_type=instance.instance_type,
            backend=BACKEND,
            shape_id=self._shape(instance),
            intent=Intent.RELEASED if member.going else Intent.WANTED,
            requested_at_s=_since_s(instance),
            reason="asked for by Ray's instance manager",
            released_at_s=now_s if member.going else None,
        )

    def _shape(self, instance: Any) -> str:
        """Return what it was started from; where that is not told or not to be checked, as it should be."""
        config = self._configs.get(instance.instance_type)
        wanted = config.launch_config_hash if config else NO_SHAPE
        return (instance.launch_config_hash or wanted) if self._checked and wanted else wanted


def _lives(node: Any) -> bool:
    return convert.NODE_STATUS.get(node.status) is not NodeStatus.DEAD


def _node(state: Any, implicit: Sequence[str]) -> RayNode:
    """Convert a `NodeState` as Ray's scheduler reads it: its idle time alone says whether it is idle."""
    found = convert.ray_node(state)
    status = NodeStatus.IDLE if state.idle_duration_ms > 0 else NodeStatus.RUNNING
    return replace(
        found,
        status=found.status if found.status is NodeStatus.DRAINING else status,
        total=_with_implicit(found.total, state.total_resources, implicit),
        available=_with_implicit(found.available, state.available_resources, implicit),
    )


def _implicit(request: Any) -> tuple[str, ...]:
    """Return the resources asked for that every node has one of, whether it lists it or not."""
    messages = [one.request for one in request.resource_requests]
    messages += [one for gang in request.gang_resource_requests for one in gang.requests]
    messages += [
        one.request for all_ in request.cluster_resource_constraints for one in all_.resource_requests
    ]
    names = {name for one in messages for name in one.resources_bundle}
    return tuple(sorted(name for name in names if name.startswith(IMPLICIT_RESOURCE)))


def _with_implicit(known: Resources, listed: Mapping[str, float], implicit: Sequence[str]) -> Resources:
    missing = {name: 1 for name in implicit if name not in listed}
    return known.plus(Resources.of(missing)) if missing else known


def _row(key: str, instance: Any) -> BackendInstance | None:
    state = ROWS[instance.status]
    if state is None:
        return None
    native_id = instance.cloud_instance_id or key
    return BackendInstance(
        instance_id=key, native_id=native_id, node_type=instance.instance_type, state=state
    )


def _since_s(instance: Any) -> float:
    return min((one.timestamp_ns / 1e9 for one in instance.status_history), default=0.0)


def _gangs(messages: Iterable[Any]) -> list[tuple[Gang, Any]]:
    """Convert placement groups; one whose id is missing or comes twice gets one of its own."""
    found: dict[str, tuple[Gang, Any]] = {}
    for index, message in enumerate(messages):
        gang = convert.gang(message)
        if not gang.gang_id or gang.gang_id in found:
            gang = replace(gang, gang_id=f"#{index}")
        found[gang.gang_id] = (gang, message)
    return list(found.values())


def _policy(request: Any, crowd: _Crowd, implicit: Sequence[str]) -> Policy:
    """Return the limits for workers: what is fixed has its place already, in its type and in all.

    Ray's reconciler itself launches and drains a few at a time, so here nothing is held back.
    """
    configs = node_type_configs(request)
    ranks = _ranks(request)
    most = ENDLESS if request.max_num_nodes is None else request.max_num_nodes
    return Policy(
        node_types=tuple(
            _node_type(one, crowd.fixed_counts[one.name], implicit=implicit, priority=ranks[one.name])
            for one in configs.values()
        ),
        max_workers=max(0, most - crowd.fixed_counts.total()),
        idle_timeout_s=math.inf if request.idle_timeout_s is None else request.idle_timeout_s + JUST_LONGER_S,
        upscaling_speed=0.0,
        max_draining=(),
    )


def _node_type(config: Any, fixed: int, *, implicit: Sequence[str], priority: int) -> NodeType:
    return NodeType(
        name=config.name,
        backend=BACKEND,
        resources=_with_implicit(Resources.of(config.resources), config.resources, implicit),
        shape_id=config.launch_config_hash or NO_SHAPE,
        min_workers=max(0, config.min_worker_nodes - fixed),
        max_workers=max(0, config.max_worker_nodes - fixed),
        labels=dict(config.labels),
        idle_timeout_s=None if config.idle_timeout_s is None else config.idle_timeout_s + JUST_LONGER_S,
        start_timeout_s=math.inf,
        priority=priority,
    )


def _ranks(request: Any) -> dict[str, int]:
    """Return each type's priority; one that could not be had lately comes after all that could.

    The score that recovers with time is taken where Ray gives one: by the other, a type
    stays behind until it comes up, which it can't while others are preferred.
    """
    configs = node_type_configs(request)
    scores = request.cloud_resource_availabilities | request.recoverable_resource_availabilities
    keys = {one.name: (scores.get(one.name, 1.0), one.priority) for one in configs.values()}
    if all(score == 1.0 for score, _ in keys.values()):
        return {name: priority for name, (_, priority) in keys.items()}
    order = sorted(set(keys.values()))
    return {name: order.index(key) for name, key in keys.items()}
