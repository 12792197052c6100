"""Bugs of the planner: of what is counted, what is limited, and what is let go."""

from __future__ import annotations

from dataclasses import replace

import pytest

from heliostat.model import snapshot
from heliostat.model.instance import ALIVE, BackendState, Instance, InstanceState, RayNode
from heliostat.model.node_type import NodeType
from heliostat.model.plan import Limiter, Reason, Release
from heliostat.planner import scene, settle
from heliostat.planner.drains import Drains
from heliostat.planner.ledger import Ledger, Room
from heliostat.planner.limits import ENDLESS
from heliostat.planner.scene import Scene
from heliostat.planner.wants import GangWant
from tests.unit.sim.mutants.mutant import Catalogue

PLANNER = Catalogue()

UNLIMITED = Room(ENDLESS, Limiter.MAX_WORKERS, "")


@PLANNER.mutant(seed=1, checks="limits")
def what_queues_counts_as_nothing(patch: pytest.MonkeyPatch) -> None:
    """Instances that are asked for, or in a queue, do not count against any maximum."""
    patch.setattr(scene, "ALIVE", ALIVE - {InstanceState.QUEUED, InstanceState.REQUESTED})


@PLANNER.mutant(seed=1, checks="limits")
def what_stops_counts_as_nothing(patch: pytest.MonkeyPatch) -> None:
    """Instances that are about to end do not count against any maximum, though they are there."""
    patch.setattr(scene, "ALIVE", ALIVE - {InstanceState.STOPPING})


@PLANNER.mutant(seed=3, checks="limits lost legal")
def unknown_is_gone(patch: pytest.MonkeyPatch) -> None:
    """An instance of which nothing is known is taken for gone, and launched again."""
    knows = snapshot._backend_state

    def know(*args: object) -> BackendState:
        found = knows(*args)  # type: ignore[arg-type]
        return BackendState.ENDED if found is BackendState.UNKNOWN else found

    patch.setattr(snapshot, "_backend_state", know)


@PLANNER.mutant(seed=3, checks="limits")
def a_type_has_no_maximum(patch: pytest.MonkeyPatch) -> None:
    """`max_workers` of a node type is overlooked."""
    patch.setattr(Ledger, "_type_max", lambda *_: UNLIMITED)


@PLANNER.mutant(seed=1, checks="limits")
def the_cluster_has_no_maximum(patch: pytest.MonkeyPatch) -> None:
    """`max_workers` of the whole cluster is overlooked."""
    patch.setattr(Ledger, "_cluster_max", lambda _: UNLIMITED)


@PLANNER.mutant(seed=1, checks="gentle")
def drains_are_not_asked_for(patch: pytest.MonkeyPatch) -> None:
    """An idle node is terminated without Ray's consent."""

    def drain(self: Drains, one: Instance, _: RayNode, reason: Reason) -> None:
        self.releases.append(Release(one.instance_id, reason))

    patch.setattr(Drains, "_drain", drain)


@PLANNER.mutant(seed=2, checks="gone")
def idle_nodes_stay(patch: pytest.MonkeyPatch) -> None:
    """No idle time is ever over."""
    patch.setattr(Drains, "_idle_s", lambda *_: 0.0)


@PLANNER.mutant(seed=16, checks="settles")
def floors_are_given_back(patch: pytest.MonkeyPatch) -> None:
    """What comes up for `min_workers` alone is given back as needless, and launched anew."""
    patch.setattr(Scene, "floor_of", lambda *_: 0)


@PLANNER.mutant(seed=None, checks="settles")
def gangs_do_not_count_on_queues(patch: pytest.MonkeyPatch) -> None:
    """A gang avoids what queues for it, though all that would be in time is taken."""
    bests = settle._Attempt._best

    def best(self: settle._Attempt, gang: GangWant) -> object:
        known = vars(self).get("impatient")
        if known is not None and known[0] is gang.gang:
            return known[1]
        found = bests(self, gang)
        if any(want.avoids for want in gang.wants):
            vars(self)["impatient"] = gang.gang, found
        return found

    patch.setattr(settle._Attempt, "_best", best)


@PLANNER.mutant(seed=1, checks="limits")
def one_more_than_the_cluster_may_have(patch: pytest.MonkeyPatch) -> None:
    """The cluster's maximum is reached when there is one more than that."""
    rooms = Ledger._cluster_max

    def room(self: Ledger) -> Room:
        found = rooms(self)
        return replace(found, count=found.count + 1)

    patch.setattr(Ledger, "_cluster_max", room)


@PLANNER.mutant(seed=3, checks="limits")
def one_more_of_a_type_than_there_may_be(patch: pytest.MonkeyPatch) -> None:
    """A type's maximum is reached when there is one more than that."""
    rooms = Ledger._type_max

    def room(self: Ledger, node_type: NodeType) -> Room:
        found = rooms(self, node_type)
        return replace(found, count=found.count + 1)

    patch.setattr(Ledger, "_type_max", room)
