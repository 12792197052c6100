"""`heliostat pause`."""

from __future__ import annotations

import click

from heliostat.cli.clusters import pick_client
from heliostat.cli.options import cluster_option, json_option
from heliostat.cli.output import show_json


@click.command("pause", short_help="Stop launching and releasing.")
@click.option("--off", is_flag=True, help="Go on.")
@cluster_option
@json_option
def command(*, off: bool, cluster: str | None, as_json: bool) -> None:
    """Stop launching and releasing: what runs goes on, nothing comes and nothing goes.

    It holds until `heliostat pause --off`, a restart of the controller included.

    \b
    Examples:
      heliostat pause
      heliostat pause --off
    """
    answer = pick_client(cluster).pause(on=not off)
    if as_json:
        show_json(answer)
    elif off:
        click.echo("launching and releasing go on")
    else:
        click.echo("paused: nothing is launched or released until `heliostat pause --off`")
