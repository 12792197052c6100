"""Time as this side takes it, so that tests have their own."""

from __future__ import annotations

from typing import Protocol


class Time(Protocol):
    """`now_s` is Unix time, `monotonic_s` only ever grows."""

    def now_s(self) -> float: ...

    def monotonic_s(self) -> float: ...

    async def sleep(self, seconds: float) -> None: ...
