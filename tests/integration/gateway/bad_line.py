"""A line to a server that is slow, or falls silent: what goes over it is swallowed, and nobody is told."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

CHUNK_BYTES = 2**16


@dataclass
class BadLine:
    """Forwards connections to a port of this host, at most so fast each way.

    A connection that is open when it falls silent stays so for good.
    """

    to_port: int
    bytes_per_s: float
    port: int = 0
    _silent: set[int] = field(default_factory=set)
    _open: int = 0

    def fall_silent(self) -> None:
        """Swallow all that goes over the connections that are open now; later ones are as ever."""
        self._silent = set(range(self._open))

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        number, self._open = self._open, self._open + 1
        there, back = await asyncio.open_connection("127.0.0.1", self.to_port)
        try:
            await asyncio.gather(self._pass(number, reader, back), self._pass(number, there, writer))
        finally:
            for one in (back, writer):
                one.close()

    async def _pass(self, number: int, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await source.read(CHUNK_BYTES):
                if number not in self._silent:
                    sink.write(data)
                    await sink.drain()
                    await asyncio.sleep(len(data) / self.bytes_per_s)
        if number not in self._silent:
            sink.close()


@asynccontextmanager
async def bad_line(to_port: int, *, bytes_per_s: float = math.inf) -> AsyncIterator[BadLine]:
    """Listen on loopback while the block runs."""
    line = BadLine(to_port, bytes_per_s)
    server = await asyncio.start_server(line.serve, "127.0.0.1", 0)
    line.port = server.sockets[0].getsockname()[1]
    try:
        yield line
    finally:
        server.close()
