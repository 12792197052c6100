"""What a caller is told while a call waits for a node: from the controller's status report. Pure."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from heliostat.gateway.work.port import Needs, Say
from heliostat.model.report import DemandReport, InstanceReport, StatusReport

COMING = ("starting", "queued", "requested")
"""Before a node is there, nearest first."""
PLAIN = "waiting for a node"
RUNNING = "running"
Shapes = Mapping[str, Mapping[str, float]]
"""What one node of each type holds, by the type's name, in Ray's units."""


@dataclass(frozen=True)
class Outlook:
    """A line for the caller; `hopeless` says that no node of this cluster can ever hold the call."""

    text: str
    hopeless: bool = False


def outlook(report: StatusReport | None, needs: Needs, *, shapes: Shapes) -> Outlook:
    """Return how long it may take, as far as anybody knows."""
    if report is None:
        return Outlook(PLAIN)
    demand = _demand(report, needs)
    if demand is not None and demand.verdict == "infeasible":
        return Outlook(f"no node of this cluster can hold it: {demand.why}", hopeless=True)
    coming = _coming(report, needs, shapes)
    if coming is not None:
        return Outlook(f"{PLAIN}: {_coming_text(coming, report.at_s)}")
    if demand is not None and demand.verdict == "deferred":
        return Outlook(f"{PLAIN}: {demand.why}")
    held = next((one.held for one in report.node_types if one.held and _holds(shapes, one.name, needs)), "")
    return Outlook(f"{PLAIN}: {held}" if held else PLAIN)


def wanted(needs: Needs) -> dict[str, float]:
    """Return what Ray asks a node for."""
    found = {"CPU": needs.cpus, "GPU": needs.gpus, "memory": float(needs.memory_bytes or 0)}
    return {name: amount for name, amount in found.items() if amount}


class Changes:
    """Says only what is new, to one caller."""

    def __init__(self, say: Say) -> None:
        self._say = say
        self._last = ""

    def say(self, text: str) -> None:
        if text != self._last:
            self._last = text
            self._say(text)


def _demand(report: StatusReport, needs: Needs) -> DemandReport | None:
    """Return the shape among what waits that is this call's; several calls may share it."""
    mine = wanted(needs)
    return next((one for one in report.demands if not one.gang_id and _same(one.resources, mine)), None)


def _same(a: Mapping[str, float], b: Mapping[str, float]) -> bool:
    # Ray counts in ten-thousandths.
    return a.keys() == b.keys() and all(abs(a[name] - b[name]) <= 1e-4 * max(1.0, b[name]) for name in a)


def _holds(shapes: Shapes, node_type: str, needs: Needs) -> bool:
    shape = shapes.get(node_type, {})
    return all(shape.get(name, 0.0) >= amount for name, amount in wanted(needs).items() if name != "memory")


def _coming(report: StatusReport, needs: Needs, shapes: Shapes) -> InstanceReport | None:
    """Return the node that will be there first, of those that can hold the call."""
    fitting: Iterable[InstanceReport] = (
        one for one in report.instances if one.state in COMING and _holds(shapes, one.node_type, needs)
    )
    return min(fitting, key=lambda one: (COMING.index(one.state), one.expected_start_s or 1e18), default=None)


def _coming_text(one: InstanceReport, now_s: float) -> str:
    backend = one.backend.capitalize()
    if one.state == "starting":
        return f"{backend}, {one.name} starts now"
    about = (
        f"starts about {_clock(one.expected_start_s, now_s)}" if _ahead(one.expected_start_s, now_s) else ""
    )
    return ", ".join(part for part in (backend, one.detail, about) if part)


def _ahead(at_s: float | None, now_s: float) -> bool:
    return at_s is not None and at_s > now_s


def _clock(at_s: float | None, now_s: float) -> str:
    """Return a time of day in this host's zone, with the day if it is another."""
    at, now = time.localtime(at_s), time.localtime(now_s)
    return time.strftime("%H:%M" if at[:3] == now[:3] else "%a %H:%M", at)
