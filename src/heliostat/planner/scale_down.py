"""What goes again: room on its way that nothing needs, and nodes (`drains.py`). And why the others stay."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from heliostat.model.instance import Instance, InstanceState
from heliostat.model.plan import Drain, Reason, Release, Why
from heliostat.planner.drains import Drains, drift_data, excess_data
from heliostat.planner.limits import VANISHED_S
from heliostat.planner.scene import Scene, soonest
from heliostat.planner.settle import Settlement


@dataclass
class Shrinkage:
    """Releases, drains and what stays; `going` counts per type what is not part of the target."""

    releases: list[Release] = field(default_factory=list)
    drains: list[Drain] = field(default_factory=list)
    kept: dict[str, Reason] = field(default_factory=dict)
    going: Counter[str] = field(default_factory=Counter)


def shrink(scene: Scene, settlement: Settlement) -> Shrinkage:
    """Return what goes. Nothing does while the cluster is paused."""
    found = Shrinkage()
    surplus = needless(scene, settlement)
    _withdraw(scene, found)
    _give_back(scene, surplus, found)
    nodes = Drains(scene, settlement, surplus)
    nodes.run()
    if scene.operator.paused:
        held: list[Release | Drain] = [*found.releases, *nodes.releases, *nodes.drains]
        paused = {one.instance_id: Reason(Why.IDLE, "the cluster is paused", one.reason.data) for one in held}
        return Shrinkage(kept=paused | found.kept | nodes.kept)
    return Shrinkage(
        releases=found.releases + nodes.releases,
        drains=nodes.drains,
        kept=found.kept | nodes.kept,
        going=found.going + nodes.going,
    )


def needless(scene: Scene, settlement: Settlement) -> tuple[Instance, ...]:
    """Return what is on its way and needed by nothing: demand, gang, constraint, floor or a person.

    Queued ones first, then starting ones; of those in one state the dearest first, then the latest
    asked for. What waits to replace an ending node has a planned use, like demand.
    """
    found = []
    spare = dict(scene.spare)
    for one in _least_wanted_first(scene):
        unknown = one.state is InstanceState.UNKNOWN or not scene.known(one)
        held = one.instance_id in settlement.held_for and not scene.held_enough(one)
        if unknown or held or scene.protected(one) or settlement.used(one.instance_id):
            continue
        if spare[one.node_type] > 0:
            spare[one.node_type] -= 1
            found.append(one)
    return tuple(found)


def _least_wanted_first(scene: Scene) -> list[Instance]:
    latest_first = sorted(scene.staying_coming, key=soonest, reverse=True)
    return sorted(latest_first, key=lambda one: (-soonest(one)[0], -scene.price(one.node_type)))


def _withdraw(scene: Scene, found: Shrinkage) -> None:
    for one in scene.coming:
        kind = scene.withdrawal(one)
        if kind is not None and scene.known(one):
            found.releases.append(Release(one.instance_id, withdrawn(scene, one, kind)))


def withdrawn(scene: Scene, one: Instance, kind: str) -> Reason:
    """Return why something on its way is not wanted any more; `kind` is of `Scene.withdrawal`."""
    name = one.display_name
    if kind == "removed":
        data = {"deadline_s": scene.operator.removals[one.instance_id]}
        return Reason(Why.REMOVED_BY_HAND, f"{name} was removed by hand before it came up", data)
    if kind == "drift":
        text = f"{name} has a shape that the file no longer has, and is not up yet"
        return Reason(Why.DRIFT, text, drift_data(scene, one))
    if kind == "failing":
        error = scene.failed_before(one)
        text = f"{name} waits behind the first of {one.node_type}, which failed: {error}"
        return Reason(Why.FAILED, text, {"error": error})
    text = f"{name} is more than max_workers allows since the file changed, and is not up yet"
    return Reason(Why.OVER_MAX, text, excess_data(scene.excess, one))


def _give_back(scene: Scene, surplus: tuple[Instance, ...], found: Shrinkage) -> None:
    for one in surplus:
        found.going[one.node_type] += 1
        since_s = scene.history.unneeded_since.get(one.instance_id, scene.now_s)
        needless_s = scene.now_s - since_s
        if needless_s >= VANISHED_S:
            text = f"nothing has needed {one.display_name} for {needless_s:.0f} s, and it is not up yet"
            reason = Reason(Why.NOT_NEEDED, text, {"needless_s": needless_s, "state": one.state.value})
            found.releases.append(Release(one.instance_id, reason))
        else:
            left_s = VANISHED_S - needless_s
            text = f"nothing needs it; given back in {left_s:.0f} s if that stays so"
            data = {"needless_s": needless_s, "left_s": left_s}
            found.kept[one.instance_id] = Reason(Why.NOT_NEEDED, text, data)
