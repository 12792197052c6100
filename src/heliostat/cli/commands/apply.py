"""`heliostat apply`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from heliostat.cli import files
from heliostat.cli.clusters import client_of, pick, places_of
from heliostat.cli.options import json_option, override_options, overrides
from heliostat.cli.output import show_json, tell
from heliostat.config.cluster_file import absolute_paths, dump_for_state
from heliostat.config.record import ClusterRecord
from heliostat.ports.errors import HeliostatError


@click.command("apply", short_help="Bring a changed file to its running cluster.")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@override_options
@json_option
def command(*, file: Path, name: str | None, max_workers: int | None, as_json: bool) -> None:
    """Bring a changed FILE to its running cluster, while work runs.

    Limits count at once. Workers of a changed shape leave when they are idle, and new
    ones come in the new shape. What a running cluster can't take (the head's type, the
    backends) is refused, and nothing is changed.

    Relative paths are seen from FILE's own folder, whichever file the cluster was started with.

    What waits after failures or refusals is asked for at once, of an unchanged file too:
    so it is what to do once an account or a quota is mended.

    \b
    Example:
      heliostat apply cluster.yaml
    """
    given = overrides(name=name, max_workers=max_workers)
    spec = files.load(file, given)
    for note in spec.notes:
        tell(note)
    record = pick(spec.name)
    # The cluster sees relative paths from the folder of the file that it was started with.
    moved = file.parent.resolve() != Path(record.source).parent.resolve()
    answer = _applied(record, dump_for_state(file, given, absolute_paths(file, spec) if moved else {}))
    if as_json:
        show_json(answer)
        return
    for change in answer["changes"]:
        click.echo(change)
    if not answer["changes"]:
        click.echo(f"{spec.name}: nothing changed")
    # A controller of an earlier version says nothing of this.
    for sentence in answer.get("again", ()):
        click.echo(sentence)


def _applied(record: ClusterRecord, text: str) -> dict[str, Any]:
    """Put the text in place of the applied copy; the former one comes back if it is refused."""
    copy = places_of(record).config
    former = copy.read_bytes() if copy.exists() else None
    _replace(copy, text.encode())
    try:
        return client_of(record).apply()
    except HeliostatError:
        if former is not None:
            _replace(copy, former)
        raise


def _replace(path: Path, content: bytes) -> None:
    temporary = path.with_name(f".{path.name}.new")
    temporary.write_bytes(content)
    os.replace(temporary, path)
