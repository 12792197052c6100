"""Bugs of the planner: of what is counted, what is limited, and what is let go."""

from __future__ import annotations

from dataclasses import replace

import pytest

from heliostat.model import snapshot
from heliostat.model.instance import ALIVE, BackendState, Instance, InstanceState, RayNode
from heliostat.model.node_type import NodeType
from heliostat.model.plan import Limiter, Reason, Release
from heliostat.planner import scale_down, scene, settle
from heliostat.planner.disruption import Disruption
from heliostat.planner.drains import Drains
from heliostat.planner.ledger import Ledger, Room
from heliostat.planner.limits import ENDLESS
from heliostat.planner.scene import Scene
from heliostat.planner.wants import GangWant
from tests.unit.sim.mutants.mutant import Catalogue

PLANNER = Catalogue()


def _spare_of_all(patch: pytest.MonkeyPatch) -> None:
    """Let `Scene.spare` name every type: without those that are not counted its users would fail."""

    def spare(self: Scene) -> dict[str, int]:
        return {name: self.staying_counts[name] - self.floor_of(name) for name in self.types}

    patch.setattr(Scene, "spare", property(spare))


UNLIMITED = Room(ENDLESS, Limiter.MAX_WORKERS, "")


@PLANNER.mutant(seed=5, checks="limits")
def what_queues_counts_as_nothing(patch: pytest.MonkeyPatch) -> None:
    """Instances that are asked for, or in a queue, do not count against any maximum."""
    patch.setattr(scene, "ALIVE", ALIVE - {InstanceState.QUEUED, InstanceState.REQUESTED})
    _spare_of_all(patch)


@PLANNER.mutant(seed=45, checks="limits")
def what_stops_counts_as_nothing(patch: pytest.MonkeyPatch) -> None:
    """Instances that are about to end do not count against any maximum, though they are there."""
    patch.setattr(scene, "ALIVE", ALIVE - {InstanceState.STOPPING})
    _spare_of_all(patch)


@PLANNER.mutant(seed=2, checks="limits lost legal")
def unknown_is_gone(patch: pytest.MonkeyPatch) -> None:
    """An instance of which nothing is known is taken for gone, and launched again."""
    knows = snapshot._backend_state

    def know(*args: object) -> BackendState:
        found = knows(*args)  # type: ignore[arg-type]
        return BackendState.ENDED if found is BackendState.UNKNOWN else found

    patch.setattr(snapshot, "_backend_state", know)


@PLANNER.mutant(seed=32, checks="limits")
def a_type_has_no_maximum(patch: pytest.MonkeyPatch) -> None:
    """`max_workers` of a node type is overlooked."""
    patch.setattr(Ledger, "_type_max", lambda *_: UNLIMITED)


@PLANNER.mutant(seed=7, checks="limits")
def the_cluster_has_no_maximum(patch: pytest.MonkeyPatch) -> None:
    """`max_workers` of the whole cluster is overlooked."""
    patch.setattr(Ledger, "_cluster_max", lambda _: UNLIMITED)


@PLANNER.mutant(seed=2, checks="gentle")
def drains_are_not_asked_for(patch: pytest.MonkeyPatch) -> None:
    """An idle node is terminated without Ray's consent."""

    def drain(self: Drains, one: Instance, _: RayNode, reason: Reason) -> None:
        self.releases.append(Release(one.instance_id, reason))

    patch.setattr(Drains, "_drain", drain)


@PLANNER.mutant(seed=2, checks="gone")
def idle_nodes_stay(patch: pytest.MonkeyPatch) -> None:
    """No idle time is ever over."""
    patch.setattr(Drains, "_idle_s", lambda *_: 0.0)


@PLANNER.mutant(seed=7, checks="drains settles")
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


@PLANNER.mutant(seed=7, checks="limits")
def one_more_than_the_cluster_may_have(patch: pytest.MonkeyPatch) -> None:
    """The cluster's maximum is reached when there is one more than that."""
    rooms = Ledger._cluster_max

    def room(self: Ledger) -> Room:
        found = rooms(self)
        return replace(found, count=found.count + 1)

    patch.setattr(Ledger, "_cluster_max", room)


@PLANNER.mutant(seed=32, checks="limits")
def one_more_of_a_type_than_there_may_be(patch: pytest.MonkeyPatch) -> None:
    """A type's maximum is reached when there is one more than that."""
    rooms = Ledger._type_max

    def room(self: Ledger, node_type: NodeType) -> Room:
        found = rooms(self, node_type)
        return replace(found, count=found.count + 1)

    patch.setattr(Ledger, "_type_max", room)


@PLANNER.mutant(seed=25, checks="needless limits settles")
def what_queues_is_no_supply(patch: pytest.MonkeyPatch) -> None:
    """Work that an instance in a queue is meant for is planned for once more."""
    full = Scene.__dict__["coming"].func

    def coming(self: Scene) -> tuple[Instance, ...]:
        return tuple(one for one in full(self) if one.state is not InstanceState.QUEUED)

    patch.setattr(Scene, "coming", property(coming))


@PLANNER.mutant(seed=5, checks="limits")
def money_is_no_object(patch: pytest.MonkeyPatch) -> None:
    """`max_cost_usd_per_h` is overlooked."""
    patch.setattr(Ledger, "_budget", lambda *_: UNLIMITED)
    patch.setattr(Ledger, "budget_left", lambda _: None)


@PLANNER.mutant(seed=5, checks="limits")
def what_is_there_costs_nothing(patch: pytest.MonkeyPatch) -> None:
    """Only what a plan adds counts against the budget."""

    def spent(self: Ledger) -> float:
        return sum(self.scene.price(name) * count for name, count in self.added.items())

    patch.setattr(Ledger, "_spent", spent)


@PLANNER.mutant(seed=4, checks="drains")
def floors_are_drained(patch: pytest.MonkeyPatch) -> None:
    """Idle nodes that `min_workers` asks for are let go, and launched anew."""
    begins = Drains.__init__

    def begin(self: Drains, *args: object) -> None:
        begins(self, *args)  # type: ignore[arg-type]
        self.spare = dict.fromkeys(self.spare, ENDLESS)

    patch.setattr(Drains, "__init__", begin)


@PLANNER.mutant(seed=30, checks="drains")
def any_number_is_drained_at_a_time(patch: pytest.MonkeyPatch) -> None:
    """`max_draining` is overlooked."""
    patch.setattr(Disruption, "_tightest", lambda *_: None)


@PLANNER.mutant(seed=11, checks="told")
def nobody_tells_of_the_end(patch: pytest.MonkeyPatch) -> None:
    """Work on a node whose lease ends, or which a market takes back, is not told."""
    patch.setattr(Drains, "_at_its_end", lambda *_: False)


@PLANNER.mutant(seed=29, checks="needless")
def what_is_not_needed_comes_all_the_same(patch: pytest.MonkeyPatch) -> None:
    """What waits in a queue is not given back when its work is done elsewhere."""
    patch.setattr(scale_down, "needless", lambda *_: ())
