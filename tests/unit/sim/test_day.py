"""A cluster of 100 nodes over hours, at a fraction of the time: what `benchmarks/sim_day.py` measures."""

from __future__ import annotations

from benchmarks.sim_day import HOUR_S, scenario
from heliostat.sim.run import run


def test_the_first_minutes_of_the_day() -> None:
    found = run(scenario(hours=0.1, nodes=100, round_s=9.0))
    assert found.violation is None
    assert found.machines_most > 20
    assert found.seconds > 0.1 * HOUR_S
