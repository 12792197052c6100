"""What an instance says: its log, kept within a size, and how its end reads."""

from __future__ import annotations

import contextlib
import os
import re
import signal
from collections.abc import Collection, Sequence
from pathlib import Path

LOG_MOST_BYTES = 8 * 2**20
LOG_KEPT_BYTES = 2**20
LOGS_KEPT = 200
INSTANCE_LOG = re.compile(r"[A-Za-z0-9]+\.\d+\.log")
BOOTSTRAP_MARK = "bootstrap:"
LOOK_BACK_LINES = 60


def last_lines(path: Path, lines: int) -> list[str]:
    """Return the last lines of a log, empty ones left out; nothing where there is no log."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - 64 * 1024))
            text = file.read().decode(errors="replace")
    except OSError:
        return []
    return [line for line in text.splitlines() if line.strip()][-lines:] if lines > 0 else []


def trim(path: Path) -> None:
    """Cut a log that has grown too large down to its end. Its writer appends, so it may go on."""
    with contextlib.suppress(OSError):
        if path.stat().st_size <= LOG_MOST_BYTES:
            return
        with path.open("r+b") as file:
            file.seek(-LOG_KEPT_BYTES, os.SEEK_END)
            kept = file.read()
            file.seek(0)
            file.write(kept)
            file.truncate()


def prune(folder: Path, *, keep: Collection[str]) -> None:
    """Remove the oldest logs of instances beyond `LOGS_KEPT`; other logs are not touched.

    `keep` are the ids of instances that are still there: their logs stay, however old. A
    worker that has nothing to say for weeks would otherwise lose the file it writes to.
    """
    with contextlib.suppress(OSError):
        found = [entry for entry in os.scandir(folder) if INSTANCE_LOG.fullmatch(entry.name)]
        logs = [entry for entry in found if entry.name.removesuffix(".log") not in keep]
        logs.sort(key=lambda entry: entry.stat().st_mtime)
        for entry in logs[: max(0, len(logs) - LOGS_KEPT)]:
            Path(entry.path).unlink(missing_ok=True)


def meaning(code: int | None) -> str:
    """Return an exit code in words."""
    if code is None:
        return "ended while no controller ran, so its exit code is not known"
    if code == -signal.SIGKILL:
        return "killed (SIGKILL; the system does that when memory runs out)"
    if code < 0:
        return f"ended by {_signal_name(-code)}"
    return "ended by itself" if code == 0 else f"exit code {code}"


def detail(code: int | None, log: Sequence[str]) -> str:
    """Return how it ended and the last words: the bootstrap's own last line, else the last line."""
    recent = list(log)[-LOOK_BACK_LINES:]
    own = [line for line in recent if line.startswith(BOOTSTRAP_MARK)]
    last = (own or recent)[-1:]
    return ": ".join([meaning(code), *(line.strip() for line in last)])


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
