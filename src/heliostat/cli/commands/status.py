"""`heliostat status`."""

from __future__ import annotations

import sys
import time

import click

from heliostat.api.client import ControllerClient, NoAnswer, NotRunning
from heliostat.cli import view
from heliostat.cli.clusters import client_of, pick, waits
from heliostat.cli.options import cluster_argument, json_option
from heliostat.cli.output import console, is_terminal, show, show_json, tell
from heliostat.cli.system import SystemClock
from heliostat.config.record import ClusterRecord
from heliostat.ports.errors import HeliostatError, ProviderError

WATCH_S = 1.0
QUEUE_WATCH_S = 15.0


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
    record = pick(cluster)
    if waits(record):
        record = _show_queue(record, watch=watch, as_json=as_json)
        if waits(record):
            return
    try:
        _show(client_of(record), watch=watch, as_json=as_json)
    except (NotRunning, NoAnswer) as error:
        raise _over(record) or error from error


def _show(client: ControllerClient, *, watch: bool, as_json: bool) -> None:
    if watch:
        _watch(client, as_json=as_json)
    elif as_json:
        show_json(client.status())
    else:
        show(view.blocks(client.status()))


def _over(record: ClusterRecord) -> HeliostatError | None:
    """Return what is said of a cluster whose head was a job that is over; None where that is not why."""
    if record.job is None:
        return None
    from heliostat.cli.queued_head import head_look, never_came_up

    try:
        look = head_look(record)
    except HeliostatError:
        return None
    if look is not None and not look.is_over:
        return None
    if not record.session_name:
        return never_came_up(record, look)
    name, why = record.cluster_name, f": {look.detail}" if look is not None and look.detail else ""
    return HeliostatError(
        f"the head of {name} is gone, its job has ended{why}; `heliostat down {name}` clears away what is "
        f"left, `heliostat up {record.source}` starts it anew"
    )


def _show_queue(record: ClusterRecord, *, watch: bool, as_json: bool) -> ClusterRecord:
    """Show where a head's job is in its queue; with `watch` until it has begun, or Ctrl-C."""
    try:
        _queued(record, as_json=as_json)
        while watch and waits(record):
            time.sleep(QUEUE_WATCH_S)
            record = pick(record.cluster_name)
            if waits(record):
                _queued_or_why_not(record, as_json=as_json)
    except KeyboardInterrupt:
        return record
    return record


def _queued_or_why_not(record: ClusterRecord, *, as_json: bool) -> None:
    """Show the queue; a Slurm that is away for a while ends no watch."""
    try:
        _queued(record, as_json=as_json)
    except ProviderError as error:
        if not error.transient:
            raise
        tell(f"{record.cluster_name}: {error}")


def _queued(record: ClusterRecord, *, as_json: bool) -> None:
    from heliostat.cli.queued_head import head_look, never_came_up, waiting_words

    name = record.cluster_name
    look = head_look(record)
    if look is None or look.is_over:
        raise never_came_up(record, look)
    if as_json:
        facts = {"job_id": look.job_id, "reason": look.detail, "expected_start_s": look.expected_start_s}
        show_json({"cluster_name": name, "phase": "queued", **facts})
    else:
        click.echo(f"{name}: {waiting_words(look, now_s=SystemClock().now_s())}")


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
