"""`heliostat protect`."""

from __future__ import annotations

import click

from heliostat.cli.clusters import pick_client
from heliostat.cli.options import cluster_option, json_option
from heliostat.cli.output import show_json


@click.command("protect", short_help="Keep a worker, idle or not.")
@click.argument("instance", metavar="ID")
@click.option("--off", is_flag=True, help="Let it be released again.")
@cluster_option
@json_option
def command(*, instance: str, off: bool, cluster: str | None, as_json: bool) -> None:
    """Keep a worker: it is not released, however long it is idle, until `--off` or `down`.

    ID is its name (w1), its instance id, or the beginning of Ray's node id.

    \b
    Examples:
      heliostat protect w1
      heliostat protect w1 --off
    """
    answer = pick_client(cluster).protect(instance, on=not off)
    name = answer.get("name", instance)
    if as_json:
        show_json(answer)
    elif off:
        click.echo(f"{name} may go again when it is idle")
    else:
        click.echo(f"{name} stays until `heliostat protect {name} --off`")
