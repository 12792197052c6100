"""`heliostat shell`."""

from __future__ import annotations

import os

import click

from heliostat.cli.clusters import pick
from heliostat.cli.driver import driver_environment
from heliostat.cli.options import cluster_argument
from heliostat.cli.output import tell
from heliostat.ports.errors import HeliostatError

FALLBACK_SHELL = "/bin/sh"


@click.command("shell", short_help="Open a shell with that environment.")
@cluster_argument
def command(*, cluster: str | None) -> None:
    """Open your shell ($SHELL) with what a driver needs in its environment; `exit` leaves it.

    CLUSTER is a name or a cluster file; it is not needed when only one runs here.

    \b
    Example:
      heliostat shell demo
    """
    record = pick(cluster)
    shell = os.environ.get("SHELL") or FALLBACK_SHELL
    tell(f'a shell for {record.cluster_name}: ray.init(address="auto") finds it here; `exit` leaves')
    try:
        # The shell takes our place: job control, Ctrl-C and the exit code are all its own.
        os.execvpe(shell, [shell], driver_environment(record))
    except OSError as error:
        raise HeliostatError(f"{shell} can't be run: {error.strerror}; set SHELL to another") from error
