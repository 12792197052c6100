"""The audit log: JSON lines that are only added to, readable by the owner alone.

A call of any cost is on the disk before it begins: where that can't be, it is refused. A line that was torn
by a crash does no harm: the next one begins on a line of its own, and readers pass over what is none.

One thread writes, in the order in which lines were added: a disk that hangs holds up only who waits for it.
"""

from __future__ import annotations

import asyncio
import errno
import json
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from heliostat.gateway.errors import CallError, Code
from heliostat.gateway.rules.audit_file import AuditFile, numbered

NAME = "audit.jsonl"
ROTATE_BYTES = 8 * 2**20
KEEP_FILES = 10
"""Older lines are kept in so many files beside the one that is written."""

WAITING_LINES_MAX = 10_000
"""Lines of what has happened that could not be written yet: above all ends of calls."""

SYNC_TIMEOUT_S = 15.0
"""A local disk takes milliseconds and a busy network file system seconds; a caller is not kept longer."""

CLOSE_TIMEOUT_S = 5.0
"""For what still waits at the end. A disk that hangs keeps nobody from ending."""

Line = Mapping[str, Any]


class NotDurable(CallError):
    """A line was written, and nobody knows whether it is on the disk."""


@dataclass(frozen=True)
class _Entry:
    """A line on its way. Without `written` nobody waits for it, and it is kept until the disk takes it.

    With it the line is dropped if the disk refuses, or if who waited gave up before its turn came.
    """

    data: bytes
    written: Future[None] | None = None
    is_certain: bool = False

    def begins(self) -> bool:
        """Say whether it is to be written; from then on it can't be withdrawn."""
        return self.written is None or self.written.set_running_or_notify_cancel()


class AuditLog:
    """One writer. `path` is the newest file, `path.1` the one before.

    Raises OSError where the file can't be made.
    """

    def __init__(self, path: Path, *, rotate_bytes: int = ROTATE_BYTES, keep_files: int = KEEP_FILES) -> None:
        self._file = AuditFile(path, rotate_bytes=rotate_bytes, keep_files=keep_files)
        self._queue: deque[_Entry] = deque()
        self._changed = threading.Condition()
        self._is_due = self._is_closing = self._is_refused = False
        self._busy_since_s: float | None = None
        # Its own, and nobody's to wait for as the process ends.
        self._thread = threading.Thread(target=self._serve, name="audit", daemon=True)
        self._thread.start()

    @property
    def is_behind(self) -> bool:
        """Say whether the disk refused the last line, or has been silent for too long."""
        return self._is_refused or self._is_silent

    @property
    def _is_silent(self) -> bool:
        since_s = self._busy_since_s
        return since_s is not None and time.monotonic() - since_s > SYNC_TIMEOUT_S

    def add_at_last(self, line: Line) -> None:
        """Write a line of what has happened anyway: now, or with the next one that the disk takes."""
        self._put(_Entry(_encoded(line)))

    def add_if_well(self, line: Line) -> None:
        """The same for what may be missing: it is dropped while the log is behind."""
        if not self.is_behind:
            self.add_at_last(line)

    async def add(self, line: Line) -> None:
        """Write a line of what costs nothing. Raises CallError where the disk refuses.

        Nobody waits for that, but while the log is behind.
        """
        if self.is_behind:
            await self._added(_Entry(_encoded(line), Future()))
        else:
            self.add_at_last(line)

    async def add_for_certain(self, line: Line) -> None:
        """Write a line and wait until it is on the disk.

        Raises CallError where it can't be written, and leaves no part of it; `NotDurable` where it may be
        there.
        """
        await self._added(_Entry(_encoded(line), Future(), is_certain=True))

    def settle(self, timeout_s: float) -> bool:
        """Wait until all is written that the disk takes, so long at most; say whether it is."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._is_due and self._busy_since_s is None, timeout_s)

    def close(self) -> None:
        """Try once more what waits, and end. Blocks, by `CLOSE_TIMEOUT_S` at most."""
        with self._changed:
            self._is_closing, self._is_due = True, bool(self._queue)
            self._changed.notify_all()
        self._thread.join(CLOSE_TIMEOUT_S)

    async def _added(self, entry: _Entry) -> None:
        assert entry.written is not None
        if self._is_silent:
            # Others have waited for it already.
            raise refusal(TimeoutError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT)))
        self._put(entry)
        try:
            await asyncio.wait_for(asyncio.wrap_future(entry.written), SYNC_TIMEOUT_S)
        except TimeoutError as error:
            # A network file system that hangs says nothing.
            raise refusal(error, CallError if entry.written.cancel() else NotDurable) from error
        except asyncio.CancelledError:
            entry.written.cancel()
            raise

    def _put(self, entry: _Entry) -> None:
        with self._changed:
            self._queue.append(entry)
            if len(self._queue) > WAITING_LINES_MAX:
                self._queue.popleft()
            self._is_due = True
            self._changed.notify_all()

    def _serve(self) -> None:
        """Write what is added, in a thread."""
        while (batch := self._next_batch()) is not None:
            self._write(batch)
        self._file.close()

    def _next_batch(self) -> Sequence[_Entry] | None:
        """Wait for lines; None at the end. What the disk refused is tried again with the next one."""
        with self._changed:
            self._busy_since_s = None
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._is_due or self._is_closing)
            if not self._is_due:
                return None
            self._is_due = False
            self._busy_since_s = time.monotonic()
            batch = list(self._queue)
            self._queue.clear()
        return batch

    def _write(self, batch: Sequence[_Entry]) -> None:
        unsynced: list[Future[None]] = []
        for index, entry in enumerate(batch):
            if not entry.begins():
                continue
            self._busy_since_s = time.monotonic()
            try:
                self._file.write(entry.data)
            except OSError as error:
                self._refused(entry, batch[index + 1 :], error)
                break
            self._is_refused = False
            if entry.written is not None and entry.is_certain:
                unsynced.append(entry.written)
            elif entry.written is not None:
                entry.written.set_result(None)
        if unsynced:
            self._sync(unsynced)

    def _sync(self, waiting: Sequence[Future[None]]) -> None:
        """Wait for the disk, once for all who want it."""
        self._busy_since_s = time.monotonic()
        try:
            self._file.sync()
        except OSError as error:
            for one in waiting:
                one.set_exception(refusal(error, NotDurable))
        else:
            for one in waiting:
                one.set_result(None)

    def _refused(self, first: _Entry, others: Sequence[_Entry], error: OSError) -> None:
        """Tell those who wait; the lines of what has happened stay, ahead of all that has come since."""
        self._is_refused = True
        refused = [first, *(one for one in others if one.begins())]
        for one in refused:
            if one.written is not None:
                one.written.set_exception(refusal(error))
        with self._changed:
            self._queue.extendleft(one for one in reversed(refused) if one.written is None)


def lines_in(path: Path, *, keep_files: int = KEEP_FILES) -> Iterator[dict[str, Any]]:
    """Yield all lines that are kept, oldest first; what is no line of ours is passed over."""
    for number in range(keep_files, -1, -1):
        try:
            file = numbered(path, number).open("rb")
        except FileNotFoundError:
            continue
        with file:
            yield from filter(None, map(decoded, file))


def last_lines(path: Path, *, limit: int, keep: Callable[[Line], bool]) -> list[dict[str, Any]]:
    """Return the newest lines that are to be kept, oldest first."""
    return list(deque(filter(keep, lines_in(path)), maxlen=limit))


class Follower:
    """What is added to a log after this was made, over its files; for readers in another process."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: BinaryIO | None = None
        self._rest = b""
        self._open()
        if self._file is not None:
            self._file.seek(0, os.SEEK_END)

    def new(self) -> list[dict[str, Any]]:
        """Return the whole lines that have come since the last call."""
        found = self._read()
        if self._is_turned():
            # Once more: the last lines may have come just before it was turned away.
            found += self._read()
            self._open()
            found += self._read()
        return found

    def _open(self) -> None:
        if self._file is not None:
            self._file.close()
        self._rest = b""
        try:
            self._file = self._path.open("rb")
        except FileNotFoundError:
            self._file = None

    def _is_turned(self) -> bool:
        try:
            now = self._path.stat()
        except FileNotFoundError:
            return False
        return self._file is None or os.fstat(self._file.fileno()).st_ino != now.st_ino

    def _read(self) -> list[dict[str, Any]]:
        if self._file is None:
            return []
        *whole, self._rest = (self._rest + self._file.read()).split(b"\n")
        return list(filter(None, map(decoded, whole)))


def decoded(line: bytes) -> dict[str, Any] | None:
    """Return a line's object, None where it was torn."""
    try:
        found = json.loads(line)
    except ValueError:
        return None
    return found if isinstance(found, dict) and isinstance(found.get("at_s"), int | float) else None


def _encoded(line: Line) -> bytes:
    plain = {key: value for key, value in line.items() if value is not None}
    # Unusual text is escaped: a line break of any alphabet must not end a line.
    return json.dumps(plain, separators=(",", ":"), default=str).encode() + b"\n"


def refusal(error: OSError, kind: type[CallError] = CallError) -> CallError:
    """Return what a caller is told where the disk does not take what has to be written."""
    text = "the gateway can't write its audit log, so it takes no calls; tell the owner of the cluster"
    refused = kind(Code.UNAVAILABLE, text)
    refused.add_note(f"{type(error).__name__}: {error.strerror}")
    return refused
