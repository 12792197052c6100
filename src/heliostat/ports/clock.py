"""Time and ids come in from outside, so that every decision can be replayed."""

from __future__ import annotations

from typing import Protocol


class Clock(Protocol):
    def now_s(self) -> float:
        """Return Unix seconds."""
        ...

    def monotonic_s(self) -> float:
        """Return seconds that never jump, for durations and deadlines."""
        ...

    def utc_offset_s(self) -> float:
        """Return how far this host's local time is ahead of UTC just now; summer time changes it."""
        ...

    async def sleep(self, seconds: float) -> None: ...


class Ids(Protocol):
    def launch_id(self) -> str:
        """Return a new id, unique for this cluster for ever: lower-case letters and digits."""
        ...
