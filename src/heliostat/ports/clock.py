"""Time and ids come in from outside, so that every decision can be replayed."""

from __future__ import annotations

from typing import Protocol

from heliostat.model.host_time import HostTime


class Clock(Protocol):
    def now_s(self) -> float:
        """Return Unix seconds, which never jump: `control.steady_clock` makes them of a host's."""
        ...

    def host_time(self) -> HostTime:
        """Return how this clock stands to its host's, which is what people and other processes have."""
        ...

    def monotonic_s(self) -> float:
        """Return seconds that never jump, for durations and deadlines."""
        ...

    def utc_offset_s(self) -> float:
        """Return how far this host's local time is ahead of `now_s` just now."""
        ...

    async def sleep(self, seconds: float) -> None: ...


class HostClock(Protocol):
    """What a host knows of the time."""

    def now_s(self) -> float:
        """Return Unix seconds by the host's wall clock, which may be set at any moment."""
        ...

    def uptime_s(self) -> float:
        """Return seconds since the host's boot, its sleep included; they never jump."""
        ...

    def boot_id(self) -> str:
        """Return what tells this boot from any other; empty where nothing does."""
        ...

    def monotonic_s(self) -> float: ...

    def utc_offset_s(self) -> float:
        """Return how far local time is ahead of UTC just now."""
        ...

    async def sleep(self, seconds: float) -> None: ...


class Ids(Protocol):
    def launch_id(self) -> str:
        """Return a new id, unique for this cluster for ever: lower-case letters and digits."""
        ...
