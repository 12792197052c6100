"""`heliostat down`."""

from __future__ import annotations

import sys

import click

from heliostat.cli.clusters import pick_to_end
from heliostat.cli.foreground import INTERRUPTED_CODE
from heliostat.cli.options import DURATION, cluster_argument, json_option
from heliostat.cli.output import progress, show_json, tell


@click.command("down", short_help="Take a cluster down.")
@cluster_argument
@click.option("--timeout", type=DURATION, default="3m", show_default=True, help="How long to wait for it.")
@json_option
def command(*, cluster: str | None, timeout: float, as_json: bool) -> None:
    """Take a cluster down: workers, controller and head. It asks nothing.

    CLUSTER is a name or a cluster file; it is not needed when only one runs here. One that crashed
    is named: what is left of it ends.

    \b
    Examples:
      heliostat down
      heliostat down demo
    """
    from heliostat.cli.start import stop_cluster

    record = pick_to_end(cluster)
    name = record.cluster_name
    try:
        with progress(keep=True) as say:
            say(f"taking {name} down")
            stop_cluster(record, say=say, timeout_s=timeout)
    except KeyboardInterrupt:
        tell(f"heliostat: not waited for; `heliostat down {name}` sees to it that nothing of it is left")
        sys.exit(INTERRUPTED_CODE)
    if as_json:
        show_json({"cluster_name": record.cluster_name, "down": True})
    else:
        click.echo(f"{record.cluster_name} is down")
