"""`heliostat up`."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING

import click

from heliostat.cli.attachment import is_detached, whose
from heliostat.cli.clusters import root, waits
from heliostat.cli.far_driver import is_far
from heliostat.cli.foreground import (
    hold,
    on_stop_signals,
    say_still_going_down,
    starting,
    stop_signals_held_back,
    why_it_went,
)
from heliostat.cli.options import DURATION, json_option, override_options, overrides
from heliostat.cli.output import progress, show_json, tell
from heliostat.cli.tunnels import dashboard_tunnel
from heliostat.config.places import state_places
from heliostat.config.record import ClusterRecord
from heliostat.ports.errors import HeliostatError

if TYPE_CHECKING:
    from heliostat.cli.start import StartOptions


@click.command("up", short_help="Start a cluster from a file.")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("-d", "--detach", is_flag=True, help="Return once it is up; it runs on until `down`.")
@click.option("--workers", type=click.IntRange(0), help="Start so many workers at once and keep them.")
@click.option("--idle-after", type=DURATION, help="Take it all down when nobody used it that long.")
@click.option("--port", type=click.IntRange(1, 65_535), help="The head's port; another if it is taken.")
@click.option("--successor", is_flag=True, help="Ask for the next head now, where it is a Slurm job.")
@click.option("--wait", type=DURATION, help="With --detach: wait so long for a head that is a Slurm job.")
@click.option("--gateway", is_flag=True, help="Let colleagues in through Hypha as well, while it is up.")
@override_options
@json_option
def command(  # noqa: PLR0913 - click gives each option its own
    *,
    file: Path,
    detach: bool,
    workers: int | None,
    idle_after: float | None,
    port: int | None,
    successor: bool,
    wait: float | None,
    gateway: bool,
    name: str | None,
    max_workers: int | None,
    as_json: bool,
) -> None:
    """Start the cluster of FILE: a head here, workers when there is work.

    In the foreground it shows what goes on until Ctrl-C, which takes the cluster down.
    A head that is a Slurm job may have to queue: `--detach` returns once it is submitted (with `--wait`
    once it is up, if that takes no longer), and `up` again waits with it. With `--successor` the job of
    the next head queues while this one still runs; it begins when this one's has ended, as a new
    cluster of the same name.

    \b
    Examples:
      heliostat up cluster.yaml
      heliostat up cluster.yaml --detach --idle-after 30m
      heliostat up examples/gpus.yaml --workers 2
      heliostat up cluster.yaml --detach --gateway
    """
    with stop_signals_held_back():
        from heliostat.cli.start import StartOptions

    options = StartOptions(
        workers=workers,
        idle_after_s=idle_after,
        port=port,
        detach=detach,
        queued_is_enough=detach,
        queue_wait_s=wait or 0.0,
        overrides=overrides(name=name, max_workers=max_workers),
    )
    if wait and not detach:
        raise click.UsageError("--wait is for --detach; without it, `up` waits as long as it takes")
    if successor:
        _ask_for_successor(file, options, as_json=as_json)
        return
    if gateway:
        _sign_in(file, options)
    with starting():
        record = _start(file, options)
    if gateway:
        _begin_gateway(record)
    if waits(record):
        _tell_that_it_waits(record, as_json=as_json)
    elif detach or is_detached(record):
        _tell_how_to_use(record, detached=True, as_json=as_json)
    else:
        _stay(record, as_json=as_json)


def _sign_in(file: Path, options: StartOptions) -> None:
    """Have somebody sign in for the gateway, before anything is started."""
    from heliostat.cli.gateway_process import sign_in_before
    from heliostat.cli.gateway_view import with_gateway
    from heliostat.cli.preparing import load_spec

    spec = with_gateway(load_spec(file, options.overrides), file)
    sign_in_before(spec, state_places(root(), spec.name))


def _begin_gateway(record: ClusterRecord) -> None:
    from heliostat.cli import gateway_keeper

    places = state_places(root(), record.cluster_name)
    gateway_keeper.begin(record.cluster_name, places)
    tell(f"the gateway starts; its log is {places.gateway_log}")


def _start(file: Path, options: StartOptions) -> ClusterRecord:
    with stop_signals_held_back():
        from heliostat.cli.start import AlreadyRunning, start_cluster

    try:
        with progress(keep=True) as say:
            return start_cluster(file, options=options, say=say)
    except AlreadyRunning as error:
        name, whose_it_is = error.record.cluster_name, whose(error.record)
        raise HeliostatError(
            f"{name} runs already at {error.record.address}: `heliostat apply {file}` brings it a changed "
            f"file, `heliostat down {name}` takes it down" + (f"; {whose_it_is}" if whose_it_is else "")
        ) from error


def _ask_for_successor(file: Path, options: StartOptions, *, as_json: bool) -> None:
    from heliostat.cli import queued_start
    from heliostat.cli.preparing import load_spec

    spec = load_spec(file, options.overrides)
    with progress(keep=True) as say:
        record = queued_start.submit_successor(
            file, spec, places=state_places(root(), spec.name), options=options, say=say
        )
    if as_json:
        show_json(_queued_facts(record))


def _tell_that_it_waits(record: ClusterRecord, *, as_json: bool) -> None:
    name, facts = record.cluster_name, _queued_facts(record)
    if as_json:
        show_json(facts)
        return
    click.echo(f"{name} waits for its head: Slurm job {facts['job_id']}")
    click.echo(f"look       heliostat status {name}")
    click.echo(f"wait       heliostat up {record.source}")
    click.echo(f"take down  heliostat down {name}")


def _queued_facts(record: ClusterRecord) -> dict[str, str]:
    job_id = record.job.job_id if record.job else ""
    return {"cluster_name": record.cluster_name, "phase": "queued", "job_id": job_id}


def _stay(record: ClusterRecord, *, as_json: bool) -> None:
    from heliostat.cli.start import stop_cluster

    stop = threading.Event()

    def on_signal(number: int) -> None:
        if stop.is_set():
            say_still_going_down(number)
        stop.set()

    why = ""
    with on_stop_signals(on_signal):
        _tell_how_to_use(record, detached=False, as_json=as_json)
        if hold(record, stop):
            with progress(keep=True) as say:
                say(f"taking {record.cluster_name} down")
                stop_cluster(record, say=say)
        else:
            why = why_it_went(record)
    tell(f"{record.cluster_name} is down" + (f": {why}" if why else ""))


def _tell_how_to_use(record: ClusterRecord, *, detached: bool, as_json: bool) -> None:
    name = record.cluster_name
    if as_json:
        show_json(
            {
                "cluster_name": name,
                "address": record.address,
                "dashboard_url": record.dashboard_url,
                "session_name": record.session_name,
                "connect": f'eval "$(heliostat env {name})"',
            }
        )
        return
    click.echo(f"{name} is up: {record.address}")
    far = is_far(record)
    tunnel = dashboard_tunnel(record) if far else ""
    if record.dashboard_url:
        click.echo(f"dashboard  {record.dashboard_url}" + (f" through `{tunnel}`" if tunnel else ""))
    if far:
        click.echo(f"use        heliostat run {record.source} -- COMMAND, or heliostat shell {name}")
    else:
        click.echo(f'connect    eval "$(heliostat env {name})", then ray.init(address="auto")')
    click.echo(f"take down  heliostat down {name}" if detached else "take down  Ctrl-C")
