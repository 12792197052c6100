"""A log that costs lines, never its process, where the disk is full."""

from __future__ import annotations

import contextlib
import io
from typing import IO


class UnfailingLog(io.TextIOBase):
    """The log as a file whose disk may be full: that costs lines, and must not end its process."""

    def __init__(self, file: IO[str]) -> None:
        self._file = file

    def write(self, text: str) -> int:
        with contextlib.suppress(OSError):
            return self._file.write(text)
        return 0

    def flush(self) -> None:
        with contextlib.suppress(OSError):
            self._file.flush()
