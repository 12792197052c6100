"""The head's wall clock is wrong from the start and set again and again, while controllers die."""

from __future__ import annotations

from dataclasses import replace

import pytest

from heliostat.sim.run import Result, run
from heliostat.sim.seeds import scenario
from tests.unit.sim.mutants.catalogue import MUTANTS

FAULTS = {"clock jump": 240.0, "controller crash": 0.001}
SEEDS = [25, 59, 65]
TELLING = 65


def jumping(seed: int) -> Result:
    found = scenario(seed)
    assert any(one.lease_s for one in found.backends), "choose a seed with leases"
    return run(replace(found, faults=FAULTS))


@pytest.mark.parametrize("seed", SEEDS)
def test_every_rule_holds(seed: int) -> None:
    result = jumping(seed)
    assert result.violation is None
    assert result.faults["clock jump"]


@pytest.mark.parametrize("name", ["the wall clock is believed", "backends dates are taken as they are"])
def test_with_the_hosts_clock_or_the_backends_one_does_not(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    MUTANTS[name].breaks(monkeypatch)
    found = jumping(TELLING).violation
    assert found is not None
    assert found.check in MUTANTS[name].checks
