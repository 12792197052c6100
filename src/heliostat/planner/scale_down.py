"""What goes again: room on its way that nothing needs, and nodes (`drains.py`). And why the others stay."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from heliostat.model.instance import Instance, InstanceState
from heliostat.model.plan import Drain, Reason, Release, Why
from heliostat.planner.drains import Drains, floor_of
from heliostat.planner.ledger import price_of
from heliostat.planner.limits import VANISHED_S
from heliostat.planner.scene import Scene, soonest
from heliostat.planner.settle import Settlement, staying


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
        idle = {drain.instance_id: Reason(Why.IDLE, "the cluster is paused") for drain in nodes.drains}
        return Shrinkage(kept=idle | found.kept | nodes.kept)
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
    spare = {name: staying(scene, name) - floor_of(scene, name) for name in scene.alive}
    for one in _least_wanted_first(scene):
        unknown = one.state is InstanceState.UNKNOWN or not scene.known(one)
        if unknown or scene.protected(one) or settlement.used(one.instance_id):
            continue
        if spare[one.node_type] > 0:
            spare[one.node_type] -= 1
            found.append(one)
    return tuple(found)


def _least_wanted_first(scene: Scene) -> list[Instance]:
    prices = {name: price_of(scene, node_type) for name, node_type in scene.types.items()}
    latest_first = sorted(scene.staying_coming, key=soonest, reverse=True)
    return sorted(latest_first, key=lambda one: (-soonest(one)[0], -prices.get(one.node_type, 0.0)))


_WITHDRAWN = {
    "removed": (Why.REMOVED_BY_HAND, "was removed by hand before it came up"),
    "drift": (Why.DRIFT, "has a shape that the file no longer has, and is not up yet"),
    "over": (Why.OVER_MAX, "is more than max_workers allows since the file changed, and is not up yet"),
}


def _withdraw(scene: Scene, found: Shrinkage) -> None:
    for one in scene.coming:
        kind = scene.withdrawal(one)
        if kind is not None and scene.known(one):
            why, text = _WITHDRAWN[kind]
            found.releases.append(Release(one.instance_id, Reason(why, f"{one.display_name} {text}")))


def _give_back(scene: Scene, surplus: tuple[Instance, ...], found: Shrinkage) -> None:
    for one in surplus:
        found.going[one.node_type] += 1
        since_s = scene.history.unneeded_since.get(one.instance_id, scene.now_s)
        needless_s = scene.now_s - since_s
        if needless_s >= VANISHED_S:
            text = f"nothing has needed {one.display_name} for {needless_s:.0f} s, and it is not up yet"
            found.releases.append(Release(one.instance_id, Reason(Why.NOT_NEEDED, text)))
        else:
            text = f"nothing needs it; given back in {VANISHED_S - needless_s:.0f} s if that stays so"
            found.kept[one.instance_id] = Reason(Why.NOT_NEEDED, text)
