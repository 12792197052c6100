"""Observe one backend on its own cadence: often while something moves, seldom when nothing does.

A listing that fails or hangs past its deadline leaves the last good rows in place and
marks the view as not fresh: unknown is not empty.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from dataclasses import replace

import structlog

from heliostat.control.wiring import Timing
from heliostat.model.instance import BackendInstance, BackendState, Offer, OfferQuery
from heliostat.model.snapshot import BackendView
from heliostat.ports.clock import Clock
from heliostat.ports.errors import ProviderError
from heliostat.ports.provider import Provider
from heliostat.ports.telemetry import Telemetry

_MOVING = {BackendState.STARTING, BackendState.STOPPING}
"""States that pass within seconds. A queue's may stay for hours: there, only what changes is a move."""

log = structlog.get_logger(__name__)


class BackendWatch:
    """Keeps `view` of one provider up to date until cancelled; `poke()` asks for a listing now."""

    def __init__(self, provider: Provider, *, clock: Clock, telemetry: Telemetry, timing: Timing) -> None:
        self.provider = provider
        self.view = BackendView()
        self.queries: Sequence[OfferQuery] = ()
        self.offers_from_s = 0.0
        self._clock = clock
        self._telemetry = telemetry
        self._timing = timing
        self._poked = asyncio.Event()
        self._offers_wanted = True
        self._wait_s = timing.listing_fast_s
        self._moved = True

    def poke(self) -> None:
        """List again at once, and ask for offers again: something of ours has just changed."""
        self._offers_wanted = True
        self._wait_s = self._timing.listing_fast_s
        self._poked.set()

    async def run(self) -> None:
        while True:
            await self.look()
            self.next_wait()
            # Not wait_for(): in Python 3.11 it loses a cancellation that comes just after the poke.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._wait_s):
                    await self._poked.wait()
            self._poked.clear()

    async def look(self) -> None:
        """List once, and refresh the offers if they are due; never raises a provider's error."""
        began_s = self._clock.now_s()
        began_monotonic_s = self._clock.monotonic_s()
        try:
            async with asyncio.timeout(self._timing.listing_deadline_s):
                rows = tuple(await self.provider.instances())
        except (ProviderError, TimeoutError) as error:
            self._failed(error)
            return
        # What came or went changes what can be had.
        self._moved = _held(rows) != _held(self.view.rows)
        self._offers_wanted |= self._moved
        offers = await self._offers_or_none()
        took_s = self._clock.monotonic_s() - began_monotonic_s
        self._telemetry.observe("listing_ms", took_s * 1000)
        self.view = BackendView(rows, began_s, True, None, offers)

    async def _offers_or_none(self) -> tuple[Offer, ...]:
        """Return the offers; where the backend does not give them, none: a good listing counts without."""
        try:
            async with asyncio.timeout(self._timing.listing_deadline_s):
                return await self._offers()
        except (ProviderError, TimeoutError) as error:
            log.warning("no offers", backend=self.provider.name, error=str(error) or "no answer in time")
            self._offers_wanted = True
            return ()

    async def _offers(self) -> tuple[Offer, ...]:
        now_s = self._clock.monotonic_s()
        due = self._offers_wanted or now_s - self.offers_from_s >= self._timing.offers_s
        if not due:
            return self.view.offers
        self._offers_wanted = False
        offers = tuple(await self.provider.offers(self.queries))
        self.offers_from_s = now_s
        return offers

    def _failed(self, error: Exception) -> None:
        text = str(error) or f"no answer within {self._timing.listing_deadline_s:.0f} s"
        if self.view.error != text:
            log.warning("backend unknown", backend=self.provider.name, error=text)
        self._offers_wanted = True
        self.view = replace(self.view, fresh=False, error=text)

    def next_wait(self) -> float:
        """Return how long the next listing may wait, twice as long each time that nothing moves."""
        moving = not self.view.fresh or any(row.state in _MOVING for row in self.view.rows)
        if moving or self._moved or self._poked.is_set():
            self._wait_s = self._timing.listing_fast_s
        else:
            self._wait_s = min(self._wait_s * 2, self._timing.listing_slow_s)
        return self._wait_s


def _held(rows: Sequence[BackendInstance]) -> set[tuple[str, BackendState]]:
    return {(row.instance_id, row.state) for row in rows}
