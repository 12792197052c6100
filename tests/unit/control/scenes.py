"""One round as `status` and `explain` look at it, without a controller: everything is a plain value."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from heliostat.control.memory import Memory
from heliostat.control.status import Scene
from heliostat.model.demand import Constraint, Demand, Gang, GangStrategy
from heliostat.model.history import History
from heliostat.model.instance import NodeStatus, RayNode
from heliostat.model.node_type import NodeType, Policy
from heliostat.model.resources import Resources
from heliostat.model.snapshot import BackendView, OperatorSettings, RayState, Snapshot
from heliostat.planner import fold, plan

NOW_S = 1_000.0
FIRST = "0123456789abcdef0123456789abcdef0123"
SECOND = "0123456700000000000000000000000000ff"
"""Ids of two placement groups that begin alike."""


@dataclass(frozen=True)
class Round:
    """What Ray reports in one round, all of whose types came up before unless `untried`."""

    types: Sequence[NodeType]
    demands: Sequence[Demand] = ()
    gangs: Sequence[Gang] = ()
    keep: Sequence[Demand] = ()
    foreign: Sequence[Resources] = ()
    max_workers: int = 20
    max_cost_usd_per_h: float | None = None
    untried: bool = False

    def scene(self) -> Scene:
        policy = Policy(
            tuple(self.types),
            max_workers=self.max_workers,
            idle_timeout_s=60.0,
            max_cost_usd_per_h=self.max_cost_usd_per_h,
        )
        nodes = tuple(
            RayNode(f"foreign-{at}", NodeStatus.RUNNING, one, one) for at, one in enumerate(self.foreign)
        )
        kept = Constraint(tuple(self.keep)) if self.keep else None
        ray = RayState(1, "session", nodes, tuple(self.demands), tuple(self.gangs), kept)
        snapshot = Snapshot(NOW_S, ray, {"fake": BackendView(listed_at_s=NOW_S, fresh=True)})
        known = {} if self.untried else {one.name: one.shape_id for one in self.types}
        history = fold(History(proven=known), snapshot, policy)
        memory = Memory({}, history, OperatorSettings(), snapshot=snapshot, instances=snapshot.instances)
        memory.plan = plan(snapshot, history, policy)
        return Scene(policy, memory, NOW_S)


def apart(*demands: Demand, gang_id: str = FIRST) -> Gang:
    return Gang(gang_id, GangStrategy.STRICT_SPREAD, demands)
