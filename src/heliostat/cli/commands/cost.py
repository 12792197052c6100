"""`heliostat cost`."""

from __future__ import annotations

from typing import Any

import click

from heliostat.cli.clusters import pick_client
from heliostat.cli.grid import Cell, Grid, cells
from heliostat.cli.options import cluster_option, json_option
from heliostat.cli.output import show, show_json

S_PER_H = 3_600.0


@click.command("cost", short_help="Show node hours, core hours, money and idle share.")
@cluster_option
@json_option
def command(*, cluster: str | None, as_json: bool) -> None:
    """Show node hours, core hours, GPU hours, money and idle share, per day (UTC) and node type.

    Money is the node type's price_usd_per_h at the time; the head is not counted.

    \b
    Examples:
      heliostat cost
      heliostat cost --json
    """
    usage = pick_client(cluster).cost()
    if as_json:
        show_json(usage)
    elif not usage.get("rows"):
        click.echo("nothing has run yet")
    else:
        show([table(usage)])


def table(usage: dict[str, Any]) -> Grid:
    """Return the usage as a table with the total as its last row."""
    rows = [_row(one, one["day"], one["node_type"]) for one in usage["rows"]]
    rows.append(_row(usage["total"], "total", ""))
    columns = ("day", "type", "node h", "core h", "GPU h", "idle", "USD")
    return Grid("", columns, tuple(rows), right=frozenset(columns[2:]))


def _row(one: dict[str, Any], day: str, node_type: str) -> tuple[Cell, ...]:
    node_s = float(one["node_s"])
    idle = f"{float(one['idle_s']) / node_s:.0%}" if node_s else ""
    hours = [f"{float(one[key]) / S_PER_H:.2f}" for key in ("node_s", "core_s", "gpu_s")]
    return cells(day, node_type, *hours, idle, f"{float(one['cost_usd']):.2f}")
