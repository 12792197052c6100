"""`heliostat init`."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import click

from heliostat.cli import files
from heliostat.ports.errors import ConfigError, HeliostatError


@click.group("init", short_help="Look at this site and write a cluster file that works here.")
def command() -> None:
    """Look at this site and write a cluster file that works here.

    \b
    Example:
      heliostat init local -o cluster.yaml
    """


@command.command("local", short_help="For this machine alone.")
@click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False, allow_dash=True, path_type=Path),
    default=Path("cluster.yaml"),
    show_default=True,
    help="The file to write; - is stdout.",
)
@click.option("--force", is_flag=True, help="Replace the file if it is there.")
@click.option("--name", default="local", show_default=True, help="The cluster's name.")
def local(*, output: Path, force: bool, name: str) -> None:
    """Write a cluster file for this machine: its CPUs, its memory and its GPUs.

    \b
    Examples:
      heliostat init local
      heliostat init local -o gpus.yaml --name gpus
    """
    text = _text(name)
    if str(output) == "-":
        click.echo(text, nl=False)
        return
    _write(output, text, force=force)
    click.echo(f"wrote {output}: `heliostat check {output}` tries it, `heliostat up {output}` starts it")


def _text(name: str) -> str:
    """Return the file's text, checked with the same eyes as any file."""
    from heliostat.config.init_local import Machine, local_cluster_file
    from heliostat.providers.local.inventory import read_gpus, read_machine
    from heliostat.providers.local.options import LocalOptions

    found = read_machine(LocalOptions())
    gpus = read_gpus(LocalOptions(), os.environ)
    text = local_cluster_file(Machine(found.cpus, found.memory_bytes, len(gpus)), name=name)
    with tempfile.TemporaryDirectory(prefix="heliostat-") as folder:
        path = Path(folder, "cluster.yaml")
        path.write_text(text, encoding="utf-8")
        try:
            files.load(path)
        except ConfigError as error:
            # The line is of a file that nobody has seen.
            problems = [one.rpartition("cluster.yaml:")[2].partition(": ")[2] for one in error.problems]
            raise click.UsageError(f"no file for the name {name!r}: " + "; ".join(problems)) from error
    return text


def _write(path: Path, text: str, *, force: bool) -> None:
    try:
        with path.open("w" if force else "x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError as error:
        raise HeliostatError(f"{path} is there already; --force replaces it, -o names another") from error
