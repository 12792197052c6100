"""Packing is repeated until it agrees with itself, a named number of times at most."""

from __future__ import annotations

import pytest

from heliostat.planner import settle
from tests.unit.planner.world import World, demand, kind, launched, policy


@pytest.mark.parametrize("passes", [1, 2, 6])
def test_the_last_pass_counts_though_it_might_have_gone_on(
    passes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However few passes there are, waiting work gets its nodes."""
    monkeypatch.setattr(settle, "PASSES", passes)
    monkeypatch.setattr(settle._Attempt, "run", _always_more(settle._Attempt.run))
    world = World(policy=policy(kind(max_workers=50), max_workers=50), demands=(demand(8),))
    assert launched(world.round()) == {"cpu": 2}


def _always_more(run: object) -> object:
    def again(self: object) -> bool:
        run(self)  # type: ignore[operator]
        return True

    return again
