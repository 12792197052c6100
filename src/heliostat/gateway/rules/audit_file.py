"""The files of the audit log: the one that is written, and those that were turned away. It blocks."""

from __future__ import annotations

import errno
import os
from pathlib import Path


class AuditFile:
    """The newest file at `path`. Raises OSError where it can't be made."""

    def __init__(self, path: Path, *, rotate_bytes: int, keep_files: int) -> None:
        self._path = path
        self._rotate_bytes = rotate_bytes
        self._keep_files = keep_files
        self._file = _opened(path)

    def write(self, line: bytes) -> None:
        """Add a line; raises OSError, and leaves no part of it then."""
        size = os.fstat(self._file).st_size
        if size and size + len(line) > self._rotate_bytes:
            self._rotate()
            size = 0
        written = os.write(self._file, line)
        if written < len(line):
            # A disk that is nearly full takes a part.
            os.ftruncate(self._file, size)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def sync(self) -> None:
        """Return once all is on the disk; raises OSError."""
        os.fsync(self._file)

    def close(self) -> None:
        os.close(self._file)

    def _rotate(self) -> None:
        """Turn the files away by one; what fails loses no line, and is gone on with at the next try."""
        os.fsync(self._file)
        # First, as this needs room: nothing is turned away for a file that can't be made.
        new = self._path.with_name(f"{self._path.name}.new")
        file = _opened(new)
        try:
            files = [numbered(self._path, number) for number in range(self._keep_files + 1)]
            free = next((at for at, one in enumerate(files) if not one.exists()), self._keep_files)
            for at in range(free, 0, -1):
                os.replace(files[at - 1], files[at])
            os.replace(new, self._path)
        except OSError:
            os.close(file)
            raise
        former, self._file = self._file, file
        os.close(former)


def numbered(path: Path, number: int) -> Path:
    """Return the name of the file that was turned away so many times; 0 is the newest."""
    return path.with_name(f"{path.name}.{number}") if number else path


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
