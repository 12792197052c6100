"""The audit log: JSON lines that are only added to, readable by the owner alone.

A call of any cost is on the disk before it begins: where that can't be, it is refused. A line that was torn
by a crash does no harm: the next one begins on a line of its own, and readers pass over what is none.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import os
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO

from heliostat.gateway.errors import CallError, Code

NAME = "audit.jsonl"
ROTATE_BYTES = 8 * 2**20
KEEP_FILES = 10
"""Older lines are kept in so many files beside the one that is written."""

WAITING_LINES_MAX = 10_000
"""Ends of calls that could not be written yet; calls of any cost are refused while there is one."""

SYNC_TIMEOUT_S = 15.0
"""A local disk takes milliseconds and a busy network file system seconds; a caller is not kept longer."""

Line = Mapping[str, Any]


class NotDurable(CallError):
    """A line was written, and nobody knows whether it is on the disk."""


class AuditLog:
    """One writer. `path` is the newest file, `path.1` the one before.

    Raises OSError where the file can't be made.
    """

    def __init__(self, path: Path, *, rotate_bytes: int = ROTATE_BYTES, keep_files: int = KEEP_FILES) -> None:
        self._path = path
        self._rotate_bytes = rotate_bytes
        self._keep_files = keep_files
        self._waiting: deque[bytes] = deque(maxlen=WAITING_LINES_MAX)
        self._written = 0
        self._durable = 0
        # Its own: nothing that others wait for may stand before a call's line.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="audit")
        self._syncing: asyncio.Future[None] | None = None
        self._file = _opened(path)

    @property
    def is_behind(self) -> bool:
        """Say whether lines wait for a disk that refused them."""
        return bool(self._waiting)

    def add(self, line: Line) -> None:
        """Write a line. Raises CallError where the disk refuses, and leaves no part of it."""
        try:
            self._catch_up()
            self._write(_encoded(line))
        except OSError as error:
            raise refusal(error) from error

    async def add_for_certain(self, line: Line) -> None:
        """Write a line and wait until it is on the disk.

        Raises CallError where it can't be written, `NotDurable` where it is and may be lost.
        """
        self.add(line)
        try:
            await asyncio.wait_for(self._until_durable(self._written), SYNC_TIMEOUT_S)
        except OSError as error:
            # Of these TimeoutError is one: a network file system that hangs says nothing.
            raise refusal(error, NotDurable) from error

    def add_at_last(self, line: Line) -> None:
        """Write a line of what has happened anyway: now, or with the next one that the disk takes."""
        self._waiting.append(_encoded(line))
        with contextlib.suppress(OSError):
            self._catch_up()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._catch_up()
        os.close(self._file)

    async def _until_durable(self, wanted: int) -> None:
        while self._durable < wanted:
            if self._syncing is None or self._syncing.done():
                self._syncing = asyncio.ensure_future(self._sync())
                self._syncing.add_done_callback(_heard)
            # One for all who wait; whoever goes away leaves it to the others.
            await asyncio.shield(self._syncing)

    async def _sync(self) -> None:
        """Wait for the disk in a thread, which has the file for itself: it may be turned away meanwhile."""
        written, file = self._written, os.dup(self._file)
        await asyncio.get_running_loop().run_in_executor(self._thread, _sync_and_close, file)
        self._durable = max(self._durable, written)

    def _catch_up(self) -> None:
        while self._waiting:
            self._write(self._waiting[0])
            self._waiting.popleft()

    def _write(self, line: bytes) -> None:
        size = os.fstat(self._file).st_size
        if size and size + len(line) > self._rotate_bytes:
            self._rotate()
            size = 0
        written = os.write(self._file, line)
        if written < len(line):
            # A disk that is nearly full takes a part.
            os.ftruncate(self._file, size)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self._written += 1

    def _rotate(self) -> None:
        os.fsync(self._file)
        files = [numbered(self._path, number) for number in range(self._keep_files + 1)]
        for older, newer in zip(reversed(files[1:]), reversed(files[:-1]), strict=True):
            with contextlib.suppress(FileNotFoundError):
                os.replace(newer, older)
        former, self._file = self._file, _opened(self._path)
        os.close(former)


def numbered(path: Path, number: int) -> Path:
    """Return the name of the file that was turned away so many times; 0 is the newest."""
    return path.with_name(f"{path.name}.{number}") if number else path


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


def _opened(path: Path) -> int:
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    file = os.open(path, flags, 0o600)
    try:
        os.fchmod(file, 0o600)
        size = os.fstat(file).st_size
        if size and os.pread(file, 1, size - 1) != b"\n":
            os.write(file, b"\n")
    except OSError:
        os.close(file)
        raise
    return file


def _sync_and_close(file: int) -> None:
    try:
        os.fsync(file)
    finally:
        os.close(file)


def _heard(sync: asyncio.Future[None]) -> None:
    """Take note of how a sync ended: all who waited may have gone."""
    if not sync.cancelled():
        sync.exception()


def refusal(error: OSError, kind: type[CallError] = CallError) -> CallError:
    """Return what a caller is told where the disk does not take what has to be written."""
    text = "the gateway can't write its audit log, so it takes no calls; tell the owner of the cluster"
    refused = kind(Code.UNAVAILABLE, text)
    refused.add_note(f"{type(error).__name__}: {error.strerror}")
    return refused
