"""A configured shape of machine, and the limits of the whole cluster."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from heliostat.model.drain_limit import DrainLimit
from heliostat.model.gateway import GatewaySettings
from heliostat.model.gcs_storage import GcsStorage
from heliostat.model.resources import Resources
from heliostat.model.setup import NO_SETUP, Setup


@dataclass(frozen=True)
class NodeType:
    """One entry of `available_node_types`.

    `idle_timeout_s` None means the cluster's. `options` is the backend's own part of
    `node_config`, as plain JSON values. `shape_id` is a digest of everything that a
    running node of this type can't change (resources, labels, backend, options, setup): an
    instance whose `shape_id` differs has drifted. `setup` is done on its host before Ray starts.
    `throttles`: its backend itself lets only the first few of a launch run until the type has come up, so
    that all may be asked for at once.
    """

    name: str
    backend: str
    resources: Resources
    shape_id: str
    min_workers: int = 0
    max_workers: int = 0
    labels: Mapping[str, str] = field(default_factory=dict)
    idle_timeout_s: float | None = None
    start_timeout_s: float = 300.0
    patience_s: float = 0.0
    price_usd_per_h: float = 0.0
    priority: int = 0
    options: Mapping[str, object] = field(default_factory=dict)
    throttles: bool = False
    setup: Setup = NO_SETUP


@dataclass(frozen=True)
class Policy:
    """What the planner may do: node types of workers, and limits of the cluster.

    `node_types` holds worker types only, in the file's order; the head's type is
    `head_type`. `upscaling_speed` is Ray's: up to `max(5, speed * running)` of a type
    may be on their way at once; 0 or less means no such limit. Of `max_draining` each that
    applies is kept; none means no limit. A gang's nodes are of one backend unless `gangs_across_backends`.
    `ray_decides`: Ray's own autoscaler says how many there shall be, and nothing is planned for demand.
    """

    node_types: tuple[NodeType, ...]
    max_workers: int
    idle_timeout_s: float
    upscaling_speed: float = 1.0
    max_cost_usd_per_h: float | None = None
    max_surge: int = 0
    max_draining: tuple[DrainLimit, ...] = (DrainLimit(20),)
    gangs_across_backends: bool = False
    ray_decides: bool = False

    def node_type(self, name: str) -> NodeType | None:
        return next((one for one in self.node_types if one.name == name), None)

    def idle_timeout_of(self, node_type: NodeType) -> float:
        return self.idle_timeout_s if node_type.idle_timeout_s is None else node_type.idle_timeout_s


@dataclass(frozen=True)
class HeadPorts:
    """The ports that a head is wished to have; None: Ray's own. Where one is busy the head takes another."""

    gcs: int | None = None
    ray_client: int | None = None
    dashboard: int | None = None


@dataclass(frozen=True)
class ClusterSpec:
    """A whole cluster file, checked and completed.

    `backends` holds each backend's own section as plain JSON values. `orphan_timeout_s`
    is how long an idle worker outlives a controller it can't hear; `head_timeout_s` how
    long the controller waits for a head that does not answer before it cleans up.
    `gcs_storage` None: a head that dies has lost its state. `head_setup` is done on the head's host before
    the head starts. `notes` say what of the file has no meaning here; they are no part of what it means.
    """

    name: str
    policy: Policy
    head_type: NodeType
    backends: Mapping[str, Mapping[str, object]]
    orphan_timeout_s: float = 300.0
    head_timeout_s: float = 60.0
    environment: Mapping[str, str] = field(default_factory=dict)
    source: str = ""
    gcs_storage: GcsStorage | None = None
    gateway: GatewaySettings | None = None
    head_setup: Setup = NO_SETUP
    head_ports: HeadPorts = HeadPorts()
    notes: tuple[str, ...] = field(default=(), compare=False)
