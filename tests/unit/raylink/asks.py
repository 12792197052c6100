"""What Ray's monitor asks its scheduler, built short; and what the scheduler answered, in brief."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, fields
from itertools import count
from typing import Any

import pytest
from ray.autoscaler.v2.instance_manager.config import NodeTypeConfig
from ray.autoscaler.v2.scheduler import SchedulingRequest
from ray.autoscaler.v2.schema import AutoscalerInstance
from ray.core.generated import instance_manager_pb2

from heliostat.raylink.scheduler import HeliostatScheduler
from tests.unit.raylink.builders import counted, pb, request

im: Any = instance_manager_pb2
Status: Any = im.Instance
Cause: Any = im.TerminationRequest.Cause
HEAD: Any = im.NodeKind.HEAD
WORKER: Any = im.NodeKind.WORKER

NOW_S = 1_700_000_000.0

IS_RAY_2_60 = "pending_idle_timeout_s" in {one.name for one in fields(SchedulingRequest)}
"""Whether Ray's own scheduler is the one that ours is compared with: older ones choose other idle nodes."""

gives_pending_idle_timeout = pytest.mark.skipif(
    not IS_RAY_2_60, reason="this Ray's scheduler is not told pending_idle_timeout_s (2.60 and later are)"
)
Units = dict[str, float]


@dataclass
class Watch:
    """A clock that stands until a test moves it."""

    at_s: float = NOW_S

    def __call__(self) -> float:
        return self.at_s


def scheduler(watch: Callable[[], float] | None = None, event_logger: Any = None) -> HeliostatScheduler:
    numbers = count()
    return HeliostatScheduler(event_logger, now_s=watch or Watch(), new_id=lambda: f"id-{next(numbers)}")


def node_type(
    name: str,
    units: Units,
    *,
    least: int = 0,
    most: int = 10,
    labels: dict[str, str] | None = None,
    idle_timeout_s: float | None = None,
    priority: int = 0,
    shape: str = "",
) -> Any:
    return NodeTypeConfig(
        name=name,
        min_worker_nodes=least,
        max_worker_nodes=most,
        resources=units,
        labels=labels or {},
        idle_timeout_s=idle_timeout_s,
        priority=priority,
        launch_config_hash=shape,
    )


def pending(
    key: str, name: str, *, status: int = im.Instance.ALLOCATED, kind: int = WORKER, shape: str = ""
) -> Any:
    """An instance that has not joined Ray."""
    allocated = status not in {Status.QUEUED, Status.REQUESTED}
    made = im.Instance(
        instance_id=key, instance_type=name, status=status, node_kind=kind, launch_config_hash=shape
    )
    if allocated:
        made.cloud_instance_id = f"cloud-{key}"
    return AutoscalerInstance(im_instance=made, cloud_instance_id=made.cloud_instance_id or None)


def running(
    key: str,
    name: str,
    total: Units,
    free: Units | None = None,
    *,
    idle_s: float = 0.0,
    labels: dict[str, str] | None = None,
    marks: Sequence[str] = (),
    kind: int = WORKER,
    status: int = im.Instance.RAY_RUNNING,
    shape: str = "",
    node_status: int | None = None,
) -> Any:
    """An instance whose Ray node is up; `free` None means all of it, `marks` are its groups' labels."""
    node = node_state(key, name, total, total if free is None else free, idle_s=idle_s)
    node.labels.update(labels or {})
    node.dynamic_labels.update(dict.fromkeys(marks, ""))
    if node_status is not None:
        node.status = node_status
    made = im.Instance(
        instance_id=key,
        instance_type=name,
        status=status,
        node_kind=kind,
        cloud_instance_id=f"cloud-{key}",
        node_id=node.node_id.hex(),
        launch_config_hash=shape,
    )
    return AutoscalerInstance(im_instance=made, ray_node=node, cloud_instance_id=f"cloud-{key}")


def node_state(key: str, name: str, total: Units, free: Units, *, idle_s: float = 0.0) -> Any:
    return pb.NodeState(
        node_id=f"node-{key}".encode(),
        instance_id=f"cloud-{key}",
        ray_node_type_name=name,
        total_resources=total,
        available_resources=free,
        idle_duration_ms=int(idle_s * 1000),
        status=pb.NodeStatus.Value("IDLE" if idle_s else "RUNNING"),
    )


def unmanaged(key: str, total: Units) -> Any:
    """A node that Ray's instance manager does not know."""
    return AutoscalerInstance(ray_node=node_state(key, "", total, total), cloud_instance_id=f"cloud-{key}")


def head(units: Units | None = None, name: str = "head") -> Any:
    return running("head", name, units or {"CPU": 0}, kind=HEAD, idle_s=999.0)


def group(*bundles: Units, apart: bool = False, together: bool = False, name: str = "pg") -> Any:
    """A placement group, as Ray's own tests build it: without id and strategy in words."""
    return pb.GangResourceRequest(
        requests=[
            request(one, apart=name if apart else None, together=name if together else None)
            for one in bundles
        ]
    )


def ask(
    types: Iterable[Any],
    *,
    demand: Iterable[Units] = (),
    requests: Sequence[Any] = (),
    gangs: Sequence[Any] = (),
    keep: Iterable[Units] = (),
    instances: Sequence[Any] = (),
    checked: bool = False,
    **more: Any,
) -> Any:
    """A `SchedulingRequest`; `keep` is what `request_resources()` asked, `more` any other field."""
    kept = [counted(1, one) for one in keep]
    return SchedulingRequest(
        disable_launch_config_check=not checked,
        node_type_configs={one.name: one for one in types},
        resource_requests=[*(counted(1, one) for one in demand), *requests],
        gang_resource_requests=list(gangs),
        cluster_resource_constraints=[pb.ClusterResourceConstraint(resource_requests=kept)] if kept else [],
        current_instances=list(instances),
        **more,
    )


@dataclass(frozen=True)
class Brief:
    """A reply without what tests seldom look at. `gone` is instance id → the cause's name."""

    launch: Units = field(default_factory=dict)
    gone: dict[str, str] = field(default_factory=dict)
    unmet: int = 0
    gangs_unmet: int = 0
    keep_unmet: int = 0


def brief(reply: Any) -> Brief:
    return Brief(
        launch={one.instance_type: one.count for one in reply.to_launch},
        gone={one.instance_id: Cause.Name(one.cause) for one in reply.to_terminate},
        unmet=len(reply.infeasible_resource_requests),
        gangs_unmet=len(reply.infeasible_gang_resource_requests),
        keep_unmet=len(reply.infeasible_cluster_resource_constraints),
    )
