"""How the training is shown: a line for each step and event, or on a terminal events above a live line."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import IO, TYPE_CHECKING

import click

from heliostat.cli import grid
from heliostat.cli.output import console, is_terminal
from heliostat.cli.train_demo.figures import Change, Step

if TYPE_CHECKING:
    from rich.live import Live

BAR_CHARS = 24


class Screen:
    """Where the demo's texts go; each line begins with the seconds since the demo began."""

    def __init__(self, stream: IO[str], live: Live | None = None) -> None:
        self._stream = stream
        self._live = live
        self._began_s = time.monotonic()

    def say(self, text: str) -> None:
        self.print(f"{time.monotonic() - self._began_s:5.1f} s  {text}")

    def print(self, text: str) -> None:
        """Show a line without the time."""
        if self._live is None:
            click.echo(grid.clean(text), file=self._stream)
        else:
            from rich.text import Text

            self._live.console.print(Text(grid.clean(text)))

    def step(self, step: Step) -> None:
        """Show one step: as a line of its own, or in the live line."""
        if self._live is None:
            self.say(of_step(step))
        else:
            from rich.text import Text

            self._live.update(Text(f"{'▇' * 2 * step.size:<{BAR_CHARS}} {of_step(step)}"), refresh=True)


@contextlib.contextmanager
def screen_on(stream: IO[str]) -> Iterator[Screen]:
    """Give the screen for `stream`: live where that is a terminal."""
    if not is_terminal(stream):
        yield Screen(stream)
        return
    from rich.live import Live
    from rich.text import Text

    with Live(Text("…"), console=console(stream), auto_refresh=False, transient=True) as live:
        yield Screen(stream, live)


def of_step(step: Step) -> str:
    """Return one step in words."""
    who = members(step.size)
    return f"step {step.number:>3}: {who}, {step.samples_per_s:4.0f} samples/s, loss {step.loss:.3f}"


def of_change(change: Change, where: str) -> str:
    """Return a join or a leave in words; `where` is the worker's name."""
    why = f"{change.reason} ({change.detail})" if change.detail else change.reason
    what = f"joined on {where}" if change.joined else f"left {where}: {why}"
    return f"{'+' if change.joined else '-'} a member {what}; now {members(change.size)}"


def members(count: int) -> str:
    return f"{count} member" + ("" if count == 1 else "s")
