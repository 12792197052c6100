"""What people ask of a running cluster is done, and every rule holds; a changed file is one that it takes."""

from __future__ import annotations

from dataclasses import replace

import pytest

from heliostat.control.spec_changes import changes
from heliostat.sim.dice import Dice
from heliostat.sim.people import KINDS, changed
from heliostat.sim.run import run
from heliostat.sim.scenario import BackendScenario, Scenario
from tests.unit.sim import pinned

BUSY = Scenario(
    seed=1,
    spec=pinned.spec(pinned.node_type("fast", "cloud", min_workers=1)),
    backends=(BackendScenario("cloud", "cloud"),),
    workload=pinned.SMALL,
    safety_s=120.0,
)
OFTEN_PER_H = 300.0


@pytest.mark.parametrize("kind", KINDS)
def test_each_command_is_given_and_no_rule_breaks(kind: str) -> None:
    found = run(replace(BUSY, people={kind: OFTEN_PER_H}))
    assert found.violation is None
    assert found.faults[f"{kind} by hand"] > 0


def test_all_of_them_together_while_controllers_die() -> None:
    often = dict.fromkeys(KINDS.keys() - {"down"}, OFTEN_PER_H)
    found = run(replace(BUSY, people=often, faults={"controller crash": 0.005}))
    assert found.violation is None
    assert found.faults["controller crash"] > 0


def test_what_is_refused_is_no_error() -> None:
    """More than `max_workers` is asked for, again and again."""
    found = run(replace(BUSY, people={"add": 4 * OFTEN_PER_H}), keep_lines=True)
    assert found.violation is None
    assert any("are refused" in line and "max_workers" in line for line in found.lines)


def test_a_changed_file_differs_and_a_running_cluster_takes_it() -> None:
    chance, file, sentences = Dice(1).stream("file"), BUSY.spec, 0
    for _ in range(50):
        new = changed(file, chance)
        found = changes(file, new)
        assert not any(one.refused for one in found)
        sentences += len(found)
        file = new
    assert sentences > 20
