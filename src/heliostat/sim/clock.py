"""The clocks and ids that a simulated controller sees."""

from __future__ import annotations

import asyncio

from heliostat.sim.loop import VirtualLoop

EPOCH_S = 1_700_000_000.0
"""The Unix time at which every run begins."""


class SimClock:
    """`ports.clock.Clock` on the loop's time; the wall clock may jump, the monotonic one does not.

    `off_s` is how far the jumps have left the wall clock from the true time.
    """

    def __init__(self, loop: VirtualLoop, start_s: float = EPOCH_S) -> None:
        self._loop = loop
        self._start_s = start_s
        self.off_s = 0.0

    def now_s(self) -> float:
        return self._start_s + self.off_s + self._loop.time()

    def monotonic_s(self) -> float:
        return self._loop.time()

    def utc_offset_s(self) -> float:
        return 0.0

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    def jump(self, seconds: float) -> None:
        """Set the wall clock forward, or back."""
        self.off_s += seconds


class SimIds:
    """`ports.clock.Ids`: numbers that grow, over all of a run's controllers."""

    def __init__(self) -> None:
        self._made = 0

    def launch_id(self) -> str:
        self._made += 1
        return f"l{self._made}"
