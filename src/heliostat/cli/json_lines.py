"""Whole lines of JSON from a driver's pipe, read without waiting for any."""

from __future__ import annotations

import os

CHUNK_BYTES = 65_536


class JsonLines:
    """The lines that have come so far; whatever else is printed there is passed over."""

    def __init__(self, descriptor: int) -> None:
        os.set_blocking(descriptor, False)
        self._descriptor = descriptor
        self._rest = b""

    def read(self) -> list[bytes]:
        """Return the lines that have come whole since the last call."""
        chunks = [self._rest]
        try:
            while chunk := os.read(self._descriptor, CHUNK_BYTES):
                chunks.append(chunk)
        except BlockingIOError:
            pass
        *whole, self._rest = b"".join(chunks).split(b"\n")
        return [line for line in whole if line.startswith(b"{")]
