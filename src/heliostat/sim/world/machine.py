"""One machine of a backend, whoever's it is: the truth about it, from the ask to its end."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from heliostat.model.instance import LaunchRequest
from heliostat.model.resources import Resources
from heliostat.ports.provider import ClusterIdentity
from heliostat.sim.world.ends import Cause


class Phase(Enum):
    """QUEUED: nothing runs. BOOTING: the bootstrap runs, Ray does not. UP: a Ray node. STOPPING, OVER."""

    QUEUED = "queued"
    BOOTING = "booting"
    UP = "up"
    STOPPING = "stopping"
    OVER = "over"


@dataclass(eq=False, slots=True)
class Machine:
    """What a launch asked for, and what became of it. Times are true ones, in seconds.

    `instance_id` is "" for what no Heliostat asked for. `released_s` is when its backend was first told to
    end it; `cause` what is sure to end it, or has. `asked_s` is when the backend took it on.
    """

    backend: str
    native_id: str
    instance_id: str
    identity: ClusterIdentity
    node_type: str
    shape_id: str
    resources: Resources
    asked_s: float
    labels: Mapping[str, str] = field(default_factory=dict)
    start: Mapping[str, object] = field(default_factory=dict)
    price_usd_per_h: float = 0.0
    allocation_id: str | None = None
    phase: Phase = Phase.QUEUED
    started_s: float | None = None
    up_s: float | None = None
    over_s: float | None = None
    expires_s: float | None = None
    released_s: float | None = None
    node_id: str = ""
    cause: Cause | None = None
    detail: str = ""

    @property
    def launch_id(self) -> str:
        return self.instance_id.rpartition(".")[0]

    @property
    def is_over(self) -> bool:
        return self.phase is Phase.OVER

    def __str__(self) -> str:
        return f"{self.backend}/{self.native_id} {self.instance_id or '-'}"


def machine_for(
    request: LaunchRequest, index: int, identity: ClusterIdentity, *, native_id: str, now_s: float
) -> Machine:
    """Return the machine of the launch's member `index`, asked for now."""
    node_type = request.node_type
    return Machine(
        backend=node_type.backend,
        native_id=native_id,
        instance_id=request.instance_ids[index],
        identity=identity,
        node_type=node_type.name,
        shape_id=node_type.shape_id,
        resources=node_type.resources,
        asked_s=now_s,
        labels=node_type.labels,
        start=request.start,
        price_usd_per_h=node_type.price_usd_per_h,
    )
