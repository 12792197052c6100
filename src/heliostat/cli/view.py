"""`status` in words: a pure function from a report to blocks, and its two drawings."""

from __future__ import annotations

from typing import TYPE_CHECKING

from heliostat.cli import grid
from heliostat.cli.durations import humanise, since
from heliostat.cli.grid import Block, Cell, Grid, Lines, cells
from heliostat.model.report import (
    BackendReport,
    DemandReport,
    FailureReport,
    InstanceReport,
    StatusReport,
    TypeReport,
)

if TYPE_CHECKING:
    from rich.console import RenderableType

FAILURES_SHOWN = 3
LOG_LINES_SHOWN = 8
DEMANDS_SHOWN = 20
BYTES_PER_GIB = 2**30

STATE_STYLES = {
    "requested": "yellow",
    "queued": "yellow",
    "starting": "yellow",
    "running": "green",
    "draining": "cyan",
    "stopping": "cyan",
    "failed": "bold red",
    "unknown": "magenta",
}
PHASE_STYLES = {"running": "green", "starting": "yellow", "head lost": "bold red", "going down": "cyan"}
VERDICT_STYLES = {"infeasible": "bold red", "deferred": "yellow"}
_IN_BYTES = {"memory": "memory", "object_store_memory": "object store"}


def plain(report: StatusReport) -> str:
    """Return the whole status as plain text."""
    return grid.plain(blocks(report))


def rich(report: StatusReport) -> RenderableType:
    """Return the whole status for a terminal."""
    return grid.rich(blocks(report))


def blocks(report: StatusReport) -> list[Block]:
    """Return the status from top to bottom; blocks with nothing to say are left out."""
    shown: list[Block] = [header(report), types(report)]
    if report.instances:
        shown.append(instances(report))
    if report.demands:
        shown.append(demands(report))
    if report.next:
        shown.append(Lines("next", cells(*report.next)))
    shown += [failure(one, now_s=report.at_s) for one in report.failures[-FAILURES_SHOWN:]]
    return shown


def header(report: StatusReport) -> Lines:
    lines = [
        Cell(
            f"{report.cluster_name}: {report.phase}, up for {humanise(report.uptime_s)}",
            PHASE_STYLES.get(report.phase, ""),
        ),
        Cell(f"address    {report.address}"),
    ]
    if report.dashboard_url:
        lines.append(Cell(f"dashboard  {report.dashboard_url}"))
    if report.autoscaler != "heliostat":
        lines.append(Cell("decides    Ray's own autoscaler; Heliostat provides (provider.autoscaler: ray)"))
    if report.foreign_nodes:
        lines.append(Cell(f"others     {_nodes(report.foreign_nodes)} that heliostat did not start"))
    if report.cluster_idle_s >= 1:
        lines.append(Cell(f"idle       nobody has used the cluster for {humanise(report.cluster_idle_s)}"))
    if report.paused:
        text = "paused     nothing is launched or released until `heliostat pause --off`"
        lines.append(Cell(text, "bold yellow"))
    if report.journal:
        lines.append(Cell(f"journal    {report.journal}; nothing is launched until then", "bold red"))
    lines += [_silent(one) for one in report.backends if not one.fresh]
    lines += [Cell(f"breaker    {one.breaker}", "bold red") for one in report.backends if one.breaker]
    return Lines("", tuple(lines))


def _nodes(count: int) -> str:
    return "1 node" if count == 1 else f"{count} nodes"


def _silent(backend: BackendReport) -> Cell:
    words = f": {backend.error}" if backend.error else ""
    if backend.listed_s_ago > 0:
        text = f"backend {backend.name} has not answered for {humanise(backend.listed_s_ago)}{words}"
    elif words:
        text = f"backend {backend.name} has not answered yet{words}"
    else:
        return Cell(f"backend {backend.name} is being asked for the first time", "yellow")
    return Cell(text, "bold red")


def types(report: StatusReport) -> Grid:
    return Grid(
        "node types",
        ("type", "backend", "alive", "running", "target", "min", "max", "note"),
        tuple(map(_type_row, report.node_types)),
        right=frozenset({"alive", "running", "target", "min", "max"}),
    )


def _type_row(one: TypeReport) -> tuple[Cell, ...]:
    notes = []
    if one.floor:
        notes.append(f"{one.floor} added by hand")
    if one.held:
        notes.append(one.held)
    if one.last_error:
        notes.append(one.last_error)
    numbers = (one.alive, one.running, one.target, one.min_workers, one.max_workers)
    style = "red" if one.last_error else ""
    return cells(one.name, one.backend, *map(str, numbers), Cell("; ".join(notes), style))


def instances(report: StatusReport) -> Grid:
    return Grid(
        "instances",
        ("name", "type", "state", "since", "slot", "in use", "why"),
        tuple(_instance_row(one, now_s=report.at_s) for one in report.instances),
    )


def _instance_row(one: InstanceReport, *, now_s: float) -> tuple[Cell, ...]:
    return cells(
        one.name or one.instance_id,
        one.node_type,
        Cell(one.state, STATE_STYLES.get(one.state, "")),
        humanise(one.since_s),
        one.slot,
        in_use(one.used, one.resources),
        why(one, now_s=now_s),
    )


def why(one: InstanceReport, *, now_s: float) -> str:
    """Return what matters now: what keeps it, else why it came; then the backend's words and its end."""
    words = [one.stays or one.why]
    if one.protected and "by hand" not in words[0]:
        words.insert(0, "protected")
    if one.state != "running" and one.detail:
        words.append(one.detail)
    if one.state == "queued" and one.expected_start_s is not None:
        words.append(f"expected in {humanise(one.expected_start_s - now_s)}")
    if one.expires_at_s is not None:
        words.append(f"its lease ends in {humanise(one.expires_at_s - now_s)}")
    return "; ".join(word for word in words if word)


def in_use(used: dict[str, float], total: dict[str, float]) -> str:
    """Return `1/2 CPU, 1/1 GPU`; memory is shown where some is in use, Ray's own markers never."""
    shown = []
    for name, amount in total.items():
        if name.startswith("node:"):
            continue
        taken = used.get(name, 0.0)
        if name not in _IN_BYTES:
            shown.append(f"{taken:g}/{amount:g} {name}")
        elif taken:
            shown.append(f"{taken / BYTES_PER_GIB:.1f}/{amount / BYTES_PER_GIB:.1f} GiB {_IN_BYTES[name]}")
    return ", ".join(shown)


def demands(report: StatusReport) -> Grid:
    return Grid(
        "demand",
        ("count", "what", "waits", "verdict", "why"),
        tuple(_demand_row(one) for one in report.demands[:DEMANDS_SHOWN]) + _more(report.demands),
        right=frozenset({"count"}),
    )


def _demand_row(one: DemandReport) -> tuple[Cell, ...]:
    verdict = Cell(one.verdict, VERDICT_STYLES.get(one.verdict, ""))
    return cells(str(one.count), one.text, humanise(one.waiting_s), verdict, one.why)


def _more(every: list[DemandReport]) -> tuple[tuple[Cell, ...], ...]:
    hidden = len(every) - DEMANDS_SHOWN
    if hidden <= 0:
        return ()
    return (cells("", f"and {hidden} more shapes: see --json", "", "", ""),)


def failure(one: FailureReport, *, now_s: float) -> Lines:
    heading = f"failed {since(one.at_s, now_s=now_s)} ago: {one.instance_id} ({one.node_type}): {one.error}"
    log = one.log[-LOG_LINES_SHOWN:]
    return Lines(grid.clean(heading), tuple(Cell(f"| {line}", "dim") for line in log))
