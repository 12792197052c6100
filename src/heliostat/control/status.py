"""What `status` says, from one round's state. Pure: no I/O, `now_s` is given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce

from heliostat.control.memory import Memory
from heliostat.control.ray_words import DENIED_SHOWN_S, RAY_DECIDES
from heliostat.model.demand import Demand, Gang
from heliostat.model.history import Backoff, Failure, History
from heliostat.model.instance import ALIVE, Instance, InstanceState, Intent, RayNode
from heliostat.model.node_type import NodeType, Policy
from heliostat.model.plan import Deferred, Drain, Infeasible, Launch, Plan, Release, Why
from heliostat.model.report import (
    BackendReport,
    DemandReport,
    FailureReport,
    InstanceReport,
    TypeReport,
)
from heliostat.model.resources import NOTHING, Resources
from heliostat.model.snapshot import BackendView, Snapshot
from heliostat.planner.backoff import backoff_text, on_trial
from heliostat.planner.breaker import breaker_text
from heliostat.planner.wants import key_of

SHAPES_AT_MOST = 3
"""So many things that one limit holds back are named in one line."""

_FOR = {
    Why.CONSTRAINT: " (request_resources)",
    Why.MIN_WORKERS: " (min_workers)",
    Why.ADDED_BY_HAND: " (added by hand)",
    Why.REPLACEMENT: " (on nodes that end)",
}


@dataclass(frozen=True)
class Scene:
    """One round, as `status` and `explain` look at it.

    Points in time are told by the host's wall clock, which is `ahead_s` ahead of the controller's.
    """

    policy: Policy
    memory: Memory
    now_s: float
    ahead_s: float = 0.0

    @property
    def snapshot(self) -> Snapshot:
        return self.memory.snapshot or Snapshot(self.now_s, None, {})

    @property
    def history(self) -> History:
        return self.memory.history

    @property
    def plan(self) -> Plan:
        return self.memory.plan

    def wall_s(self, at_s: float | None) -> float | None:
        """Return a time of the controller's clock as people see it."""
        return None if at_s is None else at_s + self.ahead_s

    def shown(self) -> list[Instance]:
        """Return the instances people want to see: all that is not over, newest last."""
        alive = [one for one in self.memory.instances if one.state in ALIVE]
        return sorted(alive, key=lambda one: (one.intent.requested_at_s, one.instance_id))


def instance_reports(scene: Scene) -> list[InstanceReport]:
    return [_instance(scene, one) for one in scene.shown()]


def head_report(scene: Scene) -> dict[str, object]:
    head = next((node for node in _nodes(scene) if node.is_head), None)
    if head is None:
        return {}
    return {
        "node_id": head.node_id,
        "ip": head.ip,
        "resources": _visible(head.total.units()),
        "used": _visible(_used(head)),
    }


def foreign_nodes(scene: Scene) -> int:
    known = {one.instance_id for one in scene.memory.instances}
    alive = [node for node in _nodes(scene) if node.status.value != "dead" and not node.is_head]
    return sum(node.instance_id not in known for node in alive)


def type_reports(scene: Scene) -> list[TypeReport]:
    return [_type(scene, node_type) for node_type in scene.policy.node_types]


def waiting(scene: Scene) -> list[Demand | Gang]:
    """Return what Ray waits for: shapes, then placement groups."""
    ray = scene.snapshot.ray
    return [*ray.demands, *ray.gangs] if ray else []


def demand_reports(scene: Scene) -> list[DemandReport]:
    """Return what becomes of each that is `waiting`, in the same order."""
    return [_demand(scene, one) for one in waiting(scene)]


def deferred_of(plan: Plan, wanted: Demand | Gang) -> list[Deferred]:
    """Return what holds back this waiting work. What `request_resources` or a floor asks is not meant."""
    mine = (one for one in plan.deferred if one.why in {Why.DEMAND, Why.GANG})
    return [one for one in mine if _same(one.wanted, wanted)]


def infeasible_of(plan: Plan, wanted: Demand | Gang) -> list[Infeasible]:
    """Return why this waiting work can never run. What `request_resources` asks is not meant."""
    return [one for one in plan.infeasible if not one.from_constraint and _same(one.wanted, wanted)]


def backend_reports(scene: Scene) -> list[BackendReport]:
    return [_backend(scene, name, view) for name, view in sorted(scene.snapshot.backends.items())]


def failure_reports(
    scene: Scene, failures: Sequence[Failure], logs: Mapping[str, Sequence[str]]
) -> list[FailureReport]:
    return [
        FailureReport(
            instance_id=one.instance_id,
            node_type=one.node_type,
            at_s=one.at_s + scene.ahead_s,
            error=one.error,
            log=list(logs.get(one.instance_id, ())),
        )
        for one in failures
    ]


def next_lines(scene: Scene) -> list[str]:
    """Return what is being done now and what happens next, a sentence each."""
    lines = _ray_lines(scene) if scene.policy.ray_decides else []
    lines += [_action_line(scene, action) for action in scene.plan.actions]
    lines += _deferred_lines(scene.plan)
    return lines + list(dict.fromkeys(f"can never run here: {one.text}" for one in scene.plan.infeasible))


def _ray_lines(scene: Scene) -> list[str]:
    """Return that Ray decides, and what it was refused just now."""
    fresh = (text for at_s, text in scene.memory.denied.values() if scene.now_s - at_s < DENIED_SHOWN_S)
    return [RAY_DECIDES, *fresh]


def cluster_is_used(scene: Scene) -> bool:
    """Say whether Ray has work: a waiting demand, or a node that is not idle."""
    ray = scene.snapshot.ray
    if ray is None or ray.demands or ray.gangs:
        return True
    return any(node.status.value in ("running", "draining") for node in ray.nodes)


def _nodes(scene: Scene) -> Sequence[RayNode]:
    return scene.snapshot.ray.nodes if scene.snapshot.ray else ()


def _instance(scene: Scene, one: Instance) -> InstanceReport:
    row, node, kept = one.row, one.node, scene.plan.kept.get(one.instance_id)
    refusal = scene.memory.drains.get(one.instance_id)
    released = one.intent.intent is Intent.RELEASED
    told = f"Ray keeps it: {refusal.text}" if refusal and refusal.text else ""
    stays = "; ".join(text for text in (kept.text if kept else "", told) if text)
    return InstanceReport(
        instance_id=one.instance_id,
        name=one.display_name,
        node_type=one.node_type,
        backend=one.intent.backend,
        state=one.state.value,
        since_s=scene.now_s - (_since(scene, one) or scene.now_s),
        why=(one.intent.release_reason or "") if released else one.intent.reason,
        stays=stays,
        detail=(row.detail or "") if row else "",
        slot=(row.slot or "") if row else "",
        host=(row.host or "") if row else "",
        node_id=node.node_id if node else "",
        idle_s=_idle_s(scene, node),
        resources=_visible(node.total.units()) if node else {},
        used=_visible(_used(node)) if node else {},
        activity=list(node.activity) if node else [],
        protected=one.instance_id in scene.memory.operator.protected,
        expected_start_s=scene.wall_s(row.expected_start_s) if row else None,
        expires_at_s=scene.wall_s(row.expires_at_s) if row else None,
    )


def _since(scene: Scene, one: Instance) -> float | None:
    if one.state is InstanceState.STOPPING and one.intent.released_at_s is not None:
        return one.intent.released_at_s
    return scene.history.joined_at.get(one.instance_id, one.intent.requested_at_s)


def _idle_s(scene: Scene, node: RayNode | None) -> float:
    since_s = scene.history.idle_since.get(node.node_id) if node else None
    return scene.now_s - since_s if since_s is not None else 0.0


def _used(node: RayNode) -> dict[str, float]:
    return {
        name: amount / 10_000
        for name, total in node.total
        if (amount := total - node.available.get(name)) > 0
    }


def _visible(units: Mapping[str, float]) -> dict[str, float]:
    """Leave out Ray's implicit `node:…` resources, which say nothing to people."""
    return {name: amount for name, amount in units.items() if not name.startswith("node:")}


def _type(scene: Scene, node_type: NodeType) -> TypeReport:
    mine = [one for one in scene.memory.instances if one.node_type == node_type.name]
    alive = [one for one in mine if one.state in ALIVE]
    backoff = scene.history.backoff.get(node_type.name)
    return TypeReport(
        name=node_type.name,
        backend=node_type.backend,
        alive=len(alive),
        running=sum(one.state is InstanceState.RUNNING for one in alive),
        target=scene.plan.target.get(node_type.name, 0),
        min_workers=node_type.min_workers,
        max_workers=node_type.max_workers,
        floor=scene.memory.operator.floors.get(node_type.name, 0),
        backoff_until_s=scene.wall_s(backoff.until_s) if backoff and backoff.waits(scene.now_s) else None,
        last_error=backoff.last_error if backoff else "",
        held=_held(backoff, scene.now_s),
    )


def _held(backoff: Backoff | None, now_s: float) -> str:
    if backoff is None or not (backoff.waits(now_s) or on_trial(backoff, now_s)):
        return ""
    return backoff_text(backoff, now_s)


def _demand(scene: Scene, wanted: Demand | Gang) -> DemandReport:
    deferred = deferred_of(scene.plan, wanted)
    infeasible = infeasible_of(scene.plan, wanted)
    count, held = _count(wanted), sum(_count(one.wanted) for one in deferred)
    if scene.policy.ray_decides:
        verdict, why, held = "Ray's", "Ray's own autoscaler decides: `ray status` says what it makes of it", 0
    elif infeasible:
        verdict, why, held = "infeasible", infeasible[0].text, 0
    elif deferred:
        verdict, why = "deferred", _held_text(deferred, count)
    else:
        verdict, why = "waits", "room for it is there or on its way"
    since_s = waiting_since(scene.history, wanted)
    return DemandReport(
        text=str(wanted.bundle) if isinstance(wanted, Demand) else str(wanted),
        count=count,
        waiting_s=scene.now_s - since_s if since_s is not None else 0.0,
        verdict=verdict,
        why=why,
        deferred=held,
        resources=_resources(wanted).units(),
        gang_id=wanted.gang_id if isinstance(wanted, Gang) else "",
    )


def _count(wanted: Demand | Gang) -> int:
    return wanted.count if isinstance(wanted, Demand) else 1


def _resources(wanted: Demand | Gang) -> Resources:
    if isinstance(wanted, Demand):
        return wanted.bundle.resources
    every = (one.bundle.resources.times(one.count) for one in wanted.demands)
    return reduce(Resources.plus, every, NOTHING)


def _held_text(deferred: Sequence[Deferred], count: int) -> str:
    """Say what holds it back, and how many of them where it is not one limiter for all."""
    if len(deferred) == 1 and _count(deferred[0].wanted) == count:
        return f"{deferred[0].limiter.value}: {deferred[0].text}"
    return "; ".join(
        f"{_count(one.wanted)} of {count} held back by {one.limiter.value}: {one.text}" for one in deferred
    )


def _deferred_lines(plan: Plan) -> list[str]:
    """Return a line for each limit that holds something back, with what that is."""
    held: dict[tuple[str, str], list[str]] = {}
    for one in plan.deferred:
        held.setdefault((one.limiter.value, one.text), []).append(f"{one.wanted}{_FOR.get(one.why, '')}")
    return [f"deferred ({limiter}): {_some(what)}: {text}" for (limiter, text), what in held.items()]


def _some(texts: Sequence[str]) -> str:
    more = len(texts) - SHAPES_AT_MOST
    return ", ".join(texts[:SHAPES_AT_MOST]) + (f" and {more} more" if more > 0 else "")


def _same(a: Demand | Gang, b: Demand | Gang) -> bool:
    """Say whether two speak of one shape, or of one placement group, whatever their counts."""
    if isinstance(a, Demand) and isinstance(b, Demand):
        return a.bundle == b.bundle
    return isinstance(a, Gang) and isinstance(b, Gang) and a.gang_id == b.gang_id


def waiting_since(history: History, wanted: Demand | Gang) -> float | None:
    """Return since when `wanted` has waited."""
    return history.waiting_since.get(key_of(wanted))


def _backend(scene: Scene, name: str, view: BackendView) -> BackendReport:
    listed_s_ago = scene.now_s - view.listed_at_s if view.listed_at_s else 0.0
    breaker = scene.history.breakers.get(name)
    text = breaker_text(name, breaker, scene.now_s) if breaker else ""
    return BackendReport(name, view.fresh, max(0.0, listed_s_ago), view.error or "", text)


def _action_line(scene: Scene, action: Launch | Drain | Release) -> str:
    if isinstance(action, Launch):
        return f"launching {action.count} × {action.node_type}: {action.reason.text}"
    one = next((i for i in scene.memory.instances if i.instance_id == action.instance_id), None)
    name = one.display_name if one else action.instance_id
    verb = "draining" if isinstance(action, Drain) else "releasing"
    return f"{verb} {name}: {action.reason.text}"
