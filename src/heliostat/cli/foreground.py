"""`up` in the foreground: a view that lives until Ctrl-C, and the way down.

Signals only set an event here, so that nothing is interrupted half-way.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType

import click

from heliostat.api.client import ControllerClient
from heliostat.cli import view
from heliostat.cli.clusters import client_of, places_of, still_there
from heliostat.cli.commands.events import line
from heliostat.cli.output import console, is_terminal, tell
from heliostat.config.record import ClusterRecord
from heliostat.model.report import StatusReport
from heliostat.ports.errors import HeliostatError
from heliostat.ports.journal import Event

ROUND_S = 1.0
LOST_ROUND_S = 15.0
"""Where the head is a Slurm job that does not answer, Slurm is asked whether there is one."""
EVENTS_PER_ROUND = 1000
INTERRUPTED_CODE = 128 + signal.SIGINT
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

GOING_DOWN = "still going down: workers are let go first, then the head ends"


@contextlib.contextmanager
def on_stop_signals(act: Callable[[int], None]) -> Iterator[None]:
    """Call `act` with the signal's number for each Ctrl-C, TERM and HUP while the block runs."""

    def handler(number: int, _: FrameType | None) -> None:
        act(number)

    before = {number: signal.signal(number, handler) for number in STOP_SIGNALS}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)


@contextlib.contextmanager
def interrupted_by_stop_signals() -> Iterator[None]:
    """Make TERM and HUP do what Ctrl-C does while the block runs: raise KeyboardInterrupt."""

    def interrupt(_: int) -> None:
        raise KeyboardInterrupt

    with on_stop_signals(interrupt):
        yield


@contextlib.contextmanager
def stop_signals_held_back() -> Iterator[None]:
    """Let a stop signal wait until the block is over: an import that is cut short may swallow it (seen)."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def starting() -> Iterator[None]:
    """Start a cluster in this block: Ctrl-C, TERM and HUP stop it, and end this command with 130."""
    try:
        with interrupted_by_stop_signals():
            yield
    except KeyboardInterrupt:
        tell("heliostat: stopped while it was starting; nothing of it is left")
        sys.exit(INTERRUPTED_CODE)


def hold(record: ClusterRecord, stop: threading.Event) -> bool:
    """Show the cluster until `stop` is set (True), or until it is gone by itself (False)."""
    client = client_of(record)
    if is_terminal(sys.stdout):
        return _hold_live(record, client, stop)
    return _hold_in_lines(record, client, stop)


def _hold_live(record: ClusterRecord, client: ControllerClient, stop: threading.Event) -> bool:
    from rich.live import Live
    from rich.text import Text

    with Live(Text("…"), console=console(sys.stdout), auto_refresh=False) as live:
        while not stop.is_set():
            report = _status(client)
            if report is not None:
                live.update(view.rich(report), refresh=True)
            elif not still_there(record):
                return False
            stop.wait(ROUND_S if report is not None or record.job is None else LOST_ROUND_S)
    return True


def _hold_in_lines(record: ClusterRecord, client: ControllerClient, stop: threading.Event) -> bool:
    """Print each event of this run once: what a log file wants of a live view."""
    last, ours = 0, False
    while not stop.is_set():
        round_s = ROUND_S
        try:
            for event in client.events(after=last, limit=EVENTS_PER_ROUND):
                # The journal has the former runs of a cluster of this name, too, and then this one's alone.
                ours = ours or _begins_with(event, record)
                if ours:
                    click.echo(line(event))
                last = max(last, event.seq)
        except HeliostatError:
            # The cluster belongs to this view: what can't be shown must not end it.
            if not still_there(record):
                return False
            round_s = ROUND_S if record.job is None else LOST_ROUND_S
        stop.wait(round_s)
    return True


def _begins_with(event: Event, record: ClusterRecord) -> bool:
    """Say whether an event is of this run: by its time, or by its session if a clock was set back since."""
    greeted = event.kind == "head" and record.session_name != ""
    return event.at_s >= record.created_at_s or (greeted and event.text.split()[-1] == record.session_name)


def why_it_went(record: ClusterRecord) -> str:
    """Return why a cluster that is gone went down, as its journal has it; nothing if it does not say."""
    from heliostat.journal import last_event

    last = last_event(places_of(record).journal, "down")
    # The journal has the former runs of a cluster of this name, too.
    return last.text if last is not None and last.at_s >= record.created_at_s else ""


def _status(client: ControllerClient) -> StatusReport | None:
    try:
        return client.status()
    except HeliostatError:
        return None


def say_still_going_down(_: int) -> None:
    """What a second Ctrl-C gets: the way down is not cut short, or machines would be left."""
    # Past Python's buffers: a handler may run while the main thread is writing to them.
    os.write(2, f"{GOING_DOWN}\n".encode())
