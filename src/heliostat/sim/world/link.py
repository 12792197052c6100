"""The way from a provider to its backend and back: where calls take time, and where faults may strike."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from heliostat.sim.dice import Stream
from heliostat.sim.scenario import Span

T = TypeVar("T")


class Link:
    """Carries single calls of a backend. Whoever makes things go wrong overrides `call`."""

    def __init__(self, chance: Stream, call_s: Span) -> None:
        self._chance = chance
        self._call_s = call_s

    async def call(self, what: str, act: Callable[[], T]) -> T:
        """Let the ask travel, let the backend `act`, let the answer travel. Raises ProviderError."""
        half_s = self._chance.uniform(*self._call_s) / 2
        await asyncio.sleep(half_s)
        found = act()
        await asyncio.sleep(half_s)
        return found


class Turns:
    """One piece of work at a time, each to its end: a caller that is cancelled only stops waiting.

    So a command of which nobody would know whether it acted is never left behind (as in the Slurm provider).
    """

    def __init__(self) -> None:
        self._turn = asyncio.Lock()
        self._pieces: set[asyncio.Future[Any]] = set()

    async def do(self, work: Callable[[], Awaitable[T]]) -> T:
        piece = asyncio.ensure_future(self._in_turn(work))
        self._pieces.add(piece)
        piece.add_done_callback(self._forget)
        return await asyncio.shield(piece)

    async def settle(self) -> None:
        await asyncio.gather(*self._pieces, return_exceptions=True)

    async def _in_turn(self, work: Callable[[], Awaitable[T]]) -> T:
        async with self._turn:
            return await work()

    def _forget(self, piece: asyncio.Future[Any]) -> None:
        self._pieces.discard(piece)
        if not piece.cancelled():
            piece.exception()  # Nobody may be left to hear it.
