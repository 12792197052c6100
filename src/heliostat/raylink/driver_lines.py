"""What drivers read as «(autoscaler +5s) …»: one line per change, never one per round. No I/O."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from heliostat.model.demand import Bundle, Demand
from heliostat.model.instance import NodeStatus
from heliostat.model.plan import Deferred, Infeasible, Why
from heliostat.model.resources import SCALE
from heliostat.model.snapshot import RayState
from heliostat.ports.cluster import RoundReport

AGAIN_S = 600.0
"""A demand that still can't be met is said again this often."""

COUNTED = ("CPU", "GPU", "TPU")


@dataclass(frozen=True)
class Line:
    text: str
    warning: bool = False


class DriverLines:
    """Turns rounds into lines; remembers only what it has said.

    `since_s` is when this controller began: failures from before it were said by the last one.
    """

    def __init__(self, since_s: float) -> None:
        self._failures_until_s = since_s
        self._size: dict[str, int] | None = None
        self._infeasible_said_s: dict[str, float] = {}
        self._deferred_said_s: dict[str, float] = {}

    def of(self, report: RoundReport, *, ray: RayState | None, now_s: float) -> list[Line]:
        """Return this round's lines, oldest cause first."""
        return [
            *(
                Line(f"Adding {_nodes(count, name)}.")
                for name, count in sorted(report.launched.items())
                if count
            ),
            *(
                Line(f"Removing {_nodes(count, name)}{_cause(report.release_causes, name)}.")
                for name, count in sorted(report.released.items())
                if count
            ),
            *self._resized(ray),
            *self._failed(report),
            *self._infeasible(report.plan.infeasible, now_s),
            *self._deferred(wholly_deferred(report.plan.deferred, ray), now_s),
        ]

    def _resized(self, ray: RayState | None) -> list[Line]:
        if ray is None:
            return []
        size = cluster_size(ray)
        before, self._size = self._size, size
        if before is None or before == size:
            return []
        shown = [f"{size[name]} {name}s" for name in COUNTED if name == "CPU" or size[name] or before[name]]
        return [Line(f"Resized to {', '.join(shown)}.")]

    def _failed(self, report: RoundReport) -> list[Line]:
        new = [one for one in report.failures if one.at_s > self._failures_until_s]
        self._failures_until_s = max([self._failures_until_s, *(one.at_s for one in new)])
        return [
            Line(f"A node of type {one.node_type} failed ({one.instance_id}): {one.error}", warning=True)
            for one in new
        ]

    def _infeasible(self, infeasible: Iterable[Infeasible], now_s: float) -> list[Line]:
        texts = list(dict.fromkeys(map(infeasible_text, infeasible)))
        said = {text: at for text, at in self._infeasible_said_s.items() if text in texts}
        due = [text for text in texts if now_s - said.get(text, -AGAIN_S) >= AGAIN_S]
        self._infeasible_said_s = {**said, **dict.fromkeys(due, now_s)}
        return [Line(text, warning=True) for text in due]

    def _deferred(self, deferred: Iterable[Deferred], now_s: float) -> list[Line]:
        """Say what is held back when the limiter changes: its numbers change all the time.

        What comes and goes is not said again sooner: at a limit, each task that ends lets one in.
        """
        texts = {f"{_what(one)} is held back by {one.limiter.value}": one.text for one in deferred}
        said = {head: at for head, at in self._deferred_said_s.items() if now_s - at < AGAIN_S}
        due = [head for head in texts if head not in said]
        self._deferred_said_s = {**said, **dict.fromkeys(due, now_s)}
        return [Line(f"{head}: {texts[head]}") for head in due]


def infeasible_text(one: Infeasible) -> str:
    """Return one sentence on what can't be met and why; counts are left out, as they change."""
    source = " (asked by request_resources)" if one.from_constraint else ""
    return f"No node type can ever hold {_what(one)}{source}: {one.text}"


def wholly_deferred(deferred: Iterable[Deferred], ray: RayState | None) -> list[Deferred]:
    """Return what holds back waiting work of which no part has room, there or on its way."""
    mine = [one for one in deferred if one.why in {Why.DEMAND, Why.GANG}]
    counts: Counter[Bundle] = Counter()
    for one in mine:
        if isinstance(one.wanted, Demand):
            counts[one.wanted.bundle] += one.wanted.count
    waits = {one.bundle: one.count for one in ray.demands} if ray else {}
    return [
        one
        for one in mine
        if not isinstance(one.wanted, Demand) or counts[one.wanted.bundle] >= waits.get(one.wanted.bundle, 0)
    ]


def _what(one: Deferred | Infeasible) -> str:
    return str(one.wanted.bundle) if isinstance(one.wanted, Demand) else str(one.wanted)


def cluster_size(ray: RayState) -> dict[str, int]:
    """Return the whole units of CPUs, GPUs and TPUs on living nodes, the head's included."""
    living = [node for node in ray.nodes if node.status is not NodeStatus.DEAD]
    return {name: sum(node.total.get(name) for node in living) // SCALE for name in COUNTED}


def _nodes(count: int, node_type: str) -> str:
    return f"{count} node{'' if count == 1 else 's'} of type {node_type}"


def _cause(causes: Mapping[str, str], node_type: str) -> str:
    cause = causes.get(node_type)
    return f" ({cause})" if cause else ""
