"""`heliostat explain`."""

from __future__ import annotations

import click

from heliostat.cli.clusters import pick_client
from heliostat.cli.grid import Lines, cells
from heliostat.cli.options import cluster_option, json_option
from heliostat.cli.output import show, show_json


@click.command("explain", short_help="Say why a node came, went or stays, or why a demand waits.")
@click.argument("subject", metavar="[ID]", required=False)
@cluster_option
@json_option
def command(*, subject: str | None, cluster: str | None, as_json: bool) -> None:
    """Say why a node came, went or stays, and why a demand waits or can never fit.

    ID is a worker's name or id, a node type, or a part of a demand's text as `heliostat
    status` shows it. Without it: everything.

    \b
    Examples:
      heliostat explain
      heliostat explain w1
      heliostat explain "GPU: 4"
    """
    answer = pick_client(cluster).explain(subject)
    if as_json:
        show_json(answer)
        return
    kind, name = str(answer.get("kind", "")), str(answer.get("subject", ""))
    heading = name if kind in ("", name) else f"{kind} {name}"
    show([Lines(heading, cells(*map(str, answer.get("lines", []))))])
