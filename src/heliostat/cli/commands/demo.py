"""`heliostat demo`."""

from __future__ import annotations

import sys

import click


@click.command("demo", short_help="A real cluster on this machine: up, work, back to zero.")
def command() -> None:
    """Start a real Ray cluster on this machine, have it scale up for real work and back to zero.

    It takes about a minute, tells what it sees, and leaves nothing behind. The last line
    sums it up; the exit code is 0 only if no task was lost and nothing was left running.

    \b
    Example:
      heliostat demo
    """
    from heliostat.cli.demo import run

    sys.exit(run(click.echo))
