"""What a controller is made of: its ports, and the named times it lives by."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from heliostat.model.node_type import ClusterSpec
from heliostat.ports.clock import Clock, Ids
from heliostat.ports.cluster import Cluster
from heliostat.ports.config_source import ConfigSource
from heliostat.ports.journal import Journal
from heliostat.ports.provider import Provider
from heliostat.ports.telemetry import Telemetry


def _nobody(_: ClusterSpec) -> None:
    """Publish a spec to nobody."""


@dataclass(frozen=True)
class Ports:
    """Everything outside that the loop speaks to. `providers` is keyed by backend name.

    `publish` tells whoever else must know it which spec holds: at the start, and after each `apply`.
    """

    cluster: Cluster
    providers: Mapping[str, Provider]
    journal: Journal
    clock: Clock
    ids: Ids
    telemetry: Telemetry
    config_source: ConfigSource
    publish: Callable[[ClusterSpec], None] = _nobody


@dataclass(frozen=True)
class Identity:
    """Who this controller is, for workers' start documents and for `status`; `version` is Heliostat's."""

    cluster_name: str
    cluster_uid: str
    address: str
    dashboard_url: str
    ray_version: str
    python_version: str
    pid: int
    version: str = ""


@dataclass(frozen=True)
class Timing:
    """Named times of the loop, in seconds.

    `message_timeout_s` is for how long a backend that does not tell it (`ports.provider.Delayed`)
    may act on a request that seems lost; 10 s is Slurm's default (slurm.conf, MessageTimeout);
    `ask_again_s` how long an unheard terminate or a refused drain waits before it is tried again.
    """

    round_s: float = 1.0
    listing_deadline_s: float = 30.0
    listing_fast_s: float = 2.0
    listing_slow_s: float = 60.0
    offers_s: float = 30.0
    apply_deadline_s: float = 120.0
    heartbeat_s: float = 5.0
    history_s: float = 5.0
    usage_s: float = 30.0
    message_timeout_s: float = 10.0
    ask_again_s: float = 10.0
    wind_down_s: float = 90.0
    drivers_s: float = 5.0


BAD_ROUNDS_AT_MOST = 30
"""After this many failed rounds in a row the controller ends, so that its wrapper starts a fresh one."""
