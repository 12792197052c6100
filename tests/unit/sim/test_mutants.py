"""The simulator tells each of a list of deliberate bugs, by the check that is meant to."""

from __future__ import annotations

import pytest

from heliostat.sim.run import run
from heliostat.sim.seeds import scenario
from tests.unit.sim.mutants.catalogue import MUTANTS
from tests.unit.sim.mutants.mutant import Mutant

SEEDS_MOST = 1000
"""Each is told within so many seeds, counted from 1."""


SEEDED = {name: one for name, one in MUTANTS.items() if one.seed is not None}


@pytest.mark.parametrize("mutant", SEEDED.values(), ids=SEEDED.keys())
def test_its_seed_tells_it(mutant: Mutant) -> None:
    assert mutant.seed is not None
    assert 1 <= mutant.seed <= SEEDS_MOST
    found = mutant.found_by(mutant.seed)
    assert found is not None, f"seed {mutant.seed} does not tell it: benchmarks/sim_mutants.py finds another"
    assert found.check in mutant.checks, found


def test_there_are_many_and_each_says_what_it_breaks() -> None:
    assert len(SEEDED) >= 50
    assert [one.name for one in MUTANTS.values() if not one.says.endswith(".")] == []


@pytest.mark.parametrize("seed", sorted({one.seed or 0 for one in SEEDED.values()}))
def test_without_a_mutant_its_seed_breaks_no_rule(seed: int) -> None:
    assert run(scenario(seed)).violation is None
