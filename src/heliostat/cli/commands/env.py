"""`heliostat env`."""

from __future__ import annotations

import shlex

import click

from heliostat.cli.clusters import pick
from heliostat.cli.far_driver import variables as variables_for
from heliostat.cli.options import cluster_argument, json_option
from heliostat.cli.output import show_json


@click.command("env", short_help="Print what a driver needs in its environment.")
@cluster_argument
@json_option
def command(*, cluster: str | None, as_json: bool) -> None:
    """Print what a driver needs in its environment, as exports for a shell.

    CLUSTER is a name or a cluster file; it is not needed when only one runs here. Where the
    head is on another host, it is Ray's client that connects (`ray://`); `heliostat run` and
    `heliostat shell` run beside the head instead.

    \b
    Example:
      eval "$(heliostat env demo)"
      python -c 'import ray; ray.init(address="auto"); print(ray.cluster_resources())'
    """
    variables = variables_for(pick(cluster))
    if as_json:
        show_json(variables)
        return
    for name, value in variables.items():
        click.echo(f"export {name}={shlex.quote(value)}")
