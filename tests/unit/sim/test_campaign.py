"""A campaign's figures do not depend on how many processes there are; a failure shrinks to what it takes."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from heliostat.sim.campaign import campaign
from heliostat.sim.checks.suite import Violation
from heliostat.sim.run import Result
from heliostat.sim.scenario import Scenario
from heliostat.sim.seeds import scenario
from heliostat.sim.shrink import shrink

QUICK = (275, 91)


def test_figures_are_the_same_in_two_processes() -> None:
    one, two = (campaign(QUICK, jobs=jobs, stopwatch=iter((0.0, 2.0)).__next__) for jobs in (1, 2))
    assert one == two
    assert one.runs == 2
    assert one.as_json()["steps_per_s"] == round(one.steps / 2.0)


def test_what_a_failure_does_not_need_is_taken_away() -> None:
    given = replace(scenario(1), shuffled=True, faults={"lost reply": 0.1, "disk full": 10.0, "swizzle": 5.0})
    tried: list[Scenario] = []

    def runs(played: Scenario) -> Result:
        """Fail the same check with a full disk on the slurm backend, another one with none."""
        tried.append(played)
        check = "limits" if "disk full" in played.faults else "met"
        return Result(1, 100, 1.0, "", Counter(), Violation(check, "", 1.0, 40))

    smallest, result = shrink(runs(given), given, runs=runs)
    assert dict(smallest.faults) == {"disk full": 10.0}
    assert not smallest.shuffled
    assert len(smallest.policy.node_types) == len(smallest.workload.shapes) == 1
    assert smallest.steps_most <= 41
    assert result.violation is not None
    assert result.violation.check == "limits"
    assert len(tried) < 100
