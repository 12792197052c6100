"""A small world for the loop's tests: a fake Ray beside the shipped fake provider, one manual clock."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from heliostat.model.demand import Bundle, Demand, Gang
from heliostat.model.instance import DrainReason, NodeStatus, RayNode
from heliostat.model.node_type import ClusterSpec, NodeType, Policy
from heliostat.model.resources import Resources
from heliostat.model.snapshot import RayState
from heliostat.ports.cluster import DrainReply, RoundReport
from heliostat.ports.errors import ClusterError, ClusterUnreachable

ONE_CPU = Resources.of({"CPU": 1})
SESSION = "session_1"


def node_type(name: str = "cpu", **changed: object) -> NodeType:
    base = NodeType(name, "fake", ONE_CPU, f"shape-{name}", max_workers=4, idle_timeout_s=5.0)
    return replace(base, **changed)  # type: ignore[arg-type]


def spec(*types: NodeType, **policy: object) -> ClusterSpec:
    limits = Policy(types or (node_type(),), max_workers=8, idle_timeout_s=5.0)
    head = NodeType("head", "fake", Resources.of({}), "shape-head")
    return ClusterSpec("test", replace(limits, **policy), head, {"fake": {}}, head_timeout_s=20.0)  # type: ignore[arg-type]


def demand(count: int, **units: float) -> Demand:
    return Demand(Bundle(Resources.of(units or {"CPU": 1})), count)


HEAD = RayNode("head", NodeStatus.IDLE, Resources(), Resources(), is_head=True)


@dataclass
class FakeCluster:
    """A Ray that does what a test tells it, and remembers what it was told."""

    nodes: dict[str, RayNode] = field(default_factory=lambda: {"head": HEAD})
    demands: tuple[Demand, ...] = ()
    gangs: tuple[Gang, ...] = ()
    silent: bool = False
    failure: ClusterError | None = None
    refuses: str = ""
    connected_drivers: int = 0
    version: int = 0
    drains: list[tuple[str, DrainReason]] = field(default_factory=list)
    reports: list[RoundReport] = field(default_factory=list)
    configs: int = 0
    beats: int = 0
    asked: int = 0
    forgotten: list[str] = field(default_factory=list)

    def _answer(self) -> None:
        self.asked += 1
        if self.failure is not None:
            raise self.failure
        if self.silent:
            raise ClusterUnreachable("the GCS did not answer within 3 s")

    async def connect(self) -> None:
        self._answer()

    async def state(self) -> RayState:
        self._answer()
        self.version += 1
        return RayState(self.version, SESSION, tuple(self.nodes.values()), self.demands, self.gangs)

    async def drain(
        self, node_id: str, *, reason: DrainReason, message: str, deadline_s: float | None
    ) -> DrainReply:
        self._answer()
        self.drains.append((node_id, reason))
        if self.refuses and reason is DrainReason.IDLE:
            return DrainReply(False, self.refuses)
        # A preempted node that works takes nothing new, and nothing happens at the deadline.
        works = reason is DrainReason.PREEMPTION and self.nodes[node_id].status is NodeStatus.RUNNING
        status = NodeStatus.DRAINING if works else NodeStatus.DEAD
        self.nodes[node_id] = replace(self.nodes[node_id], status=status)
        return DrainReply(True)

    async def report(self, report: RoundReport) -> None:
        self.reports.append(report)

    async def report_config(self, policy: Policy, head_type: NodeType) -> None:
        self._answer()
        self.configs += 1

    async def heartbeat(self) -> None:
        self.beats += 1

    async def drivers(self) -> int:
        return self.connected_drivers

    async def forget(self, instance_ids: Sequence[str]) -> None:
        self.forgotten += instance_ids

    async def aclose(self) -> None:
        return None

    def join(self, instance_id: str, kind: NodeType, *, busy: bool = False) -> None:
        self.nodes[f"node-{instance_id}"] = RayNode(
            f"node-{instance_id}",
            NodeStatus.RUNNING if busy else NodeStatus.IDLE,
            kind.resources,
            Resources() if busy else kind.resources,
            instance_id=instance_id,
            node_type=kind.name,
        )

    def place_one(self) -> None:
        """Let one waiting bundle start to run, as Ray does when a node joins."""
        first, *rest = self.demands or (demand(0),)
        left = replace(first, count=first.count - 1)
        self.demands = tuple(one for one in (left, *rest) if one.count > 0)
