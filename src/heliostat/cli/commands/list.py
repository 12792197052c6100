"""`heliostat list`."""

from __future__ import annotations

import click

from heliostat.cli.clusters import client_of, running, waits
from heliostat.cli.durations import humanise
from heliostat.cli.grid import Cell, Grid, cells
from heliostat.cli.options import json_option
from heliostat.cli.output import show, show_json
from heliostat.cli.view import PHASE_STYLES
from heliostat.config.record import ClusterRecord
from heliostat.model.report import StatusReport
from heliostat.ports.errors import HeliostatError

ANSWER_TIMEOUT_S = 2.0


@click.command("list", short_help="List your clusters on this machine.")
@json_option
def command(*, as_json: bool) -> None:
    """List your clusters on this machine.

    \b
    Example:
      heliostat list
    """
    found = [(record, _status(record)) for record in running()]
    if as_json:
        show_json([_facts(record, status) for record, status in found])
    elif not found:
        click.echo("no cluster runs here: `heliostat up FILE` starts one")
    else:
        show([_table(found)])


def _status(record: ClusterRecord) -> StatusReport | None:
    try:
        return client_of(record).status(timeout_s=ANSWER_TIMEOUT_S)
    except HeliostatError:
        # It restarts, hangs, or speaks another version: it is listed all the same.
        return None


def _facts(record: ClusterRecord, status: StatusReport | None) -> dict[str, object]:
    return {
        "cluster_name": record.cluster_name,
        "phase": _phase(record, status),
        "address": record.address,
        "dashboard_url": record.dashboard_url,
        "workers": len(status.instances) if status else None,
        "uptime_s": status.uptime_s if status else None,
        "file": record.source,
    }


def _phase(record: ClusterRecord, status: StatusReport | None) -> str:
    if status is not None:
        return status.phase
    silent = "no answer" if record.session_name else "starting"
    return silent if record.job is None else _phase_of_job(record, silent)


def _phase_of_job(record: ClusterRecord, silent: str) -> str:
    """Return what Slurm says of a head's job that does not answer; what can't be asked is as it was."""
    from heliostat.cli.queued_head import head_look

    try:
        look = head_look(record)
    except HeliostatError:
        return "queued" if waits(record) else silent
    if look is None or look.is_over:
        return "gone" if record.session_name else "failed"
    return "queued" if look.waits else silent


def _table(found: list[tuple[ClusterRecord, StatusReport | None]]) -> Grid:
    rows = tuple(_row(record, status) for record, status in found)
    columns = ("name", "phase", "for", "workers", "address", "dashboard", "file")
    return Grid("", columns, rows, right=frozenset({"workers"}))


def _row(record: ClusterRecord, status: StatusReport | None) -> tuple[Cell, ...]:
    phase = _phase(record, status)
    return cells(
        record.cluster_name,
        Cell(phase, PHASE_STYLES.get(phase, "yellow")),
        humanise(status.uptime_s) if status else "",
        str(len(status.instances)) if status else "",
        record.address,
        record.dashboard_url,
        record.source,
    )
