"""What the simulator has found stays mended; and each scenario still tells the defect that it is kept for."""

from __future__ import annotations

import pytest

from heliostat.sim.run import run
from heliostat.sim.scenario import Scenario
from tests.unit.sim import pinned
from tests.unit.sim.mutants.catalogue import MUTANTS

FOUND = {
    "a floor waits for its gang": (pinned.FLOOR_OF_A_GANG, "met"),
    "down hears no backend first": (pinned.UNHEARD_BACKEND, "down"),
    "each word to go down wakes": (pinned.STRANGERS_HEAD, "bounded"),
    "down waits for nothing late": (pinned.LATE_LAUNCHES, "down"),
    "what no listing had is gone": (pinned.UNSEEN, "limits"),
    "what died young is gone": (pinned.DIED_YOUNG, "limits"),
    "gangs do not count on queues": (pinned.FULL_CLOUD, "settles"),
}


@pytest.mark.parametrize(("scenario", "check"), FOUND.values(), ids=FOUND.keys())
def test_what_was_found_is_mended(scenario: Scenario, check: str) -> None:
    found = run(scenario).violation
    assert found is None, f"{check} again? {found}"


@pytest.mark.parametrize("name", FOUND)
def test_the_defect_would_be_told_again(name: str) -> None:
    scenario, check = FOUND[name]
    with pytest.MonkeyPatch.context() as patch:
        MUTANTS[name].breaks(patch)
        found = run(scenario).violation
    assert found is not None
    assert found.check == check
