"""Whole runs: every rule holds on a few seeds, and a seed is the same run each time."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from heliostat.sim.run import run
from heliostat.sim.seeds import scenario

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
