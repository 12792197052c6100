"""The head of a cluster on this host: what is started, with which address, GPUs, ports and environment."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from heliostat.cli.addresses import is_loopback, reachable_address
from heliostat.model.gateway import token_variables
from heliostat.model.gcs_storage import RECONNECT_VARIABLE
from heliostat.model.node_type import ClusterSpec
from heliostat.ports.errors import ConfigError
from heliostat.providers.local import head_gpus, machine_gpus, visible_devices
from heliostat.raylink.free_port import PortClaims
from heliostat.raylink.head import (
    LOOPBACK,
    STORAGE_VARIABLES,
    TEMP_DIR_CHARS,
    HeadOptions,
    choose_ports,
    head_command,
)

DEFAULT_PORT, DASHBOARD_PORT, CLIENT_PORT = 6379, 8265, 10001
TEMP_ROOT = "/tmp"
"""Ray's sockets allow 38 characters for the temp dir, so it has to be short."""

TEMP_ROOT_CHARS = TEMP_DIR_CHARS - len("/hel-12345678")

GPU_VARIABLES = ("CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER")
HEAD_ONLY = (
    *(*GPU_VARIABLES, "RAY_CLOUD_INSTANCE_ID", "RAY_NODE_TYPE_NAME"),
    *(*STORAGE_VARIABLES, RECONNECT_VARIABLE),
)
"""What the head's environment has and the controller's must not inherit."""

LOCAL = "local"


@dataclass(frozen=True)
class HeadPlan:
    """`environment` is the wrapper's, which both children inherit; `head_environment` the head's alone.

    `node_ip` is the head's address among Ray's nodes; empty where Ray finds this host's by itself. `setup`
    is done before the head starts, and may take `setup_s`.
    """

    argv: tuple[str, ...]
    environment: Mapping[str, str]
    head_environment: Mapping[str, str]
    temp_dir: str
    address: str
    node_ip: str
    dashboard_url: str
    client_port: int
    notes: tuple[str, ...]
    setup: Mapping[str, object] = field(default_factory=dict)
    setup_s: float = 0.0


@dataclass(frozen=True)
class HeadPlace:
    """What this host gives to a head: its address, a folder for its temp dir, and variables (GPUs).

    `resources` None means the node type's, in Ray's names and units; `labels` are added to the type's.
    `port_offset` moves all ports that nobody asked for away from Ray's defaults.
    """

    host: str
    temp_root: str = TEMP_ROOT
    environment: Mapping[str, str] = field(default_factory=dict)
    resources: Mapping[str, float] | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    port_offset: int = 0


def place_here(spec: ClusterSpec) -> HeadPlace:
    """Return the place of a head that is no backend's: it shares this host with its users.

    Raises HeliostatError where the head asks for GPUs that are not there, ConfigError where
    this host has no address that workers elsewhere reach.
    """
    return HeadPlace(head_host(spec), environment=_gpus(spec))


def plan_head(
    spec: ClusterSpec,
    place: HeadPlace,
    *,
    cluster_uid: str,
    token_path: Path,
    port: int | None,
    claims: PortClaims,
) -> HeadPlan:
    """Return how the head is started; its ports are free and its own by `claims`, nothing has started yet."""
    node_ip = "" if is_loopback(place.host) else place.host
    wished = spec.head_ports
    options = HeadOptions(
        temp_dir=f"{place.temp_root}/hel-{cluster_uid[:8]}",
        token_path=token_path,
        node_type=spec.head_type.name,
        resources=spec.head_type.resources.units() if place.resources is None else place.resources,
        labels={**spec.head_type.labels, **place.labels},
        port=port or wished.gcs or DEFAULT_PORT + place.port_offset,
        dashboard_port=wished.dashboard or DASHBOARD_PORT + place.port_offset,
        # Downwards, as above it are the ports of Ray's workers.
        client_port=wished.ray_client or CLIENT_PORT - place.port_offset,
        node_ip=node_ip or None,
        environment={**spec.environment, **place.environment},
        storage=spec.gcs_storage,
        cluster_uid=cluster_uid,
    )
    ports = choose_ports(options, claims)
    # All that starts here and on nodes would have them, and so would the code of others that runs there.
    dropped = {"HELIOSTAT_INSTANCE_ID"} | token_variables(spec.gateway)
    kept = {name: value for name, value in os.environ.items() if name not in dropped}
    base = {**kept, "HELIOSTAT_CLUSTER_UID": cluster_uid}
    command = head_command(options, ports, environment=base)
    inherited = {k: v for k, v in command.environment.items() if k not in HEAD_ONLY}
    inherited |= {k: os.environ[k] for k in GPU_VARIABLES if k in os.environ}
    return HeadPlan(
        argv=command.argv,
        environment=inherited,
        head_environment={k: v for k, v in command.environment.items() if k in HEAD_ONLY},
        temp_dir=options.temp_dir,
        address=f"{place.host}:{ports.gcs}",
        node_ip=node_ip,
        dashboard_url=f"http://{LOOPBACK}:{ports.dashboard}",
        client_port=ports.client,
        notes=ports.notes,
        setup=spec.head_setup.document(),
        setup_s=spec.head_type.start_timeout_s,
    )


def head_host(spec: ClusterSpec) -> str:
    """Return the address by which workers reach a head on this host: loopback if all of them are here.

    A backend whose workers are elsewhere may name networks (`provider.backends.<backend>.network`);
    without any, it is the address by which this host is known. Raises ConfigError.
    """
    elsewhere = [name for name in spec.backends if name != LOCAL]
    if not elsewhere:
        return LOOPBACK
    named = {name: wanted for name in elsewhere if (wanted := networks(spec.backends[name]))}
    found = {name: reachable_address(named[name], key=_key(name)) for name in named}
    if len(set(found.values())) > 1:
        said = ", ".join(f"{_key(name)} gives {address}" for name, address in found.items())
        raise ConfigError([f"a head has one address, and {said}: name the same network in both"])
    return next(iter(found.values()), None) or reachable_address((), key=_key(elsewhere[0]))


def networks(section: Mapping[str, object]) -> tuple[str, ...]:
    """Return the names and CIDRs of a section's `network`, which the backend itself has checked."""
    wanted = section.get("network") or ()
    if isinstance(wanted, str):
        return (wanted,)
    return tuple(map(str, wanted)) if isinstance(wanted, Sequence) else ()


def _key(backend: str) -> str:
    return f"provider.backends.{backend}.network"


def _gpus(spec: ClusterSpec) -> Mapping[str, str]:
    section = spec.backends.get(LOCAL)
    if section is None:
        return {}
    return visible_devices(head_gpus(machine_gpus(section), spec.head_type.resources.units()))
