"""`heliostat status`."""

from __future__ import annotations

import sys
import time

import click

from heliostat.api.client import ControllerClient
from heliostat.cli import view
from heliostat.cli.clusters import pick_client
from heliostat.cli.options import cluster_argument, json_option
from heliostat.cli.output import console, is_terminal, show, show_json

WATCH_S = 1.0


@click.command("status", short_help="Show nodes, demand and what happens next.")
@cluster_argument
@click.option("-w", "--watch", is_flag=True, help="Show it again every second until Ctrl-C.")
@json_option
def command(*, cluster: str | None, watch: bool, as_json: bool) -> None:
    """Show nodes, demand and what happens next.

    CLUSTER is a name or a cluster file; it is not needed when only one runs here.

    \b
    Examples:
      heliostat status
      heliostat status demo --watch
      heliostat status --json | jq '.instances[].state'
    """
    client = pick_client(cluster)
    if watch:
        _watch(client, as_json=as_json)
    elif as_json:
        show_json(client.status())
    else:
        show(view.blocks(client.status()))


def _watch(client: ControllerClient, *, as_json: bool) -> None:
    """Show the status each second; in a pipe, one after the other."""
    try:
        if as_json or not is_terminal(sys.stdout):
            _watch_in_lines(client, as_json=as_json)
        else:
            _watch_live(client)
    except KeyboardInterrupt:
        # Ctrl-C is the way out of a watch, not a failure.
        return


def _watch_in_lines(client: ControllerClient, *, as_json: bool) -> None:
    while True:
        report = client.status()
        if as_json:
            show_json(report)
        else:
            click.echo(view.plain(report) + "\n")
        time.sleep(WATCH_S)


def _watch_live(client: ControllerClient) -> None:
    from rich.live import Live

    with Live(view.rich(client.status()), console=console(sys.stdout), auto_refresh=False) as live:
        while True:
            time.sleep(WATCH_S)
            live.update(view.rich(client.status()), refresh=True)
