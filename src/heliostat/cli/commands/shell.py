"""`heliostat shell`."""

from __future__ import annotations

import os

import click

from heliostat.cli.clusters import pick
from heliostat.cli.driver import driver_environment
from heliostat.cli.far_driver import Command, is_far, shell_there
from heliostat.cli.options import cluster_argument
from heliostat.cli.output import tell
from heliostat.ports.errors import HeliostatError

FALLBACK_SHELL = "/bin/sh"


@click.command("shell", short_help="Open a shell with that environment.")
@cluster_argument
def command(*, cluster: str | None) -> None:
    """Open your shell ($SHELL) with what a driver needs in its environment; `exit` leaves it.

    CLUSTER is a name or a cluster file; it is not needed when only one runs here. Where the
    head is on another host, the shell is there.

    \b
    Example:
      heliostat shell demo
    """
    record = pick(cluster)
    shell = os.environ.get("SHELL") or FALLBACK_SHELL
    far = is_far(record)
    wanted = shell_there(record, shell) if far else Command((shell,), driver_environment(record))
    where = f"on {record.host}" if far else "here"
    tell(f'a shell for {record.cluster_name}: ray.init(address="auto") finds it {where}; `exit` leaves')
    program = wanted.argv[0]
    try:
        # The shell takes our place: job control, Ctrl-C and the exit code are all its own.
        os.execvpe(program, wanted.argv, wanted.environment)
    except OSError as error:
        remedy = "" if far else "; set SHELL to another"
        raise HeliostatError(f"{program} can't be run: {error.strerror}{remedy}") from error
