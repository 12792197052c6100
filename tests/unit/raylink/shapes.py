"""Instances, node types and rounds, built short."""

from __future__ import annotations

from heliostat.model.instance import (
    BackendInstance,
    BackendState,
    Instance,
    InstanceIntent,
    InstanceState,
    Intent,
)
from heliostat.model.node_type import NodeType
from heliostat.model.plan import Plan
from heliostat.model.resources import Resources
from heliostat.ports.cluster import RoundReport


def node_type(
    name: str, units: dict[str, float], *, most: int = 4, labels: dict[str, str] | None = None
) -> NodeType:
    return NodeType(
        name=name,
        backend="local",
        resources=Resources.of(units),
        shape_id="s",
        max_workers=most,
        labels=labels or {},
    )


def instance(
    instance_id: str, state: InstanceState, *, row: BackendState | None = None, detail: str | None = None
) -> Instance:
    intent = InstanceIntent(
        instance_id=instance_id,
        launch_id=instance_id.partition(".")[0],
        node_type="small",
        backend="local",
        shape_id="s",
        intent=Intent.WANTED,
        requested_at_s=5.0,
        reason="demand",
    )
    listed = row and BackendInstance(
        instance_id=instance_id, native_id=f"n-{instance_id}", node_type="small", state=row, detail=detail
    )
    return Instance(intent, state, listed)


def quiet(*instances: Instance) -> RoundReport:
    return RoundReport(plan=Plan(), instances=instances)
