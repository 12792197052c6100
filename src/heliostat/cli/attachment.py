"""The foreground command that a cluster elsewhere belongs to: a file that it touches for as long as it lives.

A cluster whose head is a Slurm job is attached while the file is there, and ends when the file has
not changed for long (`wrapper.TOUCH_SILENCE_S`). The file's text is the host and pid of that command.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path

from heliostat.cli.clusters import places_of
from heliostat.config.places import StatePlaces
from heliostat.config.record import ClusterRecord

TOUCH_S = 10.0
SILENCE_S = 35.0
"""Three touches, and a little more: who is silent for so long is not there any more, or is held up."""

LOOK_S = 1.0


def attached_file(places: StatePlaces) -> Path:
    return places.folder / "attached"


def attach(places: StatePlaces) -> None:
    """Make the cluster this process's: from now on it is attached, and the file touched until we end."""
    path = attached_file(places)
    path.write_text(_me(), encoding="utf-8")
    threading.Thread(target=_keep_touching, args=(path,), name="attached", daemon=True).start()


def detach(places: StatePlaces) -> None:
    """Let the cluster go on without any command."""
    attached_file(places).unlink(missing_ok=True)


def is_ours(places: StatePlaces) -> bool:
    """Say whether the cluster is this process's."""
    return _seen(attached_file(places))[0] == _me()


def is_attached(places: StatePlaces) -> bool:
    return attached_file(places).exists()


def is_detached(record: ClusterRecord) -> bool:
    """Say whether a cluster whose head is a job goes on without any command."""
    return record.job is not None and not is_attached(places_of(record))


def whose(record: ClusterRecord) -> str:
    """Return in words whose a running cluster is; empty for nobody's."""
    host = _host(_seen(attached_file(places_of(record)))[0]) if record.job is not None else ""
    return f"it belongs to the `heliostat up` on {host}, and ends with it" if host else ""


def holder_elsewhere(
    places: StatePlaces,
    *,
    monotonic_s: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> str | None:
    """Return the other host whose command holds the cluster; None if it is this host's, or has gone.

    Clocks of hosts differ, so what counts is that the file changes while we look.
    """
    path = attached_file(places)
    text, first = _seen(path)
    until_s = monotonic_s() + SILENCE_S
    while text and _host(text) != socket.gethostname() and monotonic_s() < until_s:
        sleep(LOOK_S)
        text, changed = _seen(path)
        if text and changed != first:
            return _host(text)
    return None


def _me() -> str:
    return f"{socket.gethostname()} {os.getpid()}"


def _host(text: str) -> str:
    return text.partition(" ")[0]


def _seen(path: Path) -> tuple[str, int]:
    """Return the file's text and time; empty without one. A file that is opened is asked of its server."""
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            return file.read(), os.fstat(file.fileno()).st_mtime_ns
    except FileNotFoundError:
        return "", 0


def _keep_touching(path: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        # Whoever takes the cluster down, or lets it go on alone, removes the file; it must not come back.
        while True:
            time.sleep(TOUCH_S)
            _touch(path)


def _touch(path: Path) -> None:
    try:
        os.utime(path)
    except FileNotFoundError:
        raise
    except OSError:
        # A shared file system has its moments; the next touch counts as well.
        return
