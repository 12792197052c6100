"""The cluster port: Ray, as the loop needs it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from heliostat.model.demand import Demand, Gang
from heliostat.model.history import Failure
from heliostat.model.instance import DrainReason, Instance
from heliostat.model.node_type import NodeType, Policy
from heliostat.model.plan import Plan
from heliostat.model.snapshot import RayState


@dataclass(frozen=True)
class DrainReply:
    """Ray's answer; `message` is its reason when it refuses."""

    accepted: bool
    message: str = ""


@dataclass(frozen=True)
class RoundReport:
    """What Ray is told of a round: `ray status`, the dashboard and drivers show it.

    `launched` and `released` are this round's counts per node type, `release_causes` one cause for
    each type (drivers' log lines). `infeasible` is what no node type can hold, beside the plan's own.
    """

    plan: Plan
    instances: Sequence[Instance]
    failures: Sequence[Failure] = ()
    launched: Mapping[str, int] = field(default_factory=dict)
    released: Mapping[str, int] = field(default_factory=dict)
    release_causes: Mapping[str, str] = field(default_factory=dict)
    infeasible: Sequence[Demand | Gang] = ()


class Cluster(Protocol):
    """Ray's GCS. Each call has a deadline; one that passes it raises ClusterUnreachable."""

    async def connect(self) -> None:
        """Wait for nothing: read session and versions; StrangerCluster if not ours.

        Called at first, and whenever the head has been silent: another may answer there now.
        """
        ...

    async def state(self) -> RayState: ...

    async def drain(
        self, node_id: str, *, reason: DrainReason, message: str, deadline_s: float | None
    ) -> DrainReply: ...

    async def report(self, report: RoundReport) -> None:
        """Tell Ray what its own monitor would: state, drivers' events, metrics."""
        ...

    async def report_config(self, policy: Policy, head_type: NodeType) -> None:
        """Tell Ray (Data, Train) what the cluster could grow to; at start and after `apply`."""
        ...

    async def heartbeat(self) -> None:
        """Let workers know that a controller lives; they end by themselves without it."""
        ...

    async def drivers(self) -> int:
        """Return how many drivers are connected: programs and jobs of users, not Ray's own or a gateway's."""
        ...

    async def forget(self, instance_ids: Sequence[str]) -> None:
        """Delete the claims of instances that are gone for good."""
        ...

    async def aclose(self) -> None: ...
