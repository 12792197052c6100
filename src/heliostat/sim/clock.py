"""The clocks and ids that a simulated controller sees."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from heliostat.sim.loop import VirtualLoop

EPOCH_S = 1_700_000_000.0
"""The Unix time at which every run begins."""

UPTIME_S = 5_000.0
"""For how long the head's host has been up then."""


class SimClock:
    """`ports.clock.HostClock` on the loop's time; the wall clock may jump, the others do not.

    `off_s` is how far the jumps have left the wall clock from the true time.
    """

    def __init__(self, loop: VirtualLoop, start_s: float = EPOCH_S) -> None:
        self._loop = loop
        self._start_s = start_s
        self.off_s = 0.0

    def now_s(self) -> float:
        return self._start_s + self.off_s + self._loop.time()

    def uptime_s(self) -> float:
        return UPTIME_S + self._loop.time()

    def boot_id(self) -> str:
        return "the only boot"

    def monotonic_s(self) -> float:
        return self._loop.time()

    def utc_offset_s(self) -> float:
        return 0.0

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    def jump(self, seconds: float) -> None:
        """Set the wall clock forward, or back."""
        self.off_s += seconds


class Dates:
    """A backend's times as its provider tells them: on the controller's clock, by what both say it is now."""

    def __init__(self, true_s: Callable[[], float], now_s: Callable[[], float] | None) -> None:
        self._true_s, self._now_s = true_s, now_s

    def of(self, true_s: float) -> float:
        """Return a moment of the run as Unix seconds."""
        if self._now_s is None:
            return EPOCH_S + true_s
        # Rounded, so that a date stays the same from one listing to the next.
        return EPOCH_S + true_s + round(self._now_s() - EPOCH_S - self._true_s(), 3)

    def known(self, true_s: float | None) -> float | None:
        return None if true_s is None else self.of(true_s)


class SimIds:
    """`ports.clock.Ids`: numbers that grow, over all of a run's controllers."""

    def __init__(self) -> None:
        self._made = 0

    def launch_id(self) -> str:
        self._made += 1
        return f"l{self._made}"
