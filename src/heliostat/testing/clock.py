"""A clock that moves only when a test says so."""

from __future__ import annotations

import asyncio

from heliostat.model.host_time import HostTime


class ManualClock:
    """Fulfils `ports.clock.Clock`; time passes by `advance` alone, and sleepers wake in order.

    `ahead_s` is how far the host's wall clock, which nobody here asks, was set ahead of it.
    """

    ahead_s = 0.0

    def __init__(self, now_s: float = 1_700_000_000.0, *, offset_s: float = 0.0) -> None:
        self._now_s = now_s
        self._offset_s = offset_s
        self._started_s = now_s
        self._sleepers: list[tuple[float, asyncio.Future[None]]] = []

    def now_s(self) -> float:
        return self._now_s

    def host_time(self) -> HostTime:
        return HostTime("", self._started_s, self.ahead_s)

    def monotonic_s(self) -> float:
        return self._now_s - self._started_s

    def utc_offset_s(self) -> float:
        return self._offset_s

    async def sleep(self, seconds: float) -> None:
        """Return when `advance` has moved the clock by `seconds`; at once if that is not positive."""
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        woken = asyncio.get_running_loop().create_future()
        self._sleepers.append((self._now_s + seconds, woken))
        await woken

    def advance(self, seconds: float) -> None:
        """Move the time on and wake whoever's time has come, earliest first."""
        self._now_s += seconds
        due = sorted((one for one in self._sleepers if one[0] <= self._now_s), key=lambda one: one[0])
        self._sleepers = [one for one in self._sleepers if one[0] > self._now_s]
        for _, woken in due:
            if not woken.done():
                woken.set_result(None)
