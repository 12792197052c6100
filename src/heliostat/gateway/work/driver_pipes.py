"""The driver's end of its pipes: its standard streams, which nobody else in its process may touch."""

from __future__ import annotations

import asyncio
import os

from heliostat.gateway.work.frames import Frames

STREAM_BYTES = 2**20


def taken() -> tuple[int, int]:
    """Return the standard input and output as descriptors of our own; what is printed goes to the log."""
    takes, gives = os.dup(0), os.dup(1)
    os.dup2(2, 1)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    return takes, gives


async def frames(pipes: tuple[int, int]) -> Frames:
    """Return both ends as one side of a conversation, which has greeted the other."""
    loop = asyncio.get_running_loop()
    takes, gives = (os.fdopen(one, mode, 0) for one, mode in zip(pipes, ("rb", "wb"), strict=True))
    reader = asyncio.StreamReader(limit=STREAM_BYTES)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), takes)
    transport, protocol = await loop.connect_write_pipe(lambda: asyncio.streams.FlowControlMixin(loop), gives)
    made = Frames(reader, asyncio.StreamWriter(transport, protocol, reader, loop))
    await made.greet()
    return made
