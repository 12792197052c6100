"""Why a launch is of no other type: the two next best, each with the first thing that speaks against it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from heliostat.model.demand import Bundle
from heliostat.model.plan import Limiter, Rival
from heliostat.model.resources import SCALE
from heliostat.planner.ledger import Room, offer_of, price_of
from heliostat.planner.limits import ENDLESS, SCARCE
from heliostat.planner.scene import Scene
from heliostat.planner.supply import Shape

RIVALS_AT_MOST = 2
A_SECOND_S = 1.0
"""Forecasts that differ by less are the same."""

_LIMITED_BY = {
    Limiter.MAX_WORKERS: "max",
    Limiter.TYPE_MAX_WORKERS: "max",
    Limiter.BACKOFF: "failure",
    Limiter.BREAKER: "failure",
    Limiter.BACKEND_UNKNOWN: "failure",
    Limiter.BUDGET: "price",
    Limiter.CAPACITY: "queue",
}


@dataclass(frozen=True)
class _Entrant:
    """A type, and what it would be for what is wanted; `level` is the worst selector needed, 0 the best."""

    shape: Shape
    holds: bool
    level: int
    unasked: tuple[str, ...]
    nodes: int
    cost_usd_per_h: float
    ready_at_s: float | None


def rivals(
    scene: Scene,
    chosen: Shape,
    *,
    others: Sequence[Shape],
    wanted: Mapping[Bundle, int],
    rooms: Mapping[str, Room],
) -> tuple[Rival, ...]:
    """Return at most two of `others`, the next best first, and why not each; none where nothing is wanted.

    `wanted` counts what the chosen type is launched for; `rooms` says what limits allow of each
    type beside all that is planned. Nothing of how the choice was made is known here: these are
    facts of price, room and time that anybody can check.
    """
    if not wanted:
        return ()
    best = _entrant(scene, chosen, wanted)
    entrants = [_entrant(scene, one, wanted) for one in others]

    def next_best(one: _Entrant) -> tuple[bool, bool, int, int, int, float, str]:
        shut = one.shape.name in rooms and rooms[one.shape.name].count <= 0
        priority = one.shape.node_type.priority
        cost = one.cost_usd_per_h
        return (not one.holds, shut, one.level, -priority, len(one.unasked), cost, one.shape.name)

    ranked = sorted(entrants, key=next_best)[:RIVALS_AT_MOST]
    return tuple(_rival(best, one, rooms.get(one.shape.name), wanted) for one in ranked)


def _entrant(scene: Scene, shape: Shape, wanted: Mapping[Bundle, int]) -> _Entrant:
    held = {bundle: count for bundle, count in wanted.items() if shape.holds(bundle)}
    asked = {name for bundle in wanted for name, _ in bundle.resources}
    nodes = max(1, math.ceil(sum(n / _in_one(shape, bundle) for bundle, n in held.items()) - 1e-9))
    offer = offer_of(scene, shape.node_type)
    return _Entrant(
        shape=shape,
        holds=len(held) == len(wanted),
        level=max((_level(shape, bundle) for bundle in held), default=0),
        unasked=tuple(name for name, _ in shape.node_type.resources if name in SCARCE - asked),
        nodes=nodes,
        cost_usd_per_h=nodes * price_of(scene, shape.node_type),
        ready_at_s=offer.ready_at_s if offer else None,
    )


def _in_one(shape: Shape, bundle: Bundle) -> int:
    """Return how many of a bundle that fits one node holds; with an anti-affinity mark it is one."""
    if bundle.anti_affinity is not None:
        return 1
    return min([shape.has(name) // amount for name, amount in bundle.resources.amounts], default=ENDLESS)


def _level(shape: Shape, bundle: Bundle) -> int:
    if not bundle.selectors:
        return 0
    holding = (
        index
        for index, selector in enumerate(bundle.selectors)
        if all(one.holds(shape.labels) for one in selector)
    )
    return next(holding, 0)


def _rival(best: _Entrant, one: _Entrant, room: Room | None, wanted: Mapping[Bundle, int]) -> Rival:
    why, text = _misfit(one, wanted) or _shut(room) or _worse(best, one)
    return Rival(one.shape.name, why, text)


def _misfit(one: _Entrant, wanted: Mapping[Bundle, int]) -> tuple[str, str] | None:
    if one.holds:
        return None
    shape, name = one.shape, one.shape.name
    unheld = [bundle for bundle in wanted if not one.shape.holds(bundle)]
    most = max(unheld, key=lambda bundle: (wanted[bundle], str(bundle)))
    if shape.roomy(most):
        return "label", f"{name} does not have the labels of {most}"
    gaps = [
        f"{what} ({amount / SCALE:g} asked, {shape.has(what) / SCALE:g} there)"
        for what, amount in most.resources
        if shape.has(what) < amount
    ]
    return "fit", f"{name} lacks {', '.join(gaps) or 'room on one device'}"


def _shut(room: Room | None) -> tuple[str, str] | None:
    if room is None or room.count > 0:
        return None
    return _LIMITED_BY.get(room.limiter, "max"), room.text


def _worse(best: _Entrant, one: _Entrant) -> tuple[str, str]:
    name, mine, its = one.shape.name, best.shape, one.shape.node_type
    if one.level > best.level:
        return "label", f"{name} has the labels of a fallback only, {mine.name} the preferred ones"
    if its.priority < mine.node_type.priority:
        return (
            "priority",
            f"{name} has priority {its.priority}, {mine.name} has {mine.node_type.priority}",
        )
    if len(one.unasked) > len(best.unasked):
        return "fit", f"{name} has {', '.join(one.unasked)}, which nobody asked for"
    if one.cost_usd_per_h > best.cost_usd_per_h:
        return "price", f"{_bill(one)}, {_bill(best)}"
    later_s = (one.ready_at_s or 0.0) - (best.ready_at_s or 0.0)
    if one.ready_at_s is not None and best.ready_at_s is not None and later_s > A_SECOND_S:
        return "queue", f"{name} would be ready {later_s:.0f} s later than {mine.name}"
    return "fit", f"{name} is filled less well ({_bill(one)}, {_bill(best)})"


def _bill(one: _Entrant) -> str:
    verb = "costs" if one.nodes == 1 else "cost"
    return f"{one.nodes} × {one.shape.name} {verb} {one.cost_usd_per_h:g} $/h"
