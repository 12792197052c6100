"""Values are read and written in threads of their own: the event loop has all callers to serve."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from heliostat.gateway.hypha import payload
from heliostat.gateway.hypha.arguments import Encoding

THREADS = 2
"""More would not be faster, as they share one interpreter; one could be held up by a single large value."""


class Converting:
    """What `payload` does, away from the event loop. Its methods raise `CallError`."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="payload")

    async def received(self, value: Any, name: str, encoding: Encoding) -> Any:
        """Return a caller's argument as plain values."""
        return await self._done(_received, value, name, encoding)

    async def size_bytes(self, *values: Any) -> int:
        """Return about how much plain values are to send."""
        return int(await self._done(_size_bytes, values))

    async def result(self, value: Any, *, limit_bytes: int) -> tuple[Any, int]:
        """Return what goes back to a caller, and its size."""
        sent, size = await self._done(partial(payload.result, limit_bytes=limit_bytes), value)
        return sent, size

    async def encoded(self, value: Any, encoding: Encoding) -> Any:
        """Return an answer as its caller wants to have it."""
        return await self._done(payload.to_json, value) if encoding == "json" else value

    async def _done(self, function: Callable[..., Any], *args: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._threads, function, *args)


def _received(value: Any, name: str, encoding: Encoding) -> Any:
    given = payload.received(value, name=name)
    return payload.from_json(given, name=name) if encoding == "json" else given


def _size_bytes(values: tuple[Any, ...]) -> int:
    return sum(map(payload.size_bytes, values))
