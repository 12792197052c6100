"""Bugs of what people ask for by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest

from heliostat.control.loop import Controller
from heliostat.model.instance import Instance, RayNode
from heliostat.model.plan import Reason, Release, Why
from heliostat.model.snapshot import RayState, Snapshot
from heliostat.planner.drains import Drains
from heliostat.planner.scene import Scene
from tests.unit.sim.mutants.mutant import Catalogue

PEOPLE = Catalogue()


@PEOPLE.mutant(seed=1, checks="hand")
def a_pause_is_not_heeded(patch: pytest.MonkeyPatch) -> None:
    """While deciding is paused, the loop decides."""
    looks = Controller._snapshot

    def look(self: Controller, ray: RayState | None) -> Snapshot:
        found = looks(self, ray)
        return replace(found, operator=replace(found.operator, paused=False))

    patch.setattr(Controller, "_snapshot", look)


@PEOPLE.mutant(seed=39, checks="hand")
def what_is_protected_goes(patch: pytest.MonkeyPatch) -> None:
    """Who is protected by hand goes when it is idle, as all others do."""
    patch.setattr(Scene, "protected", lambda *_: False)


@PEOPLE.mutant(seed=22, checks="hand")
def what_is_removed_stays(patch: pytest.MonkeyPatch) -> None:
    """Who is to be gone by a time stays for as long as it works."""
    patch.setattr(Scene, "removed", lambda *_: False)


@PEOPLE.mutant(seed=355, checks="gentle")
def removal_waits_for_no_work(patch: pytest.MonkeyPatch) -> None:
    """Who is to be gone when it is idle goes at once, though it works."""

    def remove(self: Drains, one: Instance, _: RayNode) -> None:
        self.releases.append(Release(one.instance_id, Reason(Why.REMOVED_BY_HAND, "it was removed by hand")))

    patch.setattr(Drains, "_removed_when_idle", remove)


@PEOPLE.mutant(seed=243, checks="limits")
def a_changed_file_is_not_read(patch: pytest.MonkeyPatch) -> None:
    """`apply` says what has changed, and the loop goes on with the file of its start."""
    uses = Controller.use_spec
    patch.setattr(Controller, "use_spec", lambda self, _: uses(self, self.spec))
