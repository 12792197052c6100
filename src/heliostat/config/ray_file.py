"""The cluster file as Ray's own autoscaler reads it: written by us, read by Ray every round.

It names counts and shapes only. Launches are the controller's, so a node type's options are not in it,
and nothing in it lets Ray end a worker because they changed. JSON, which is YAML.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from heliostat.model.node_type import ClusterSpec, NodeType
from heliostat.model.resources import SCALE
from heliostat.ports.errors import HeliostatError

PROVIDER = "heliostat.launcher.workers.WorkerProvider"

ACCELERATOR_LABEL = "ray.io/accelerator-type"

EMPTY_KEYS: Mapping[str, object] = {
    "auth": {},
    "file_mounts": {},
    "cluster_synced_files": [],
    "file_mounts_sync_continuously": False,
    "rsync_exclude": [],
    "rsync_filter": [],
    "initialization_commands": [],
    "setup_commands": [],
    "head_setup_commands": [],
    "worker_setup_commands": [],
    "head_start_ray_commands": [],
    "worker_start_ray_commands": [],
}
"""What Ray wants to be there, and what the controller does in its place."""


def ray_form(spec: ClusterSpec, *, control_socket: str) -> dict[str, Any]:
    """Return the cluster as Ray's autoscaler has to see it; `spec` is completed by its backends."""
    types = {spec.head_type.name: _head_type(spec)}
    types |= {one.name: _node_type(one) for one in spec.policy.node_types}
    return {
        "cluster_name": spec.name,
        "max_workers": spec.policy.max_workers,
        "idle_timeout_minutes": spec.policy.idle_timeout_s / 60.0,
        "upscaling_speed": spec.policy.upscaling_speed,
        "provider": {
            "type": "external",
            "module": PROVIDER,
            "control_socket": control_socket,
            # What a worker needs is started with it; Ray would log in by ssh.
            "disable_node_updaters": True,
            # Ray would kill what has another shape, at work or not.
            "disable_launch_config_check": True,
            # Whether a node lives, its backend and the controller know.
            "worker_liveness_check": False,
            # Autoscaler v1 takes a node's address for its name, and several may have one.
            "use_node_id_as_ip": True,
        },
        "available_node_types": types,
        "head_node_type": spec.head_type.name,
        **EMPTY_KEYS,
    }


def write_ray_file(path: Path, spec: ClusterSpec, *, control_socket: str) -> None:
    """Replace the file in one step, mode 0600. Raises HeliostatError; the old one stays then."""
    text = json.dumps(ray_form(spec, control_socket=control_socket), indent=1) + "\n"
    try:
        # Made with mode 0600.
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
        os.replace(temporary, path)
    except OSError as error:
        raise HeliostatError(f"{path} can't be written: {error.strerror}") from error


def _head_type(spec: ClusterSpec) -> dict[str, Any]:
    return {"resources": _whole(spec.head_type), "node_config": {}, "min_workers": 0, "max_workers": 0}


def _node_type(one: NodeType) -> dict[str, Any]:
    found: dict[str, Any] = {
        "resources": _whole(one),
        "node_config": {},
        "min_workers": one.min_workers,
        "max_workers": one.max_workers,
    }
    # Older versions of Ray do not know all of these keys.
    found |= {"labels": dict(one.labels)} if one.labels else {}
    found |= {"idle_timeout_s": one.idle_timeout_s} if one.idle_timeout_s is not None else {}
    found |= {"priority": one.priority} if one.priority else {}
    return found


def _whole(one: NodeType) -> dict[str, int]:
    """Return the resources as Ray's schema wants them, with the one that Ray adds for an accelerator."""
    found = {name: amount // SCALE for name, amount in one.resources}
    accelerator = one.labels.get(ACCELERATOR_LABEL)
    return found | ({f"accelerator_type:{accelerator}": 1} if accelerator and found.get("GPU") else {})
