"""The watch of a backend ends when it is told to, whatever happens at that moment."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from heliostat.control.measures import Measures
from heliostat.control.watch import BackendWatch
from heliostat.control.wiring import Timing
from heliostat.testing.clock import ManualClock
from heliostat.testing.fake import FakeProvider


@pytest.mark.parametrize("turns", range(6))
async def test_it_ends_when_it_is_poked_and_cancelled_at_once(turns: int) -> None:
    clock = ManualClock()
    watch = BackendWatch(FakeProvider(clock=clock), clock=clock, telemetry=Measures(), timing=Timing())
    running = asyncio.create_task(watch.run())
    while not watch.view.fresh:
        await asyncio.sleep(0)
    for _ in range(5):
        await asyncio.sleep(0)
    watch.poke()
    for _ in range(turns):
        await asyncio.sleep(0)
    running.cancel()
    done, _ = await asyncio.wait([running], timeout=1.0)
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running
    assert done, "the cancellation was lost"
