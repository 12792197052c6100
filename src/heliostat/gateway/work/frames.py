"""Messages between the gateway and its driver, over one pipe each way.

A message goes in pieces, so that a short one need not wait until a large one is through. Each piece is its
message's number, a mark for the last one, its length, and so many bytes.
"""

from __future__ import annotations

import asyncio
import itertools
import struct

HEAD = struct.Struct(">Q?I")
PIECE_BYTES = 256 * 1024
GREETING = b"\0heliostat driver 1\n"
"""A driver's first bytes: what a login shell or a prolog of Slurm's prints comes before them."""
MESSAGE_BYTES_MAX = 2**30
"""Far above what any caller may send; more is a defect, and would take the owner's memory."""


class Broken(ConnectionError):
    """The other side is gone, or speaks otherwise."""


class Frames:
    """One side of the pipes. Any number of tasks may send; one receives."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._numbers = itertools.count()
        self._begun: dict[int, bytearray] = {}
        self._sending: set[asyncio.Task[None]] = set()

    async def greet(self) -> None:
        """Tell the other side that from here on it hears nobody but us."""
        self._writer.write(GREETING)
        await self._writer.drain()

    async def greeted(self) -> None:
        """Pass over what comes before the other side's greeting; raises Broken if none comes."""
        try:
            await self._reader.readuntil(GREETING)
        except asyncio.LimitOverrunError as error:
            raise Broken("it says much, and nothing of a driver's") from error
        except (asyncio.IncompleteReadError, OSError) as error:
            raise Broken("the pipe has ended") from error

    async def send(self, message: bytes) -> None:
        """Hand the whole message over to the pipe; raises Broken when nobody reads it any more.

        It goes through even if whoever sends it is cancelled: the other side keeps the pieces of what it has
        half of until the rest comes.
        """
        sending = asyncio.get_running_loop().create_task(self._send(message))
        self._sending.add(sending)
        sending.add_done_callback(self._sent)
        await asyncio.shield(sending)

    def _sent(self, sending: asyncio.Task[None]) -> None:
        self._sending.discard(sending)
        if not sending.cancelled():
            # Nobody may be left who would be told that the pipe is broken.
            sending.exception()

    async def _send(self, message: bytes) -> None:
        number, view = next(self._numbers), memoryview(message)
        for start in range(0, max(1, len(view)), PIECE_BYTES):
            piece = view[start : start + PIECE_BYTES]
            head = HEAD.pack(number, start + PIECE_BYTES >= len(view), len(piece))
            try:
                self._writer.write(head)
                self._writer.write(piece)
                # Others write here meanwhile: their pieces go between ours.
                await self._writer.drain()
            except (OSError, RuntimeError) as error:
                raise Broken("the pipe is closed") from error

    async def receive(self) -> bytes:
        """Return the next message that is whole; raises Broken at the pipe's end."""
        while True:
            try:
                number, last, length = HEAD.unpack(await self._reader.readexactly(HEAD.size))
                piece = await self._reader.readexactly(length)
            except (asyncio.IncompleteReadError, OSError) as error:
                raise Broken("the pipe has ended") from error
            whole = self._begun.setdefault(number, bytearray())
            whole += piece
            if len(whole) > MESSAGE_BYTES_MAX:
                raise Broken(f"a message of more than {MESSAGE_BYTES_MAX} bytes")
            if last:
                return bytes(self._begun.pop(number))

    def close(self) -> None:
        self._writer.close()
