"""`plan`: from a snapshot and the history to a target, this round's actions, and why."""

from __future__ import annotations

from collections import Counter

from heliostat.model.history import History
from heliostat.model.instance import ALIVE, GOING, Intent
from heliostat.model.node_type import Policy
from heliostat.model.plan import Plan
from heliostat.model.snapshot import Snapshot
from heliostat.planner.over import endings, outliving
from heliostat.planner.provide import provide
from heliostat.planner.scale_down import Shrinkage, shrink
from heliostat.planner.scale_up import Growth, grow
from heliostat.planner.scene import Scene, look
from heliostat.planner.settle import settle


def plan(snapshot: Snapshot, history: History, policy: Policy) -> Plan:
    """Return what should be, and this round's steps towards it.

    `history` is the one that `fold` made of this very snapshot. Pure: the same input gives
    the same plan, whatever the order of intents, rows, nodes, demands and gangs. Where Ray
    did not answer, only what is surely over is released.
    """
    scene = look(snapshot, history, policy)
    if scene is None:
        return _blind(snapshot, history, policy)
    if policy.ray_decides:
        return provide(scene)
    settlement = settle(scene)
    growth = grow(scene, settlement)
    shrinkage = shrink(scene, settlement)
    over = () if scene.operator.paused else scene.endings
    return Plan(
        target=_target(scene, growth, shrinkage),
        actions=(*over, *shrinkage.releases, *shrinkage.drains, *growth.launches),
        deferred=growth.deferred,
        infeasible=growth.infeasible,
        kept=dict(sorted((shrinkage.kept | outliving(snapshot, history)).items())),
    )


def _target(scene: Scene, growth: Growth, shrinkage: Shrinkage) -> dict[str, int]:
    names = dict.fromkeys([*(one.name for one in scene.policy.node_types), *sorted(scene.alive)])
    wanted = Counter() if scene.operator.paused else growth.wanted
    staying = scene.staying_counts
    return {name: staying[name] - shrinkage.going[name] + wanted[name] for name in names}


def _blind(snapshot: Snapshot, history: History, policy: Policy) -> Plan:
    over = () if snapshot.operator.paused else endings(snapshot, history, policy)
    there = [
        one for one in snapshot.instances if one.state in ALIVE - GOING and one.intent.intent is Intent.WANTED
    ]
    counts = Counter(one.node_type for one in there)
    return Plan(target={name: counts[name] for name in sorted(counts)}, actions=tuple(over))
