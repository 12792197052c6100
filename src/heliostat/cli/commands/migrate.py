"""`heliostat migrate`."""

from __future__ import annotations

import os
from pathlib import Path

import click

from heliostat.cli.output import tell
from heliostat.ports.errors import HeliostatError


@click.command("migrate", short_help="Write an older Ray-on-Slurm file in the new form.")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("-o", "--output", type=click.Path(dir_okay=False, path_type=Path), help="Write it there.")
@click.option("--force", is_flag=True, help="Replace a file that is there.")
def command(*, file: Path, output: Path | None, force: bool) -> None:
    """Write the cluster file of an older Ray-on-Slurm provider in the new form.

    Such a file works as it is, with the line `module: heliostat.launcher.NodeProvider`; this writes what it
    is read as, comments kept where possible, to standard output or to a file. What has no meaning any more
    is told.

    \b
    Examples:
      heliostat migrate old.yaml
      heliostat migrate old.yaml -o cluster.yaml
    """
    from heliostat.cli.backends import backend_keys
    from heliostat.config.cluster_file import dump_for_state
    from heliostat.config.migrate import migrated

    if output is not None and output.exists() and not force:
        raise HeliostatError(f"{output} is there already: --force replaces it")
    found = migrated(dump_for_state(file), str(file), backend_keys())
    for note in found.notes:
        tell(note)
    if found.is_same:
        tell(f"{file} is of the new form already")
    if output is None:
        click.echo(found.text, nl=False)
        return
    _write(output, found.text)
    tell(f"wrote {output}: `heliostat check {output}` tries it")


def _write(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}.new")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)
