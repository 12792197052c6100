"""The owner's functions as last heard of: what a call needs must be known before it is let in.

So it is looked up for each call, and must cost the caller and the cluster next to nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

from heliostat.gateway.errors import CallError, Code
from heliostat.gateway.work.port import Signature, Work

FRESH_S = 5.0
"""So long what was heard is not asked for again, nor what could not be had."""


class Published:
    """`now_s` is a clock that never jumps."""

    def __init__(self, work: Work, now_s: Callable[[], float]) -> None:
        self._work, self._now_s = work, now_s
        self._lock = asyncio.Lock()
        self._heard: Mapping[str, Signature] = {}
        self._trouble: CallError | None = None
        self._asked_s = float("-inf")

    async def find(self, name: str) -> Signature | None:
        """Return a function, None if there is no such one, or none can be heard of."""
        async with self._lock:
            if self._now_s() - self._asked_s > FRESH_S:
                await self._ask()
        return self._heard.get(name)

    def why_not(self, name: str) -> CallError:
        """Return what to tell a caller who was let in, of a function that was not found."""
        return self._trouble or CallError(
            Code.INVALID, f"there is no function {name!r}; `functions` lists them"
        )

    async def _ask(self) -> None:
        try:
            self._heard = {one.name: one for one in await self._work.functions()}
            self._trouble = None
        except CallError as error:
            self._trouble = error
        self._asked_s = self._now_s()
