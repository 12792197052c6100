"""The keys of a cluster file: their types and defaults, and the words that say what is allowed.

Ray's keys have Ray's names, types and documented defaults; ours live under `provider`
and `node_config`, where Ray allows free keys. docs/cluster-file.md explains each.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from heliostat.config.drain_limits import ALLOWED as DRAIN_LIMITS
from heliostat.config.errors import KeyPath, Problem, did_you_mean, found, one_of
from heliostat.config.gateway_schema import ELSEWHERE, MODELS, WORDS, GatewayModel, with_stars
from heliostat.config.positions import Document
from heliostat.config.ray_keys import AUTH_KEYS, CLOUD_KEYS, CLOUDS, RAY_KEYS, Treatment

CLUSTER_NAME = r"^[a-z]([a-z0-9-]{0,30}[a-z0-9])?$"

Count = Annotated[int, Field(ge=0)]
Amount = Annotated[float, Field(ge=0)]
Seconds = Annotated[float, Field(gt=0)]
Port = Annotated[int, Field(ge=1024, le=65535)]


class _Closed(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class NodeConfig(BaseModel):
    """Our keys; all others are the backend's options, which its own checker knows."""

    model_config = ConfigDict(extra="allow", strict=True, frozen=True)

    backend: str
    patience_s: Amount = 0.0
    price_usd_per_h: Amount = 0.0
    start_timeout_s: Seconds = 300.0

    @property
    def options(self) -> dict[str, Any]:
        return dict(self.model_extra or {})


class NodeTypeModel(_Closed):
    resources: dict[str, Count]
    node_config: NodeConfig
    min_workers: Count = 0
    max_workers: Count | None = None
    idle_timeout_s: Amount | None = None
    priority: int = 0
    labels: dict[str, str] = Field(default_factory=dict)
    # An empty list counts as well: it takes away the cluster's.
    initialization_commands: list[str] | None = None
    worker_setup_commands: list[str] | None = None
    docker: dict[str, Any] = Field(default_factory=dict)


class AuthModel(_Closed):
    ssh_user: str = ""
    ssh_public_key: str = ""
    ssh_private_key: str = ""
    ssh_proxy_command: str = ""
    ssh_proxy_use_node_id: bool = False


class GcsStorageModel(_Closed):
    address: str
    username: str = ""
    password_file: str = ""
    password_env: str = ""
    ca_cert: str = ""


class ProviderModel(_Closed):
    backends: dict[str, dict[str, Any]]
    type: Literal["external"] = "external"
    module: str = "heliostat.launcher.NodeProvider"
    autoscaler: Literal["heliostat", "ray"] = "heliostat"
    max_cost_usd_per_h: Amount | None = None
    max_surge: Count = 0
    max_draining: Any = 20
    gangs_across_backends: bool = False
    orphan_timeout_s: Seconds = 300.0
    head_timeout_s: Seconds = 60.0
    gcs_storage: GcsStorageModel | None = None
    gateway: GatewayModel | None = None
    gcs_port: Port | None = None
    ray_client_port: Port | None = None
    dashboard_port: Port | None = None
    defaults_from: str | None = None
    environment: dict[str, str] = Field(default_factory=dict)


class ClusterModel(_Closed):
    cluster_name: Annotated[str, Field(pattern=CLUSTER_NAME)]
    provider: ProviderModel
    available_node_types: dict[str, NodeTypeModel]
    head_node_type: str
    max_workers: Count = 2
    idle_timeout_minutes: Amount = 5.0
    upscaling_speed: Amount = 1.0
    metadata: dict[str, Any] = Field(default_factory=dict)
    # Ray knows these too; `config/ray_keys.py` says what becomes of each.
    auth: AuthModel = Field(default_factory=AuthModel)
    docker: dict[str, Any] = Field(default_factory=dict)
    file_mounts: dict[str, str] = Field(default_factory=dict)
    cluster_synced_files: list[str] = Field(default_factory=list)
    file_mounts_sync_continuously: bool = False
    rsync_exclude: list[str] = Field(default_factory=list)
    rsync_filter: list[str] = Field(default_factory=list)
    initialization_commands: list[str] = Field(default_factory=list)
    setup_commands: list[str] = Field(default_factory=list)
    head_setup_commands: list[str] = Field(default_factory=list)
    worker_setup_commands: list[str] = Field(default_factory=list)
    head_start_ray_commands: list[str] = Field(default_factory=list)
    worker_start_ray_commands: list[str] = Field(default_factory=list)
    no_restart: bool = False


_COUNT = "a whole number, 0 or more"
_AMOUNT = "a number, 0 or more"
_SECONDS = "a number of seconds above 0"
_PORT = "a port, 1024 to 65535; where it is busy the head takes another"
_MAPPING = "a mapping (key: value)"
_COMMANDS = "a list of commands for bash"
_PATTERNS = "a list of patterns for rsync"

ALLOWED: Mapping[KeyPath, str] = {
    ("cluster_name",): "text of 1 to 32 lower-case letters, digits and -, a letter first and no - last",
    ("max_workers",): _COUNT,
    ("idle_timeout_minutes",): _AMOUNT,
    ("upscaling_speed",): _AMOUNT,
    ("metadata",): _MAPPING,
    ("head_node_type",): "the name of a node type",
    ("provider",): "a mapping with at least backends: {<backend>: {…}}",
    ("provider", "type"): "external",
    ("provider", "module"): "text: the class that `ray up` loads",
    ("provider", "autoscaler"): "heliostat or ray",
    ("provider", "backends"): "a mapping of backends, such as local: {}",
    ("provider", "backends", "*"): "a mapping; without any key the backend's defaults hold",
    ("provider", "max_cost_usd_per_h"): _AMOUNT,
    ("provider", "max_surge"): _COUNT,
    ("provider", "max_draining"): DRAIN_LIMITS,
    ("provider", "gangs_across_backends"): "true or false",
    ("provider", "orphan_timeout_s"): _SECONDS,
    ("provider", "head_timeout_s"): _SECONDS,
    ("provider", "gcs_storage"): "a mapping with at least address: redis://<host>:<port>",
    ("provider", "gcs_storage", "address"): "redis://<host>:<port>, or rediss://<host>:<port> for TLS",
    ("provider", "gcs_storage", "username"): "text",
    ("provider", "gcs_storage", "password_file"): "text: a file that begins with / or ~",
    ("provider", "gcs_storage", "password_env"): "text: the name of a variable",
    ("provider", "gcs_storage", "ca_cert"): "text: a file that begins with / or ~",
    **WORDS,
    **{("provider", f"{name}_port"): _PORT for name in ("gcs", "ray_client", "dashboard")},
    ("provider", "defaults_from"): "text: a file, seen from the cluster file's folder",
    ("provider", "environment"): "a mapping of variables to text",
    ("provider", "environment", "*"): "text, so put it in quotes",
    ("available_node_types",): "a mapping of node types",
    ("available_node_types", "*"): "a mapping with at least resources and node_config",
    ("available_node_types", "*", "resources"): "a mapping of resources to whole numbers, such as {CPU: 4}",
    ("available_node_types", "*", "resources", "*"): (
        "a whole number, 0 or more, as in Ray's own schema: a task may ask for a part, a node has whole ones"
    ),
    ("available_node_types", "*", "labels"): "a mapping of labels to text",
    ("available_node_types", "*", "labels", "*"): "text, so put it in quotes",
    ("available_node_types", "*", "min_workers"): _COUNT,
    ("available_node_types", "*", "max_workers"): _COUNT,
    ("available_node_types", "*", "idle_timeout_s"): _AMOUNT,
    ("available_node_types", "*", "priority"): "a whole number",
    ("available_node_types", "*", "docker"): _MAPPING,
    ("available_node_types", "*", "initialization_commands"): _COMMANDS,
    ("available_node_types", "*", "worker_setup_commands"): _COMMANDS,
    ("available_node_types", "*", "node_config"): "a mapping with at least backend: <name>",
    ("available_node_types", "*", "node_config", "backend"): "the name of a backend",
    ("available_node_types", "*", "node_config", "patience_s"): _AMOUNT,
    ("available_node_types", "*", "node_config", "price_usd_per_h"): _AMOUNT,
    ("available_node_types", "*", "node_config", "start_timeout_s"): _SECONDS,
    ("auth",): _MAPPING,
    **{("auth", key): "text" for key in AUTH_KEYS},
    ("auth", "ssh_proxy_use_node_id"): "true or false",
    ("docker",): _MAPPING,
    ("file_mounts",): "a mapping of paths on the nodes to paths here",
    ("file_mounts", "*"): "the path of a file or a folder here, text",
    ("cluster_synced_files",): "a list of paths",
    **{(key,): _PATTERNS for key in ("rsync_exclude", "rsync_filter")},
    **{(key,): "true or false" for key in ("file_mounts_sync_continuously", "no_restart")},
    **{
        (f"{kind}_commands",): _COMMANDS
        for kind in (
            "initialization",
            "setup",
            "head_setup",
            "worker_setup",
            "head_start_ray",
            "worker_start_ray",
        )
    },
}
"""What may stand at a key, in words; `*` is any name."""

MISPLACED: Mapping[KeyPath, str] = {
    ("min_workers",): "not a key of the whole cluster; write it under a node type",
    ("head_node",): "Ray no longer has it; use available_node_types and head_node_type",
    ("worker_nodes",): "Ray no longer has it; use available_node_types",
    ("idle_timeout_s",): "not a key of the whole cluster; use idle_timeout_minutes (0.5 is allowed), "
    "or idle_timeout_s under a node type",
    ("backends",): "it belongs under provider",
    ("gcs_storage",): "it belongs under provider",
    **ELSEWHERE,
    (
        "provider",
        "gcs_storage",
        "password",
    ): "a secret has no place in a file that others read; write it to a "
    "file of mode 0600 and name that in password_file, or name a variable in password_env",
    **{("provider", key): CLOUDS for key in CLOUD_KEYS},
    **{
        ("available_node_types", "*", key): "it belongs under node_config"
        for key in ("backend", "patience_s", "price_usd_per_h", "start_timeout_s", "log_monitor", "ray_args")
    },
}
"""Keys that people write elsewhere, and where they belong."""

_KNOWN: Mapping[KeyPath, type[BaseModel]] = {
    (): ClusterModel,
    ("provider",): ProviderModel,
    ("provider", "gcs_storage"): GcsStorageModel,
    **MODELS,
    ("auth",): AuthModel,
    ("available_node_types", "*"): NodeTypeModel,
}


def validated(document: Document) -> tuple[ClusterModel | None, list[Problem]]:
    """Check names and types of all keys; the model is None where there are problems."""
    try:
        return ClusterModel.model_validate(document.data), []
    except ValidationError as error:
        return None, [
            _problem(document, one["type"], path=one["loc"], value=one["input"]) for one in error.errors()
        ]


def pattern(path: KeyPath) -> KeyPath:
    """Replace the names that users choose by `*`."""
    parts = list(path)
    if parts[:1] == ["available_node_types"]:
        parts[1:2] = ["*"] * len(parts[1:2])
        if parts[2:3] in (["resources"], ["labels"]):
            parts[3:4] = ["*"] * len(parts[3:4])
    if parts[:2] in (["provider", "backends"], ["provider", "environment"]):
        parts[2:3] = ["*"] * len(parts[2:3])
    if parts[:1] == ["file_mounts"]:
        parts[1:2] = ["*"] * len(parts[1:2])
    return with_stars(tuple(parts))


def _problem(document: Document, kind: str, *, path: KeyPath, value: object) -> Problem:
    allowed = ALLOWED.get(pattern(path), "text" if kind == "string_type" else "another kind of value")
    if kind == "extra_forbidden":
        text = _unknown_key(path)
    elif kind == "missing":
        text = f"is missing; write {allowed}"
    else:
        text = f"{found(value)}; allowed is {allowed}"
    return Problem(document.at(path), path, text)


def _unknown_key(path: KeyPath) -> str:
    key = pattern(path)
    if key in MISPLACED:
        return f"is not allowed here: {MISPLACED[key]}"
    known = list(_KNOWN[key[:-1]].model_fields)
    useful = [name for name in known if _is_of_use((*key[:-1], name))]
    return f"unknown key{did_you_mean(str(path[-1]), known)}; allowed are {one_of(useful)}"


def _is_of_use(path: KeyPath) -> bool:
    key = RAY_KEYS.get(path)
    return key is None or key.treatment is Treatment.HONOURED
