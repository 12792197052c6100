"""Messages over a pipe: whole, in any number at a time, and none behind another."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from heliostat.gateway.work.frames import GREETING, PIECE_BYTES, Broken, Frames


@asynccontextmanager
async def pair() -> AsyncIterator[tuple[Frames, Frames]]:
    ours, theirs = socket.socketpair()
    sides = [Frames(*await asyncio.open_connection(sock=one)) for one in (ours, theirs)]
    try:
        yield sides[0], sides[1]
    finally:
        for side in sides:
            side.close()


@pytest.mark.parametrize("size", [0, 1, PIECE_BYTES - 1, PIECE_BYTES, PIECE_BYTES + 1, 3 * PIECE_BYTES + 7])
async def test_a_message_arrives_whole(size: int) -> None:
    message = bytes(index % 251 for index in range(size))
    async with pair() as (ours, theirs):
        _, received = await asyncio.gather(ours.send(message), theirs.receive())
    assert received == message


@pytest.mark.parametrize("printed", [b"", b"Welcome to the cluster!\r\n", GREETING[:-1], b"\0" * 50_000])
async def test_what_a_login_shell_prints_is_passed_over(printed: bytes) -> None:
    async with pair() as (ours, theirs):
        ours._writer.write(printed)
        await ours.greet()
        await ours.send(b"first")
        await theirs.greeted()
        assert await theirs.receive() == b"first"


@pytest.mark.parametrize("printed", [b"", b"command not found\n", b"x" * 200_000])
async def test_what_never_greets_is_no_driver(printed: bytes) -> None:
    async with pair() as (ours, theirs):
        ours._writer.write(printed)
        ours.close()
        with pytest.raises(Broken):
            await theirs.greeted()


async def test_a_short_message_passes_a_long_one() -> None:
    long = b"x" * (64 * PIECE_BYTES)
    async with pair() as (ours, theirs):
        sending = asyncio.create_task(ours.send(long))
        await asyncio.sleep(0)
        sending_too = asyncio.create_task(ours.send(b"short"))
        assert await theirs.receive() == b"short"
        assert await theirs.receive() == long
        await asyncio.gather(sending, sending_too)


async def test_a_sender_that_is_cancelled_leaves_nothing_half_said() -> None:
    long = b"x" * (64 * PIECE_BYTES)
    async with pair() as (ours, theirs):
        sending = asyncio.create_task(ours.send(long))
        while not ours._writer.transport.get_write_buffer_size():
            await asyncio.sleep(0)
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending
        after = asyncio.create_task(ours.send(b"short"))
        received = [await asyncio.wait_for(theirs.receive(), 10) for _ in range(2)]
        await after
        assert sorted(received) == [b"short", long]
        assert not theirs._begun
        assert not ours._sending


async def test_many_at_a_time() -> None:
    messages = [bytes([number]) * (PIECE_BYTES // 4 * (number % 9)) for number in range(200)]
    async with pair() as (ours, theirs):
        sending = [asyncio.create_task(ours.send(one)) for one in messages]
        received = [await theirs.receive() for _ in messages]
        await asyncio.gather(*sending)
    assert sorted(received) == sorted(messages)


async def test_the_end_of_the_pipe_is_told() -> None:
    async with pair() as (ours, theirs):
        ours.close()
        with pytest.raises(Broken):
            await theirs.receive()
