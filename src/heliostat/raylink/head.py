"""How a head is started: options → the arguments and the environment of `ray start --head`. Pure but
for the ports, which are tried by binding them.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from heliostat.model.gcs_storage import RECONNECT_VARIABLE, GcsStorage, namespace_of
from heliostat.model.instance import HEAD_INSTANCE_ID
from heliostat.ports.errors import ConfigError
from heliostat.raylink.free_port import PortClaims, near
from heliostat.raylink.stored_head import own_options
from heliostat.raylink.token import TOKEN_VARIABLE, auth_environment

LOOPBACK = "127.0.0.1"

TEMP_DIR_CHARS = 38
"""Ray's longest socket path below its temp dir has 69 characters; a socket's path may have 107."""

DROPPED_PREFIXES = ("RAY_OVERRIDE_",)
"""What a parent that is itself a Ray worker's or a launcher's child would force on our head."""

HEAD_RECONNECT_S = 20
"""A GCS that has lost its storage hangs for good (Ray 2.60). What is beside it ends after this time, so that
the head can be started again within `head_timeout_s`, of which Ray's own 60 s would leave nothing."""

JOB_START_VARIABLE = "RAY_JOB_START_TIMEOUT_SECONDS"
JOB_START_S = 7 * 86_400
"""Ray fails a submitted job that has waited so long for its node, by default 15 minutes, which batch queues
exceed. It is read by the job manager of the head's agent (`JobManager._monitor_job_internal`, Ray 2.56 and
2.60)."""

STORAGE_VARIABLES = ("RAY_REDIS_ADDRESS", "RAY_REDIS_CA_CERT", "RAY_external_storage_namespace")

DROPPED = frozenset(
    {
        # A head is not a driver of another cluster; a session or node of one must not leak in.
        "RAY_ADDRESS",
        "RAY_API_SERVER_ADDRESS",
        "RAY_NAMESPACE",
        "RAY_JOB_ID",
        "RAY_NODE_ID",
        "RAY_RAYLET_PID",
        "RAY_JOB_CONFIG_JSON_ENV_VAR",
        "RAY_START_HOOK",
        # A head's state is where its own cluster file says, or nowhere.
        *STORAGE_VARIABLES,
        # The token goes by its file.
        TOKEN_VARIABLE,
    }
)

NOT_CUSTOM = frozenset({"CPU", "GPU", "memory", "object_store_memory"})


@dataclass(frozen=True)
class HeadOptions:
    """What to start. Ports are wishes; resources in Ray's names and units, a missing CPU or GPU is 0.

    `temp_dir` is a folder of this head's own on a local disk, at most `TEMP_DIR_CHARS` long.
    `node_ip` None lets Ray find this machine's address (Ray replaces a loopback one by it too).
    `worker_ports` None means any free ports. `environment` is added to the head's. `storage` is where
    the state of the cluster `cluster_uid` is kept; None: in the head's memory.
    """

    temp_dir: str
    token_path: Path
    node_type: str
    resources: Mapping[str, float] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    instance_id: str = HEAD_INSTANCE_ID
    port: int = 6379
    dashboard_port: int = 8265
    client_port: int = 10001
    node_ip: str | None = None
    worker_ports: tuple[int, int] | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    ray_args: tuple[str, ...] = ()
    storage: GcsStorage | None = None
    cluster_uid: str = ""


@dataclass(frozen=True)
class HeadPorts:
    """Ports that were free a moment ago; `notes` says in words where a wish could not be met."""

    gcs: int
    dashboard: int
    client: int
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class HeadCommand:
    """What to run. The process stays until a signal; TERM ends the head in about two seconds."""

    argv: tuple[str, ...]
    environment: Mapping[str, str]


def choose_ports(options: HeadOptions, claims: PortClaims) -> HeadPorts:
    """Return ports that can be bound now, and claim them; raises ConfigError when none near a wish can."""
    gcs = near(options.port, claims=claims)
    dashboard = near(options.dashboard_port, claims=claims, taken={gcs}, host=LOOPBACK)
    # Downwards: Ray refuses a client port inside its workers' range, which begins at 10002.
    client = near(options.client_port, claims=claims, taken={gcs, dashboard}, step=-1)
    wishes = (
        ("GCS", options.port, gcs),
        ("dashboard", options.dashboard_port, dashboard),
        ("Ray client", options.client_port, client),
    )
    notes = tuple(
        f"port {wish} is in use: the {what} takes {found}" for what, wish, found in wishes if wish != found
    )
    return HeadPorts(gcs=gcs, dashboard=dashboard, client=client, notes=notes)


def head_command(
    options: HeadOptions, ports: HeadPorts, *, environment: Mapping[str, str], python: str = sys.executable
) -> HeadCommand:
    """Return the command; `environment` is the caller's own. Raises ConfigError for a long `temp_dir`."""
    if len(options.temp_dir) > TEMP_DIR_CHARS:
        raise ConfigError(
            [
                f"the head's temp dir {options.temp_dir} has {len(options.temp_dir)} characters; "
                f"Ray's sockets allow {TEMP_DIR_CHARS}"
            ]
        )
    program: tuple[str, ...] = ("ray.scripts.scripts",)
    if options.storage is not None:
        program = ("heliostat.raylink.stored_head", *own_options(options.storage))
    return HeadCommand(
        argv=(python, "-m", *program, *_arguments(options, ports)),
        environment=head_environment(options, environment),
    )


def head_environment(options: HeadOptions, environment: Mapping[str, str]) -> dict[str, str]:
    """Return the caller's environment without what would bend the head, with what it must have."""
    kept = {
        name: value
        for name, value in environment.items()
        if name not in DROPPED and not name.startswith(DROPPED_PREFIXES)
    }
    return {
        "RAY_USAGE_STATS_ENABLED": "0",
        JOB_START_VARIABLE: str(JOB_START_S),
        **kept,
        **({RECONNECT_VARIABLE: str(HEAD_RECONNECT_S)} if options.storage else {}),
        **options.environment,
        **_storage_environment(options),
        **auth_environment(options.token_path),
        # Without it `request_resources()` never reaches the state that we read.
        "RAY_enable_autoscaler_v2": "1",
        "RAY_CLOUD_INSTANCE_ID": options.instance_id,
        "RAY_NODE_TYPE_NAME": options.node_type,
        "PYTHONUNBUFFERED": "1",
    }


def driver_environment(
    *, address: str, dashboard_url: str, token_path: Path, autoscaler_v2: bool = True
) -> dict[str, str]:
    """Return what a driver's shell needs: nothing secret, only where things are.

    `autoscaler_v2` False: Ray's own autoscaler v1 decides, which hears drivers in another place.
    """
    return {
        "RAY_ADDRESS": address,
        # `ray job submit` takes it before RAY_ADDRESS, and needs no driver's connection then.
        **({"RAY_API_SERVER_ADDRESS": dashboard_url} if dashboard_url else {}),
        **auth_environment(token_path),
        # With it `ray status` shows what Heliostat reports.
        "RAY_enable_autoscaler_v2": str(int(autoscaler_v2)),
    }


def _arguments(options: HeadOptions, ports: HeadPorts) -> list[str]:
    low, high = options.worker_ports or (0, 0)
    return [
        "start",
        "--head",
        "--block",
        "--no-monitor",
        "--disable-usage-stats",
        f"--port={ports.gcs}",
        f"--dashboard-host={LOOPBACK}",
        f"--dashboard-port={ports.dashboard}",
        f"--ray-client-server-port={ports.client}",
        # Ray's fixed default, 52365, costs seconds of retries where another cluster has it.
        "--dashboard-agent-listen-port=0",
        f"--min-worker-port={low}",
        f"--max-worker-port={high}",
        f"--temp-dir={options.temp_dir}",
        *([f"--node-ip-address={options.node_ip}"] if options.node_ip else []),
        *(
            [f"--redis-username={options.storage.username}"]
            if options.storage and options.storage.username
            else []
        ),
        *_resource_arguments(options.resources),
        *_label_arguments(options.labels),
        *options.ray_args,
    ]


def _storage_environment(options: HeadOptions) -> dict[str, str]:
    storage = options.storage
    if storage is None:
        return {}
    return {
        "RAY_REDIS_ADDRESS": storage.address,
        "RAY_external_storage_namespace": namespace_of(options.cluster_uid),
        **({"RAY_REDIS_CA_CERT": storage.ca_cert} if storage.tls else {}),
    }


def _resource_arguments(resources: Mapping[str, float]) -> list[str]:
    custom = {name: amount for name, amount in resources.items() if name not in NOT_CUSTOM}
    arguments = [f"--num-cpus={resources.get('CPU', 0):g}", f"--num-gpus={resources.get('GPU', 0):g}"]
    if "memory" in resources:
        arguments.append(f"--memory={int(resources['memory'])}")
    if "object_store_memory" in resources:
        arguments.append(f"--object-store-memory={int(resources['object_store_memory'])}")
    if custom:
        arguments.append(f"--resources={json.dumps(custom, sort_keys=True)}")
    return arguments


def _label_arguments(labels: Mapping[str, str]) -> list[str]:
    return [f"--labels={','.join(f'{key}={labels[key]}' for key in sorted(labels))}"] if labels else []
