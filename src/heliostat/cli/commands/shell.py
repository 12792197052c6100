"""`heliostat shell`."""

from __future__ import annotations

import os
import sys

import click

from heliostat.cli.clusters import pick
from heliostat.cli.driver import driver_environment
from heliostat.cli.far_driver import Command, is_far, shell_there
from heliostat.cli.options import cluster_argument
from heliostat.cli.output import tell
from heliostat.ports.errors import HeliostatError

FALLBACK_SHELL = "/bin/sh"
BASH = "bash"


@click.command("shell", short_help="Open a shell with that environment.")
@cluster_argument
@click.option("-c", "--command", "text", help="Run this in bash instead, and exit with its code.")
def command(*, cluster: str | None, text: str | None) -> None:
    """Open your shell ($SHELL) with what a driver needs in its environment; `exit` leaves it.

    CLUSTER is a name or a cluster file; it is not needed when only one runs here. Where the
    head is on another host, the shell is there.

    \b
    Examples:
      heliostat shell demo
      heliostat shell demo --command 'ray status'
    """
    record = pick(cluster)
    argv = (BASH, "-c", text) if text is not None else (os.environ.get("SHELL") or FALLBACK_SHELL,)
    far = is_far(record)
    # A command in a pipe has none to take over: srun would refuse.
    terminal = text is None or sys.stdin.isatty()
    here = Command(argv, driver_environment(record))
    wanted = shell_there(record, argv, terminal=terminal) if far else here
    where = f"on {record.host}" if far else "here"
    if text is None:
        tell(f'a shell for {record.cluster_name}: ray.init(address="auto") finds it {where}; `exit` leaves')
    program = wanted.argv[0]
    try:
        # The shell takes our place: job control, Ctrl-C and the exit code are all its own.
        os.execvpe(program, wanted.argv, wanted.environment)
    except OSError as error:
        remedy = "" if far or text is not None else "; set SHELL to another"
        raise HeliostatError(f"{program} can't be run: {error.strerror}{remedy}") from error
