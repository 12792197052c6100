"""What a worker's process gets: its environment and its start document. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from heliostat.model.gateway import TOKEN_VARIABLE
from heliostat.model.instance import LaunchRequest
from heliostat.ports.errors import InvalidRequest
from heliostat.providers.local.options import LocalOptions
from heliostat.providers.local.processes import CLUSTER_TAG, INSTANCE_TAG

# What the head's or another cluster's process may have left in our environment: a worker
# that inherits it would join elsewhere, or claim resources that are not its own. The token is a gateway's.
NOT_INHERITED = re.compile(
    r"RAY_ADDRESS|RAY_OVERRIDE_\w+|RAY_CLOUD_INSTANCE_ID|RAY_NODE_TYPE_NAME|RAY_JOB_ID|RAY_NODE_ID"
    r"|RAY_RAYLET_PID|RAY_CLIENT_MODE|RAY_NAMESPACE|RAY_RUNTIME_ENV\w*|CUDA_VISIBLE_DEVICES"
    rf"|HELIOSTAT_INSTANCE_ID|HELIOSTAT_CLUSTER_UID|{TOKEN_VARIABLE}"
)


def visible_devices(gpus: Sequence[str]) -> dict[str, str]:
    """Return the variables that show a process these GPUs and no others.

    An empty value hides all of them. The order is nvidia-smi's, so that numbers mean the same.
    """
    return {"CUDA_VISIBLE_DEVICES": ",".join(gpus), "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}


def worker_environment(
    inherited: Mapping[str, str],
    request: LaunchRequest,
    *,
    instance_id: str,
    cluster_uid: str,
    gpus: Sequence[str],
) -> dict[str, str]:
    """Return the environment: inherited, the type's, the request's; our tags and GPUs win."""
    kept = {name: value for name, value in inherited.items() if not NOT_INHERITED.fullmatch(name)}
    return {
        **kept,
        **_environment_of(request.node_type.options),
        **request.environment,
        **visible_devices(gpus),
        "RAY_CLOUD_INSTANCE_ID": instance_id,
        "RAY_NODE_TYPE_NAME": request.node_type.name,
        CLUSTER_TAG: cluster_uid,
        INSTANCE_TAG: instance_id,
    }


def start_document(
    request: LaunchRequest, options: LocalOptions, *, instance_id: str, status_file: str
) -> dict[str, object]:
    """Return the bootstrap's start document, completed with what only this backend knows.

    `request.node_type` is complete: it has memory. What the document says itself stands.
    """
    given = request.start.get("resources")
    resources = {**request.node_type.resources.units(), **(given if isinstance(given, Mapping) else {})}
    chosen = {
        key: request.node_type.options[key]
        for key in ("log_monitor", "ray_args")
        if key in request.node_type.options
    }
    return {
        **request.start,
        **chosen,
        "instance_id": instance_id,
        "node_type": request.node_type.name,
        "resources": resources,
        "temp_root": options.temp_root,
        "port_range": list(options.port_range),
        "status_file": status_file,
    }


def _environment_of(options: Mapping[str, object]) -> dict[str, str]:
    given = options.get("environment") or {}
    if not isinstance(given, Mapping):
        raise InvalidRequest(f"environment is {given!r}; allowed: a mapping of names to values")
    return {str(name): str(value) for name, value in given.items()}
