"""What the loop tells the planner of drains: the head's local time, and why Ray was asked."""

from __future__ import annotations

from pathlib import Path

import pytest

from heliostat.model.drain_limit import DrainLimit
from heliostat.model.plan import Why
from heliostat.testing.clock import ManualClock
from tests.unit.control.stage import Stage
from tests.unit.control.world import demand, spec

TEN_PAST_TEN_PM_S = 1_700_000_000.0 - 200.0
"""A moment of that time of the day in UTC."""


@pytest.mark.parametrize(("offset_h", "drains"), [(0, False), (1, False), (2, True), (-1, True)])
async def test_hours_are_those_of_the_heads_host(tmp_path: Path, offset_h: float, drains: bool) -> None:
    night = DrainLimit(0, hours=(22 * 60, 24 * 60))
    clock = ManualClock(TEN_PAST_TEN_PM_S, offset_s=offset_h * 3600.0)
    stage = Stage(tmp_path, spec=spec(max_draining=(night,)), clock=clock)
    stage.ray.demands = (demand(1),)
    await stage.step(6)
    stage.ray.demands = ()
    await stage.step(12)
    assert bool(stage.ray.drains) is drains
    if not drains:
        (one,) = (await stage.operations.status()).instances
        assert one.stays.endswith("none may drain now (max_draining, 0, 22:00-24:00)")
    stage.journal.close()


async def test_why_ray_was_asked_is_known_until_the_node_has_gone(tmp_path: Path) -> None:
    stage = Stage(tmp_path)
    stage.provider.stop_s = 5.0
    stage.ray.demands = (demand(1),)
    await stage.step(6)
    stage.ray.demands = ()
    while not stage.ray.drains:
        await stage.step()
    await stage.step(3)
    snapshot = stage.controller.memory.snapshot
    assert snapshot is not None
    assert list(snapshot.drains.values()) == [Why.IDLE]
    await stage.step(30)
    assert stage.controller.memory.drains == {}
    stage.journal.close()
