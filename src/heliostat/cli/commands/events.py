"""`heliostat events`."""

from __future__ import annotations

import time
from datetime import datetime

import click

from heliostat.api import wire
from heliostat.api.client import ControllerClient, NoAnswer, NotRunning
from heliostat.cli import grid
from heliostat.cli.clusters import pick_client
from heliostat.cli.options import cluster_option, json_option
from heliostat.cli.output import tell
from heliostat.ports.journal import Event

FOLLOW_S = 1.0
RESTART_GRACE_ROUNDS = 30
"""How many rounds in a row the controller may be silent (it restarts) before following ends."""


@click.command("events", short_help="Show what happened, newest last.")
@click.option("-f", "--follow", is_flag=True, help="Go on until Ctrl-C.")
@click.option("--instance", metavar="ID", help="Only of this worker (name or id).")
@click.option(
    "--limit", type=click.IntRange(1, 10_000), default=50, show_default=True, help="How many at most."
)
@cluster_option
@json_option
def command(*, follow: bool, instance: str | None, limit: int, cluster: str | None, as_json: bool) -> None:
    """Show what happened, newest last. With --json, one object a line.

    \b
    Examples:
      heliostat events --limit 20
      heliostat events --instance w1
      heliostat events --follow
    """
    client = pick_client(cluster)
    last = _print(client.events(limit=limit, instance=instance), as_json=as_json)
    if not follow:
        if not last:
            tell(f"no event of {instance}" if instance else "nothing has happened yet")
        return
    try:
        _follow(client, last, instance=instance, as_json=as_json)
    except KeyboardInterrupt:
        # Ctrl-C is the way out of following, not a failure.
        return


def _follow(client: ControllerClient, last: int, *, instance: str | None, as_json: bool) -> None:
    silent_rounds = 0
    while True:
        time.sleep(FOLLOW_S)
        try:
            new = client.events(after=last, limit=1000, instance=instance)
        except (NotRunning, NoAnswer):
            silent_rounds += 1
            if silent_rounds >= RESTART_GRACE_ROUNDS:
                raise
            continue
        silent_rounds = 0
        last = max(last, _print(new, as_json=as_json))


def _print(events: list[Event], *, as_json: bool) -> int:
    """Print the events and return the last one's sequence number, 0 for none."""
    for event in events:
        click.echo(wire.dumps(event).decode() if as_json else line(event))
    return max((event.seq for event in events), default=0)


def line(event: Event) -> str:
    """Return an event on one line, in local time."""
    at = datetime.fromtimestamp(event.at_s).astimezone()
    about = event.instance_id or event.node_type
    return grid.clean(f"{at:%Y-%m-%d %H:%M:%S}  {event.kind:<9}  {about:<12}  {event.text}")
