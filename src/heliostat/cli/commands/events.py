"""`heliostat events`."""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import click

from heliostat.api import wire
from heliostat.api.client import ControllerClient, NoAnswer, NotRunning
from heliostat.cli import grid
from heliostat.cli.clusters import pick_client
from heliostat.cli.durations import humanise
from heliostat.cli.options import cluster_option, json_option
from heliostat.cli.output import show, tell
from heliostat.ports.journal import Event, Lifetime, ProviderCall

FOLLOW_S = 1.0
RESTART_GRACE_ROUNDS = 30
"""How many rounds in a row the controller may be silent (it restarts) before following ends."""


@click.command("events", short_help="Show what happened, newest last.")
@click.option("-f", "--follow", is_flag=True, help="Go on until Ctrl-C.")
@click.option("--instance", metavar="ID", help="Only of this worker (name or id).")
@click.option("--calls", "table", flag_value="calls", help="What the backends were asked, and their answers.")
@click.option("--times", "table", flag_value="times", help="When each worker was asked for, came and went.")
@click.option(
    "--limit", type=click.IntRange(1, 10_000), default=50, show_default=True, help="How many at most."
)
@cluster_option
@json_option
def command(
    *,
    follow: bool,
    instance: str | None,
    table: str | None,
    limit: int,
    cluster: str | None,
    as_json: bool,
) -> None:
    """Show what happened, newest last. With --json, one object a line.

    \b
    Examples:
      heliostat events --limit 20
      heliostat events --instance w1
      heliostat events --follow
      heliostat events --calls --limit 5
    """
    if table and (follow or instance):
        raise click.UsageError(f"--{table} goes with neither --follow nor --instance")
    client = pick_client(cluster)
    if table:
        _show_table(client, table, limit=limit, as_json=as_json)
        return
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


def _show_table(client: ControllerClient, table: str, *, limit: int, as_json: bool) -> None:
    calls = client.calls(limit=limit) if table == "calls" else []
    times = client.lifetimes(limit=limit) if table == "times" else []
    if as_json:
        for one in (*calls, *times):
            click.echo(wire.dumps(one).decode())
    elif calls or times:
        show([calls_grid(calls) if calls else times_grid(times)])
    else:
        tell("no backend has been asked for anything yet")


def calls_grid(calls: list[ProviderCall]) -> grid.Grid:
    rows = tuple(
        grid.cells(
            _local_time(one.began_s),
            one.backend,
            _asked(one.asked),
            one.ended or "under way",
            f"{one.took_s:.2f} s" if one.took_s is not None else "",
            one.error,
        )
        for one in calls
    )
    return grid.Grid("", ("began", "backend", "asked", "ended", "took", "error"), rows)


def times_grid(lifetimes: list[Lifetime]) -> grid.Grid:
    """Return when each worker was asked for, how long it queued and took to join, when and why it ended."""
    rows = tuple(
        grid.cells(
            one.native_id or one.instance_id,
            one.node_type,
            _local_time(one.requested_at_s),
            humanise(one.queue_s) if one.queue_s is not None else "",
            humanise(one.start_s) if one.start_s is not None else "",
            _local_time(one.ended_at_s) if one.ended_at_s is not None else "",
            one.end,
        )
        for one in lifetimes
    )
    return grid.Grid("", ("name", "type", "asked for", "queued", "joined after", "ended", "why"), rows)


def _asked(asked: Mapping[str, Any]) -> str:
    parts = [f"launch {one['count']} × {one['node_type']}" for one in asked.get("launch", ())]
    if "terminate" in asked:
        parts.append(f"terminate {asked['terminated']}")
    parts += [f"let {name} go" for name in asked.get("unthrottle", ())]
    return ", ".join(parts)


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
    about = event.instance_id or event.node_type
    return grid.clean(f"{_local_time(event.at_s)}  {event.kind:<9}  {about:<12}  {event.text}")


def _local_time(at_s: float) -> str:
    return f"{datetime.fromtimestamp(at_s).astimezone():%Y-%m-%d %H:%M:%S}"
