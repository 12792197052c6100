"""The gate of every change: fixed seeds, in which every rule holds; and fresh ones, which only report.

Runs of up to 10,000 steps, one seed in twenty, are left to longer campaigns (`heliostat sim faults`). Fresh
seeds come from the commit: they are the same for whoever looks at it, and others with the next one.
"""

from __future__ import annotations

import hashlib
import warnings
from itertools import islice

import pytest

from heliostat.cli.source_version import source_version
from heliostat.sim.checks.suite import Violation
from heliostat.sim.run import run
from heliostat.sim.seeds import scenario

pytestmark = pytest.mark.timeout(120)

STEPS_MOST = 1_500
FIXED = tuple(islice((seed for seed in range(1, 1_000) if scenario(seed).steps_most <= STEPS_MOST), 200))
FRESH = 10
FRESH_FROM = 1_000_000


def fresh_seeds(commit: str) -> range:
    first = FRESH_FROM + int(hashlib.sha256(commit.encode()).hexdigest()[:8], 16)
    return range(first, first + FRESH)


def report(seed: int, found: Violation, commit: str) -> None:
    """Warn of a fresh seed that breaks a rule, with what replays it."""
    replay = f"heliostat sim faults --seeds {seed} --trace   # at {commit}"
    warnings.warn(f"{found.check}: {found.text}; {replay}", stacklevel=2)


@pytest.mark.parametrize("seed", FIXED)
def test_every_rule_holds(seed: int) -> None:
    assert run(scenario(seed)).violation is None


def test_fresh_seeds_only_report() -> None:
    commit = source_version()
    for seed in fresh_seeds(commit):
        found = run(scenario(seed)).violation if scenario(seed).steps_most <= STEPS_MOST else None
        if found is not None:
            report(seed, found, commit)


def test_a_report_says_how_to_replay() -> None:
    with pytest.warns(UserWarning, match=r"met: not done; heliostat sim faults --seeds 7 --trace   # at abc"):
        report(7, Violation("met", "not done", 1.0, 2), "abc")


def test_fresh_seeds_are_those_of_a_commit() -> None:
    assert fresh_seeds("abc") == fresh_seeds("abc") != fresh_seeds("abd")
