"""Where a command's words go: facts to stdout, progress to stderr, colour to terminals only."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import IO, TYPE_CHECKING

import click

from heliostat.api import wire
from heliostat.cli import grid
from heliostat.cli.grid import Block

if TYPE_CHECKING:
    from rich.console import Console

Say = Callable[[str], None]


def is_terminal(stream: IO[str]) -> bool:
    """Say whether `stream` is a terminal that can do more than a typewriter."""
    return stream.isatty() and os.environ.get("TERM") != "dumb"


def console(stream: IO[str]) -> Console:
    """Return rich's console for a terminal; without colours where NO_COLOR is set to anything."""
    from rich.console import Console

    return Console(file=stream, no_color=bool(os.environ.get("NO_COLOR")), highlight=False)


def show(blocks: Sequence[Block]) -> None:
    """Print blocks to stdout, drawn for what it is."""
    if is_terminal(sys.stdout):
        console(sys.stdout).print(grid.rich(blocks))
    else:
        click.echo(grid.plain(blocks))


def show_json(value: object) -> None:
    """Print one JSON value to stdout, indented; dataclasses become objects."""
    click.echo(json.dumps(wire.to_plain(value), indent=2, ensure_ascii=False))


def tell(text: str) -> None:
    """Print one line to stderr: what goes on, not a fact that was asked for."""
    click.echo(grid.clean(text), err=True)


@contextlib.contextmanager
def progress(*, keep: bool = False) -> Iterator[Say]:
    """Give a function that shows what is being waited for: a spinner, or a line for each change.

    With `keep` a terminal keeps each line as well: what is said may matter later.
    """
    if not is_terminal(sys.stderr):
        yield _changes_only()
        return
    from rich.text import Text

    terminal = console(sys.stderr)
    with terminal.status(Text("…")) as status:
        known = ""

        def say(text: str) -> None:
            nonlocal known
            if keep and text != known:
                terminal.print(Text(grid.clean(text), style="dim"))
            known = text
            status.update(Text(grid.clean(text)))

        yield say


def _changes_only() -> Say:
    last = ""

    def say(text: str) -> None:
        nonlocal last
        if text != last:
            tell(text)
        last = text

    return say
