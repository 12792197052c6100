"""`heliostat down`."""

from __future__ import annotations

import click

from heliostat.cli.clusters import pick
from heliostat.cli.options import DURATION, cluster_argument, json_option
from heliostat.cli.output import progress, show_json


@click.command("down", short_help="Take a cluster down.")
@cluster_argument
@click.option("--timeout", type=DURATION, default="3m", show_default=True, help="How long to wait for it.")
@json_option
def command(*, cluster: str | None, timeout: float, as_json: bool) -> None:
    """Take a cluster down: workers, controller and head. It asks nothing.

    CLUSTER is a name or a cluster file; it is not needed when only one runs here.

    \b
    Examples:
      heliostat down
      heliostat down demo
    """
    from heliostat.cli.start import stop_cluster

    record = pick(cluster)
    with progress(keep=True) as say:
        say(f"taking {record.cluster_name} down")
        stop_cluster(record, say=say, timeout_s=timeout)
    if as_json:
        show_json({"cluster_name": record.cluster_name, "down": True})
    else:
        click.echo(f"{record.cluster_name} is down")
