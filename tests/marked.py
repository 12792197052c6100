"""Ends what carries a mark in its environment, whoever's it is, with all that came of it. Linux, root."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

END_S = 10.0
POLL_S = 0.05


class Process(NamedTuple):
    """One process. Its pid alone may mean another later, `started` (in clock ticks) tells them apart."""

    pid: int
    started: int
    parent: int
    session: int


def kill(mark: str, belongs: Callable[[str], bool]) -> None:
    """Kill every process whose variable `mark` has a value that `belongs`, until none is left.

    With it goes what has no mark any more (Ray's workers write over their environment, and a job
    may start without one): its descendants, and the sessions that it is in.
    """
    doomed: set[tuple[int, int]] = set()
    deadline = time.monotonic() + END_S
    while True:
        found = {one.pid: one for one in _all()}
        doomed |= {(one.pid, one.started) for one in _with_offspring(found, mark, belongs)}
        left = [one for one in found.values() if (one.pid, one.started) in doomed]
        if not left:
            return
        if time.monotonic() > deadline:
            raise TimeoutError(f"processes that outlive a kill: {left}")
        for one in left:
            with suppress(ProcessLookupError):
                os.kill(one.pid, signal.SIGKILL)
        time.sleep(POLL_S)


def _with_offspring(
    found: dict[int, Process], mark: str, belongs: Callable[[str], bool]
) -> Iterator[Process]:
    marked = {pid for pid in found if belongs(_value(pid, mark))}
    sessions = {found[pid].session for pid in marked} - {os.getsid(0)}
    for one in found.values():
        line = set(_line(one, found))
        if one.session in sessions or line & marked:
            yield one


def _line(one: Process, found: dict[int, Process]) -> Iterator[int]:
    """Yield a process and its ancestors, as far as they still live."""
    while True:
        yield one.pid
        above = found.get(one.parent)
        if above is None:
            return
        one = above


def _all() -> Iterator[Process]:
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit() and int(folder.name) != os.getpid():
            with suppress(OSError, IndexError):
                # The second field, the name, may hold spaces and brackets: cut behind its end.
                state, parent, _, session, *rest = (folder / "stat").read_text().rpartition(")")[2].split()
                if state not in "ZX":
                    yield Process(int(folder.name), int(rest[15]), int(parent), int(session))


def _value(pid: int, name: str) -> str:
    """Return a process's variable; '' where it has none, or is gone."""
    try:
        entries = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return ""
    found = [entry for entry in entries if entry.startswith(f"{name}=".encode())]
    return found[0].partition(b"=")[2].decode(errors="replace") if found else ""
