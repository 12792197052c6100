"""Whole runs: every rule holds on a few seeds, and a seed is the same run each time."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from heliostat.model.demand import Bundle
from heliostat.model.resources import Resources
from heliostat.sim.feasible import is_feasible
from heliostat.sim.run import run
from heliostat.sim.scenario import BackendScenario, Scenario, WorkloadScenario, WorkShape
from heliostat.sim.seeds import scenario
from heliostat.sim.world.work import Work
from tests.unit.sim import pinned

SEEDS = (*range(2, 9), *range(10, 20), 21, 22, 23)
"""Those of the first that take some tenths of a second each."""


@pytest.mark.parametrize("seed", SEEDS)
def test_every_rule_holds(seed: int) -> None:
    assert run(scenario(seed)).violation is None


@pytest.mark.parametrize("shuffled", [False, True])
def test_the_same_seed_is_the_same_run(shuffled: bool) -> None:
    seed = next(seed for seed in SEEDS if scenario(seed).shuffled is shuffled)
    first, second = (run(scenario(seed), keep_lines=keep) for keep in (False, True))
    assert (first.digest, first.steps, first.faults) == (second.digest, second.steps, second.faults)
    assert not first.lines
    assert len(second.lines) > 100


def digest_with(hash_seed: int) -> str:
    code = (
        "from heliostat.sim.run import run; from heliostat.sim.seeds import scenario;"
        "print(*(run(scenario(seed)).digest for seed in (3, 5)))"
    )
    env = {**os.environ, "PYTHONHASHSEED": str(hash_seed)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True, timeout=50
    )
    return done.stdout


def test_a_run_does_not_depend_on_the_order_of_sets() -> None:
    assert digest_with(1) == digest_with(2)


def test_seeds_differ() -> None:
    assert len({run(scenario(seed)).digest for seed in (3, 5, 8)}) == 3


def test_a_result_is_given_up_with_the_work_that_could_not_make_it_again() -> None:
    """Else each lease's end would begin work anew that the next lease perhaps has no time for."""
    asked = Bundle(Resources.of({"CPU": 1}))
    lasting = Scenario(
        1,
        pinned.spec(pinned.node_type("cpu", "slurm")),
        (BackendScenario("slurm", "batch", boot_s=(2.0, 2.0), queue_s=(0.0, 1.0), lease_s=100.0),),
        WorkloadScenario(
            (WorkShape("task", asked, (1, 1), work_s=(50.0, 50.0), retries=50, pins_s=60.0),),
            every_s=(1.0, 1.0),
            unfinished_most=1,
        ),
        safety_s=70.0,
    )
    assert not is_feasible(Work(1, asked, 50.0, pins_s=60.0), lasting)
    assert run(lasting).violation is None
