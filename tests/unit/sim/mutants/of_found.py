"""Defects that were ours and that seeds have found, made anew: a scenario kept for each tells it."""

from __future__ import annotations

import pytest

from heliostat.control import tombstones
from heliostat.model import snapshot
from heliostat.planner import throttle
from heliostat.planner.settle import New, Settlement
from heliostat.planner.throttle import Throttled, Withheld
from tests.unit.sim.mutants.mutant import Catalogue

FOUND = Catalogue()


@FOUND.mutant(seed=None, checks="down")
def down_hears_no_backend_first(patch: pytest.MonkeyPatch) -> None:
    """A cluster is down when nothing of it is known, though the journal was lost and a backend is away."""
    patch.setattr(tombstones, "is_heard", lambda *_: True)


@FOUND.mutant(seed=None, checks="limits")
def what_no_listing_had_is_gone(patch: pytest.MonkeyPatch) -> None:
    """What was released before any listing had it is gone with the next one that lacks it."""
    patch.setattr(tombstones, "is_unseen", lambda *_, **__: False)


@FOUND.mutant(seed=None, checks="limits")
def what_died_young_is_gone(patch: pytest.MonkeyPatch) -> None:
    """Whose node died is gone with a listing that lacks it, though it may not show yet that it came."""
    told = snapshot._backend_state
    patch.setattr(snapshot, "_backend_state", lambda intent, view, row, _: told(intent, view, row, None))


@FOUND.mutant(seed=None, checks="met")
def a_floor_waits_for_its_gang(patch: pytest.MonkeyPatch) -> None:
    """What a floor asks for goes out with the gang that wants it; of a new type that waits for the floor."""
    wholes = throttle._whole_gangs

    def whole(settlement: Settlement, launched: list[New], withheld: list[Withheld]) -> Throttled:
        wanted = {use.want.key: one for one in withheld for use in one.new.uses}
        floors = [one for one in launched if any(use.want.key in wanted for use in one.uses)]
        held = [Withheld(one, withheld[0].stop) for one in floors]
        return wholes(settlement, [one for one in launched if one not in floors], [*withheld, *held])

    patch.setattr(throttle, "_whole_gangs", whole)
