"""Why a node came, goes or stays; why a demand waits or can never fit. Pure but for the events given."""

from __future__ import annotations

from collections.abc import Sequence

from heliostat.control.status import (
    Scene,
    demand_reports,
    instance_reports,
    next_lines,
    type_reports,
)
from heliostat.model.report import DemandReport, InstanceReport, TypeReport
from heliostat.ports.journal import Event

EVENTS_SHOWN = 12

Answer = dict[str, object]


def explain_cluster(scene: Scene) -> Answer:
    """Return the whole picture: types, instances, demands, and what happens next."""
    instances, demands = instance_reports(scene), demand_reports(scene)
    lines = [_type_line(one) for one in type_reports(scene)]
    lines += [f"{one.name}: {_instance_line(one)}" for one in instances]
    lines += [_demand_line(one) for one in demands] or ["no demand waits"]
    lines += [f"next: {line}" for line in next_lines(scene)]
    return {"subject": "cluster", "kind": "cluster", "lines": lines, "facts": {"demands": len(demands)}}


def explain_instance(scene: Scene, instance_id: str, events: Sequence[Event]) -> Answer | None:
    """Return the story of one instance: why it came, what keeps it, what happened to it."""
    report = next((one for one in instance_reports(scene) if one.instance_id == instance_id), None)
    if report is None and not events:
        return None
    lines = [f"{report.name} ({report.instance_id}): {_instance_line(report)}"] if report else []
    if report is not None:
        lines.append(f"why it came: {_came(scene, instance_id)}")
        lines += [f"activity: {', '.join(report.activity)}"] if report.activity else []
    lines += [f"{_ago(scene.now_s - one.at_s)} ago: {one.text}" for one in events[-EVENTS_SHOWN:]]
    facts = {"state": report.state if report else "gone"}
    return {"subject": instance_id, "kind": "instance", "lines": lines, "facts": facts}


def explain_type(scene: Scene, name: str) -> Answer | None:
    """Return what holds for one node type: limits, how many, failures, what waits for it."""
    report = next((one for one in type_reports(scene) if one.name == name), None)
    if report is None:
        return None
    lines = [_type_line(report)]
    lines += [f"last failure: {report.last_error}"] if report.last_error else []
    starts = scene.history.start_s.get(name, ())
    if starts:
        lines.append(f"its last {len(starts)} starts took {', '.join(f'{s:.1f}' for s in starts)} s")
    lines += [
        f"{one.name}: {_instance_line(one)}" for one in instance_reports(scene) if one.node_type == name
    ]
    return {"subject": name, "kind": "node type", "lines": lines, "facts": {"alive": report.alive}}


def explain_demand(scene: Scene, text: str) -> Answer | None:
    """Return why the demands whose text contains `text` wait."""
    found = [one for one in demand_reports(scene) if text.lower() in one.text.lower()]
    if not found:
        return None
    return {"subject": text, "kind": "demand", "lines": [_demand_line(one) for one in found], "facts": {}}


def _came(scene: Scene, instance_id: str) -> str:
    return scene.memory.intents[instance_id].reason


def _instance_line(one: InstanceReport) -> str:
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
