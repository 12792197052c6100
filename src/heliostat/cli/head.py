"""The head of a cluster on this host: what is started, with which GPUs, ports and environment."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from heliostat.model.node_type import ClusterSpec
from heliostat.ports.errors import HeliostatError
from heliostat.providers.local import head_gpus, machine_gpus, visible_devices
from heliostat.raylink.head import LOOPBACK, HeadOptions, choose_ports, head_command

DEFAULT_PORT = 6379
TEMP_ROOT = "/tmp"
"""Ray's sockets allow 38 characters for the temp dir, so it has to be short."""

HEAD_ONLY = ("CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER", "RAY_CLOUD_INSTANCE_ID", "RAY_NODE_TYPE_NAME")
"""What the head's environment has and the controller's must not inherit."""

LOCAL = "local"


@dataclass(frozen=True)
class HeadPlan:
    """`environment` is the wrapper's, which both children inherit; `head_environment` the head's alone."""

    argv: tuple[str, ...]
    environment: Mapping[str, str]
    head_environment: Mapping[str, str]
    temp_dir: str
    address: str
    dashboard_url: str
    notes: tuple[str, ...]


def plan_head(spec: ClusterSpec, *, cluster_uid: str, token_path: Path, port: int | None) -> HeadPlan:
    """Return how the head is started; ports are free at this moment, nothing has started yet.

    Raises HeliostatError where the head asks for GPUs that are not there.
    """
    if spec.head_type.backend != LOCAL:
        raise HeliostatError(f"a head on the backend {spec.head_type.backend} can't be started from here yet")
    options = HeadOptions(
        temp_dir=f"{TEMP_ROOT}/hel-{cluster_uid[:8]}",
        token_path=token_path,
        node_type=spec.head_type.name,
        resources=spec.head_type.resources.units(),
        labels=spec.head_type.labels,
        port=port or DEFAULT_PORT,
        environment={**spec.environment, **_gpus(spec)},
    )
    ports = choose_ports(options)
    base = {**os.environ, "HELIOSTAT_CLUSTER_UID": cluster_uid}
    base.pop("HELIOSTAT_INSTANCE_ID", None)
    command = head_command(options, ports, environment=base)
    inherited = {k: v for k, v in command.environment.items() if k not in HEAD_ONLY}
    inherited |= {k: os.environ[k] for k in HEAD_ONLY[:2] if k in os.environ}
    return HeadPlan(
        argv=command.argv,
        environment=inherited,
        head_environment={k: v for k, v in command.environment.items() if k in HEAD_ONLY},
        temp_dir=options.temp_dir,
        address=f"{LOOPBACK}:{ports.gcs}",
        dashboard_url=f"http://{LOOPBACK}:{ports.dashboard}",
        notes=ports.notes,
    )


def _gpus(spec: ClusterSpec) -> Mapping[str, str]:
    section = spec.backends.get(LOCAL)
    if section is None:
        return {}
    return visible_devices(head_gpus(machine_gpus(section), spec.head_type.resources.units()))
