"""Every key of Ray's own schema, and what becomes of it: done, accepted without effect, or refused.

Nothing that Ray knows is passed over in silence: a test compares this table with the schema of the installed
Ray, and another one the page for users with this table.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

from heliostat.config.errors import KeyPath, found

TYPES = "available_node_types"


class Treatment(Enum):
    """REFUSED: as soon as it says something. NOTED: it is accepted, and said that it does nothing."""

    HONOURED = "done"
    NOTED = "no effect"
    REFUSED = "refused"


@dataclass(frozen=True)
class RayKey:
    """`words`: what is done, why it does nothing, or the reason of the refusal."""

    treatment: Treatment
    words: str


def _done(words: str) -> RayKey:
    return RayKey(Treatment.HONOURED, words)


def _refused(words: str) -> RayKey:
    return RayKey(Treatment.REFUSED, words)


NO_CONTAINER = (
    "Heliostat starts no Docker containers; on Slurm write node_config.container: {runtime: apptainer, "
    "image: …}, and leave this empty or out"
)
OWN_START = (
    "Heliostat starts Ray itself; give more options to `ray start` of workers in node_config.ray_args, "
    "what comes before in setup_commands, and leave this empty or out"
)
NO_LOGIN = "Heliostat logs in to no node by itself, so it has no effect"
CLOUDS = "it is for Ray's own cloud providers, and Heliostat would not do what it says; leave it out"

CLOUD_KEYS = (
    *("region", "availability_zone", "head_ip", "worker_ips", "use_internal_ips", "namespace", "location"),
    *("resource_group", "project_id", "security_group", "cache_stopped_nodes", "disable_node_updaters"),
    *("tags", "subscription_id", "msi_identity_id", "msi_identity_principal_id", "subnet_id"),
    *("autoscaler_service_account", "autoscaler_role", "autoscaler_role_binding"),
    *("gcp_credentials", "cloudwatch"),
)
AUTH_KEYS = (
    *("ssh_user", "ssh_public_key", "ssh_private_key", "ssh_proxy_command", "ssh_proxy_use_node_id"),
)

RAY_KEYS: Mapping[KeyPath, RayKey] = {
    ("cluster_name",): _done("names the cluster"),
    ("max_workers",): _done("limits all workers together"),
    ("upscaling_speed",): _done("limits what is on its way"),
    ("idle_timeout_minutes",): _done("idle workers go after it"),
    ("metadata",): _done("yours; nobody reads it"),
    ("head_node_type",): _done("the type of the head"),
    ("provider",): _done("see below"),
    ("provider", "type"): _done("only `external`"),
    ("provider", "module"): _done("read by `ray up`"),
    **{("provider", key): _refused(CLOUDS) for key in CLOUD_KEYS},
    ("auth",): RayKey(Treatment.NOTED, NO_LOGIN),
    ("docker",): _refused(NO_CONTAINER),
    ("file_mounts",): _done("copied before Ray starts, on the head's host and on each worker's"),
    ("cluster_synced_files",): _done("must be there on each host, on a file system that they share"),
    ("file_mounts_sync_continuously",): _done("workers copy again every 30 s what has changed"),
    ("rsync_exclude",): _done("left out of file_mounts"),
    ("rsync_filter",): _done("files that say what is left out of file_mounts"),
    ("initialization_commands",): _done("run first, on head and workers, outside of any container"),
    ("setup_commands",): _done("run next, on head and workers"),
    ("head_setup_commands",): _done("run after setup_commands on the head"),
    ("worker_setup_commands",): _done("run after setup_commands on workers"),
    ("head_start_ray_commands",): _refused(OWN_START),
    ("worker_start_ray_commands",): _refused(OWN_START),
    ("no_restart",): _refused("Ray sets it from `ray up --no-restart`, never from a file; leave it out"),
    (TYPES,): _done("see below"),
    (TYPES, "*", "resources"): _done("what a node has"),
    (TYPES, "*", "node_config"): _done("see below"),
    (TYPES, "*", "min_workers"): _done("kept running"),
    (TYPES, "*", "max_workers"): _done("limits the type"),
    (TYPES, "*", "idle_timeout_s"): _done("in place of idle_timeout_minutes"),
    (TYPES, "*", "priority"): _done("which type goes first"),
    (TYPES, "*", "labels"): _done("the node's labels"),
    (TYPES, "*", "initialization_commands"): _done("in place of the cluster's, for workers of the type"),
    (TYPES, "*", "worker_setup_commands"): _done(
        "in place of setup_commands and worker_setup_commands, for workers of the type"
    ),
    (TYPES, "*", "docker"): _refused(NO_CONTAINER),
}
"""`*` is any name."""

# What Ray's documentation and Ray's own files have there (its defaults.yaml for each provider).
_DEFAULT_STEP = re.compile(
    r"ray stop( --force)?|ulimit -n 65536|ulimit -c unlimited"
    r"|ray start( --head| --port=6379| --address=\$RAY_HEAD_IP:6379| --object-manager-port=8076"
    r"| --autoscaling-config=~/ray_bootstrap_config\.yaml| --dashboard-host=0\.0\.0\.0)*"
)
START_COMMANDS = ("head_start_ray_commands", "worker_start_ray_commands")
RAYS_DEFAULTS = "these are Ray's own defaults; Heliostat starts Ray itself, so they have no effect"


def refused(data: Mapping[str, Any], node_types: list[str]) -> Iterator[tuple[KeyPath, str]]:
    """Return where something stands that is not done, and why; `node_types` are those that are mappings."""
    for path, key in RAY_KEYS.items():
        if key.treatment is not Treatment.REFUSED or path[0] == "provider":
            continue
        for place in _places(path, node_types):
            value = _get(data, place)
            if path[0] in START_COMMANDS and isinstance(value, list):
                odd = [(index, one) for index, one in enumerate(value) if not _is_rays_own(one)]
                yield from (((*place, index), f"{found(one)}: {key.words}") for index, one in odd)
            elif value:
                yield place, f"{found(value)}: {key.words}"


def noted(data: Mapping[str, Any]) -> Iterator[tuple[KeyPath, str]]:
    """Return where something stands that has no effect, and why."""
    auth = data.get("auth")
    if auth:
        yield ("auth",), NO_LOGIN
    for key in START_COMMANDS:
        if data.get(key):
            yield (key,), RAYS_DEFAULTS


def _places(path: KeyPath, node_types: list[str]) -> list[KeyPath]:
    return [(path[0], name, *path[2:]) for name in node_types] if "*" in path else [path]


def _get(data: Mapping[str, Any], path: KeyPath) -> Any:
    value: Any = data
    for part in path:
        value = value.get(part) if isinstance(value, dict) else None
    return value


def _is_rays_own(command: object) -> bool:
    """Say whether a command is made of Ray's own steps alone; what is no text is another check's."""
    if not isinstance(command, str):
        return True
    steps = [" ".join(step.split()) for step in re.split(r";|&&|\n", command)]
    return all(_DEFAULT_STEP.fullmatch(step) for step in steps if step)
