"""`heliostat run`."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from pathlib import Path
from subprocess import DEVNULL

import click

from heliostat.cli import child
from heliostat.cli.attachment import is_detached
from heliostat.cli.driver import driver_environment
from heliostat.cli.far_driver import end_of_job_there, is_far, job_there
from heliostat.cli.foreground import on_stop_signals, say_still_going_down, starting, stop_signals_held_back
from heliostat.cli.output import progress, tell
from heliostat.cli.system import new_cluster_uid
from heliostat.config.record import ClusterRecord

SIGNALLED_CODE = 128
STOP_TIMEOUT_S = 30.0


@click.command(
    "run",
    short_help="Bring a cluster up, run a command on it, take it down.",
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
)
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--keep", is_flag=True, help="Leave the cluster up afterwards.")
@click.argument("argv", metavar="-- COMMAND…", nargs=-1, required=True, type=click.UNPROCESSED)
def command(*, file: Path, keep: bool, argv: tuple[str, ...]) -> None:
    """Run a command on the cluster of FILE, and exit with its exit code.

    The cluster is brought up for it if it is not up, and taken down afterwards if it was.
    The command runs here, with what `heliostat env` prints in its environment, so
    `ray.init(address="auto")` finds the cluster. Signals are passed on to it. Where the head is
    on another host, the command runs there, as a Ray job in this same folder.

    \b
    Examples:
      heliostat run cluster.yaml -- python train.py
      heliostat run --keep cluster.yaml -- python train.py
    """
    # Without interspersed options click leaves the separator in place.
    argv = argv[1:] if argv[0] == "--" else argv
    if not argv:
        raise click.UsageError("a command is needed after --")
    with starting():
        record, ours = _up(file, keep=keep)
    try:
        code = _run_there(record, argv) if is_far(record) else child.run(argv, driver_environment(record))
    except child.NotStarted as error:
        tell(f"heliostat: {error}")
        code = error.exit_code
    finally:
        if ours:
            _down(record)
    sys.exit(code)


def _run_there(record: ClusterRecord, argv: tuple[str, ...]) -> int:
    """Run the command as a Ray job beside the head; one that was cut short is stopped there."""
    job_id = f"heliostat-run-{new_cluster_uid()[:12]}"
    wanted = job_there(record, argv, job_id=job_id)
    code = child.run(wanted.argv, wanted.environment)
    if code > SIGNALLED_CODE:
        # Whoever carried the signal, srun or ssh, may have died of it before the job heard.
        wanted = end_of_job_there(record, job_id=job_id)
        with contextlib.suppress(OSError, subprocess.TimeoutExpired):
            subprocess.run(
                wanted.argv, env=dict(wanted.environment), timeout=STOP_TIMEOUT_S, check=False, stdin=DEVNULL
            )
    return code


def _up(file: Path, *, keep: bool) -> tuple[ClusterRecord, bool]:
    """Return the cluster, and whether it was brought up by us."""
    with stop_signals_held_back():
        from heliostat.cli.start import AlreadyRunning, StartOptions, start_cluster

    try:
        with progress(keep=True) as say:
            # Attached, the cluster ends even if this process is killed.
            record = start_cluster(file, options=StartOptions(detach=keep), say=say)
    except AlreadyRunning as error:
        return error.record, False
    # The head may be one that `up --detach` had asked for, and that was only waited for here.
    return record, not (keep or is_detached(record))


def _down(record: ClusterRecord) -> None:
    from heliostat.cli.start import stop_cluster

    with on_stop_signals(say_still_going_down), progress(keep=True) as say:
        stop_cluster(record, say=say)
