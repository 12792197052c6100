"""A head that is a job says ahead that it ends: often enough, never late, and in words."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from heliostat.cli.lease_warnings import note_for_drivers, warn_ahead


class Clock:
    """Time passes by sleeping only."""

    def __init__(self) -> None:
        self.time_s = 1000.0

    def now_s(self) -> float:
        return self.time_s

    def monotonic_s(self) -> float:
        return self.time_s

    async def sleep(self, seconds: float) -> None:
        self.time_s += seconds


@pytest.mark.parametrize(
    ("lease_s", "left"),
    [
        (4 * 3600.0, ["4 h", "60 min", "15 min", "5 min"]),
        (1000.0, ["16 min", "15 min", "5 min"]),
        (120.0, ["2 min"]),
    ],
)
async def test_it_is_told_at_once_and_then_ahead(lease_s: float, left: list[str]) -> None:
    clock, told = Clock(), list[str]()
    await warn_ahead(clock.now_s() + lease_s, clock=clock, tell=told.append)
    assert [one.partition(" ends in ")[2].partition(",")[0] for one in told] == left
    assert told[0].endswith("`heliostat up --successor FILE` asks for the next one")


def test_drivers_and_ray_monitor_get_the_line(tmp_path: Path) -> None:
    note_for_drivers(str(tmp_path), "the head's Slurm job ends in 5 min")
    event = json.loads((tmp_path / "events" / "event_AUTOSCALER.log").read_text())
    assert (event["severity"], event["message"]) == ("WARNING", "the head's Slurm job ends in 5 min")
    assert "the head's Slurm job ends in 5 min" in (tmp_path / "monitor.log").read_text()


def test_a_disk_that_refuses_costs_only_the_line(tmp_path: Path) -> None:
    (tmp_path / "events").write_text("")
    note_for_drivers(str(tmp_path), "x")
