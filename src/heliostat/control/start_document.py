"""What a worker is told at its start: the bootstrap's start document (docs/bootstrap.md). Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

from heliostat.control.wiring import Identity
from heliostat.model.gcs_storage import RECONNECT_VARIABLE
from heliostat.model.history import History
from heliostat.model.instance import LaunchRequest
from heliostat.model.node_type import ClusterSpec, NodeType
from heliostat.model.plan import Launch, Why
from heliostat.planner.limits import FIRST_TRY


def as_planned(request: LaunchRequest, action: Launch, history: History) -> LaunchRequest:
    """Return the ask with how the plan means it: whole, or the first few alone of an unproven shape."""
    if action.reason.why is Why.GANG and action.count > 1:
        return replace(request, together=True)
    node_type = request.node_type
    untried = node_type.throttles and not history.has_come_up(node_type.name, node_type.shape_id)
    return replace(request, at_once=FIRST_TRY) if untried else request


def launch_request(
    launch_id: str, count: int, *, node_type: NodeType, spec: ClusterSpec, identity: Identity, session: str
) -> LaunchRequest:
    """Return the ask for `count` instances; it holds nothing secret and no instance id."""
    return LaunchRequest(
        launch_id=launch_id,
        node_type=node_type,
        count=count,
        start=start_document(node_type, spec=spec, identity=identity, session=session),
        environment={
            **_patience_with_head(spec),
            **spec.environment,
            **_strings(node_type.options.get("environment")),
        },
    )


def start_document(
    node_type: NodeType, *, spec: ClusterSpec, identity: Identity, session: str
) -> dict[str, object]:
    """Return the document without what only the provider knows (`instance_id`, paths of its own)."""
    return {
        "cluster_name": identity.cluster_name,
        "cluster_uid": identity.cluster_uid,
        "session_name": session,
        "gcs_address": identity.address,
        "ray_version": identity.ray_version,
        "python_version": identity.python_version,
        "node_type": node_type.name,
        "resources": node_type.resources.units(),
        "labels": dict(node_type.labels),
        "orphan_timeout_s": spec.orphan_timeout_s,
        "log_monitor": node_type.options.get("log_monitor", True),
        "ray_args": node_type.options.get("ray_args", []),
        **({"setup": setup} if (setup := node_type.setup.document()) else {}),
    }


def _patience_with_head(spec: ClusterSpec) -> Mapping[str, str]:
    """Return what makes Ray on a worker wait for a head that comes back as long as the controller does."""
    if spec.gcs_storage is None:
        return {}
    return {RECONNECT_VARIABLE: str(math.ceil(spec.head_timeout_s))}


def _strings(value: object) -> Mapping[str, str]:
    return {str(k): str(v) for k, v in value.items()} if isinstance(value, Mapping) else {}
