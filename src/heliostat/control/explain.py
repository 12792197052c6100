"""Why a node came, goes or stays; why a demand waits or can never fit. Pure but for the events given.

`lines` are for people; `facts` hold the same for programs, JSON-ready.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict

from heliostat.control.status import (
    Scene,
    backend_reports,
    deferred_of,
    demand_reports,
    infeasible_of,
    instance_reports,
    next_lines,
    type_reports,
    waiting,
)
from heliostat.model.demand import Demand, Gang
from heliostat.model.plan import Deferred, Drain, Infeasible, Launch, Reason, Release
from heliostat.model.report import DemandReport, InstanceReport, TypeReport
from heliostat.ports.journal import Event

EVENTS_SHOWN = 12

Answer = dict[str, object]


def explain_cluster(scene: Scene) -> Answer:
    """Return the whole picture: types, instances, demands, and what happens next."""
    types, instances, demands = type_reports(scene), instance_reports(scene), demand_reports(scene)
    backends = backend_reports(scene)
    lines = [_type_line(one) for one in types]
    lines += [f"breaker: {one.breaker}" for one in backends if one.breaker]
    lines += [f"{one.name}: {_instance_line(one, scene.now_s + scene.ahead_s)}" for one in instances]
    lines += [_demand_line(one) for one in demands] or ["no demand waits"]
    lines += [f"next: {line}" for line in next_lines(scene)]
    plan = scene.plan
    facts = {
        "node_types": [_type_facts(scene, one) for one in types],
        "backends": [asdict(one) for one in backends],
        "instances": [asdict(one) for one in instances],
        "demands": [asdict(one) for one in demands],
        "actions": [_action(one) for one in plan.actions],
        "deferred": [deferred_facts(one) for one in plan.deferred],
        "infeasible": [infeasible_facts(one) for one in plan.infeasible],
        "kept": {key: _reason(one) for key, one in plan.kept.items()},
    }
    return {"subject": "cluster", "kind": "cluster", "lines": lines, "facts": facts}


def explain_instance(
    scene: Scene, instance_id: str, events: Sequence[Event], *, launch: Event | None = None
) -> Answer | None:
    """Return the story of one instance: why it came, what keeps it, what happened to it.

    `launch` is the event of the launch that it is a member of, which knows what was not taken instead.
    """
    report = next((one for one in instance_reports(scene) if one.instance_id == instance_id), None)
    if report is None and not events:
        return None
    said = _instance_line(report, scene.now_s + scene.ahead_s) if report else ""
    lines = [f"{report.name} ({report.instance_id}): {said}"] if report else []
    if report is not None:
        lines.append(f"why it came: {_came(scene, instance_id)}")
        lines += _rival_lines(launch)
        lines += [f"activity: {', '.join(report.activity)}"] if report.activity else []
    lines += [f"{_ago(scene.now_s - one.at_s)} ago: {one.text}" for one in events[-EVENTS_SHOWN:]]
    kept = scene.plan.kept.get(instance_id)
    facts = {
        "state": report.state if report else "gone",
        "launch": dict(launch.data) if launch else {},
        "stays": _reason(kept) if kept else {},
    }
    return {"subject": instance_id, "kind": "instance", "lines": lines, "facts": facts}


def explain_type(scene: Scene, name: str) -> Answer | None:
    """Return what holds for one node type: limits, how many, failures, what waits for it."""
    report = next((one for one in type_reports(scene) if one.name == name), None)
    if report is None:
        return None
    instances = [one for one in instance_reports(scene) if one.node_type == name]
    starts = scene.history.start_s.get(name, ())
    lines = [_type_line(report)]
    lines += [f"last failure: {report.last_error}"] if report.last_error else []
    lines += [f"it {report.held}"] if report.held else []
    backends = (one for one in backend_reports(scene) if one.name == report.backend)
    lines += [f"breaker: {one.breaker}" for one in backends if one.breaker]
    if starts:
        lines.append(f"its last {len(starts)} starts took {', '.join(f'{s:.1f}' for s in starts)} s")
    lines += [f"{one.name}: {_instance_line(one, scene.now_s + scene.ahead_s)}" for one in instances]
    facts = {**_type_facts(scene, report), "instances": [asdict(one) for one in instances]}
    return {"subject": name, "kind": "node type", "lines": lines, "facts": facts}


def explain_demand(scene: Scene, text: str) -> Answer | None:
    """Return why the demands wait whose text contains `text`, or whose placement group's id begins so."""
    pairs = zip(waiting(scene), demand_reports(scene), strict=True)
    found = [
        (wanted, one)
        for wanted, one in pairs
        if text.lower() in one.text.lower() or one.gang_id.startswith(text)
    ]
    if not found:
        return None
    plan = scene.plan
    facts = {
        "demands": [asdict(one) for _, one in found],
        "deferred": [deferred_facts(one) for wanted, _ in found for one in deferred_of(plan, wanted)],
        "infeasible": [infeasible_facts(one) for wanted, _ in found for one in infeasible_of(plan, wanted)],
    }
    lines = [_demand_line(one) for _, one in found]
    return {"subject": text, "kind": "demand", "lines": lines, "facts": facts}


def wanted_facts(wanted: Demand | Gang) -> dict[str, object]:
    """Return what is wanted as data: `resources` of each of `count`, or a placement group's bundles."""
    if isinstance(wanted, Demand):
        bundle = wanted.bundle
        return {"text": str(bundle), "count": wanted.count, "resources": bundle.resources.units()}
    return {
        "text": str(wanted),
        "count": 1,
        "gang_id": wanted.gang_id,
        "strategy": wanted.strategy.value,
        "bundles": [wanted_facts(one) for one in wanted.demands],
    }


def deferred_facts(one: Deferred) -> dict[str, object]:
    return {
        "wanted": wanted_facts(one.wanted),
        "why": one.why.value,
        "limiter": one.limiter.value,
        "nearest": one.nearest,
        "have": one.have,
        "most": one.most,
        "text": one.text,
    }


def infeasible_facts(one: Infeasible) -> dict[str, object]:
    lacks: Mapping[str, object] = {
        name: {"asked": asked, "there": there} for name, (asked, there) in one.lacks.items()
    }
    return {
        "wanted": wanted_facts(one.wanted),
        "from_constraint": one.from_constraint,
        "nearest": one.nearest,
        "lacks": lacks,
        "labels": list(one.labels),
        "text": one.text,
    }


def _type_facts(scene: Scene, report: TypeReport) -> dict[str, object]:
    backoff = scene.history.backoff.get(report.name)
    starts = scene.history.start_s.get(report.name, ())
    return {**asdict(report), "failures": backoff.failures if backoff else 0, "start_s": list(starts)}


def _rival_lines(launch: Event | None) -> list[str]:
    rivals = launch.data.get("rivals", ()) if launch else ()
    assert isinstance(rivals, Sequence)
    return [f"not {one['type']} ({one['why']}): {one['text']}" for one in rivals]


def _reason(one: Reason) -> dict[str, object]:
    return {"why": one.why.value, "text": one.text, **dict(one.data)}


def _action(one: Launch | Drain | Release) -> dict[str, object]:
    if isinstance(one, Launch):
        return {"action": "launch", **_reason(one.reason)}
    verb = "drain" if isinstance(one, Drain) else "release"
    return {"action": verb, "instance_id": one.instance_id, **_reason(one.reason)}


def _came(scene: Scene, instance_id: str) -> str:
    return scene.memory.intents[instance_id].reason


def _instance_line(one: InstanceReport, wall_s: float) -> str:
    parts = [f"{one.state} for {_ago(one.since_s)}"]
    if one.state == "stopping":
        parts.append(f"goes: {one.why}")
    elif one.stays:
        parts.append(f"stays: {one.stays}")
    elif one.used:
        used = ", ".join(f"{amount:g} {name}" for name, amount in one.used.items())
        parts.append(f"stays: it works ({used} in use)")
    if one.detail:
        parts.append(one.detail)
    if one.state == "queued" and one.expected_start_s is not None:
        parts.append(f"expected in {_ago(max(0.0, one.expected_start_s - wall_s))}")
    return "; ".join(parts)


def _type_line(one: TypeReport) -> str:
    floor = f", {one.floor} asked for by hand" if one.floor else ""
    return (
        f"{one.name}: {one.running} running, {one.alive} in all, target {one.target}"
        f" (min {one.min_workers}, max {one.max_workers}{floor}; backend {one.backend})"
    )


def _demand_line(one: DemandReport) -> str:
    return f"{one.count} × {one.text}: waiting for {_ago(one.waiting_s)}, {one.verdict}: {one.why}"


def _ago(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
