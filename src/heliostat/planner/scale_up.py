"""From a settlement to launches, and to words for what is deferred or can never fit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from heliostat.model.demand import Bundle, Demand, Gang
from heliostat.model.node_type import NodeType
from heliostat.model.plan import Deferred, Infeasible, Launch, Limiter, Why
from heliostat.planner.choose import Unmet
from heliostat.planner.explain import FLOORS, launch_reason, never, rooms_text
from heliostat.planner.ledger import Ledger, Room, offer_of, price_of
from heliostat.planner.scene import Scene
from heliostat.planner.settle import New, Settlement
from heliostat.planner.sift import Types
from heliostat.planner.supply import Shape
from heliostat.planner.surge import surge
from heliostat.planner.throttle import Stop, Throttled, Withheld, throttle
from heliostat.planner.wants import GangWant, Want


@dataclass(frozen=True)
class Growth:
    """What is launched now, what waits, what can never be; `wanted` counts new nodes per type."""

    launches: tuple[Launch, ...]
    deferred: tuple[Deferred, ...]
    infeasible: tuple[Infeasible, ...]
    wanted: Counter[str]


def grow(scene: Scene, settlement: Settlement) -> Growth:
    parts = throttle(scene, settlement)
    ledger = Ledger(scene)
    for one in settlement.new:
        ledger.add(one.shape.name, one.count)
    return Growth(
        launches=_launches(scene, settlement, parts=parts, ledger=ledger),
        deferred=(*_deferred(settlement, ledger), *_held_back(settlement, parts.withheld)),
        infeasible=_infeasible(settlement),
        wanted=+ledger.added,
    )


def _launches(
    scene: Scene, settlement: Settlement, *, parts: Throttled, ledger: Ledger
) -> tuple[Launch, ...]:
    """One launch per type and cause; a gang's nodes of one type are one launch.

    `ledger` counts all that this plan adds.
    """
    groups: dict[tuple[str, Why, str], list[New]] = {}
    for one in parts.launched:
        key = one.key if one.why is Why.GANG else ""
        groups.setdefault((one.shape.name, one.why, key), []).append(one)
    if not groups:
        return ()
    rooms = {shape.name: ledger.room(shape.node_type) for shape in settlement.shapes}
    return tuple(
        Launch(name, sum(one.count for one in new), launch_reason(scene, settlement, new, rooms=rooms))
        for (name, _, _), new in groups.items()
    )


def _deferred(settlement: Settlement, ledger: Ledger) -> Iterator[Deferred]:
    """Return what hard limits hold back; `ledger` counts all that this plan adds, and nothing else."""
    shapes = settlement.shapes
    for unmet in settlement.unmet:
        yield _of_unmet(unmet, Why.DEMAND, shapes=shapes, ledger=ledger)
    for unmet in settlement.constraint_unmet:
        yield _of_unmet(unmet, Why.CONSTRAINT, shapes=shapes, ledger=ledger)
    for gang, rooms in settlement.gangs_unmet:
        bundle = gang.wants[0].bundle
        found = Deferred(gang.gang, _limiter(rooms), rooms_text(rooms, bundle), Why.GANG)
        yield _none_of_it(_measured(found, _nearest(bundle, shapes, ledger), ledger))
    for short in settlement.short:
        node_type = short.shape.node_type
        text = f"{ledger.scene.floor(node_type)} of {node_type.name} shall be there; {short.room.text}"
        lacking = Demand(Bundle(node_type.resources), short.count)
        found = Deferred(lacking, short.room.limiter, text, Why.MIN_WORKERS)
        yield _measured(found, node_type, ledger)


def _of_unmet(unmet: Unmet, why: Why, *, shapes: Sequence[Shape], ledger: Ledger) -> Deferred:
    want = unmet.want
    why = Why.REPLACEMENT if want.replaces else why
    text = rooms_text(unmet.rooms, want.bundle)
    found = Deferred(Demand(want.bundle, want.count), _limiter(unmet.rooms), text, why)
    return _measured(found, _nearest(want.bundle, shapes, ledger), ledger)


def _limiter(rooms: Sequence[Room]) -> Limiter:
    return rooms[0].limiter if rooms else Limiter.CAPACITY


def _none_of_it(found: Deferred) -> Deferred:
    text = f"a part of it would not fit, so none is launched: {found.text}"
    if found.have is not None and found.most is not None and found.have < found.most:
        # The limit was reached while it was tried to place it.
        text += ", counting what the rest of it would take"
    return replace(found, text=text)


def _nearest(bundle: Bundle, shapes: Sequence[Shape], ledger: Ledger) -> NodeType | None:
    """Return the first type that fits, in the order in which `choose` names their limits."""
    fitting = [one.node_type for one in shapes if one.holds(bundle)]
    scene = ledger.scene
    return min(fitting, key=lambda one: (-one.priority, price_of(scene, one), one.name), default=None)


def _measured(found: Deferred, node_type: NodeType | None, ledger: Ledger) -> Deferred:
    """Add the type, what counts against the limit, and what it allows."""
    if node_type is None:
        return found
    have, most = _count(found.limiter, node_type, ledger)
    return replace(found, nearest=node_type.name, have=have, most=most)


def _count(limiter: Limiter, node_type: NodeType, ledger: Ledger) -> tuple[float | None, float | None]:
    scene, name = ledger.scene, node_type.name
    if limiter is Limiter.TYPE_MAX_WORKERS:
        return scene.alive[name] + ledger.added[name], node_type.max_workers + surge(scene, name)
    if limiter is Limiter.MAX_WORKERS:
        return scene.alive.total() + ledger.added.total(), scene.policy.max_workers + surge(scene)
    budget, left = scene.policy.max_cost_usd_per_h, ledger.budget_left()
    if limiter is Limiter.BUDGET and budget is not None and left is not None:
        return budget - left, budget
    offer = offer_of(scene, node_type)
    if limiter is Limiter.CAPACITY and offer is not None and offer.count is not None:
        return ledger.added[name], offer.count
    return None, None


def _held_back(settlement: Settlement, withheld: Iterable[Withheld]) -> list[Deferred]:
    """Return what waits for withheld nodes: whole gangs, floors, and the rest by shape and limiter.

    Demand that was to share a gang's node waits with the gang, and so does another gang.
    """
    gangs = {gang.wants[0].key: gang.gang for gang in settlement.wants.gangs}
    waiting: dict[str, Deferred] = {}
    counts: Counter[tuple[Bundle, Why, str, Stop]] = Counter()
    for one in withheld:
        new, name = one.new, one.new.shape.name
        for use in new.uses:
            if use.want.key in gangs:
                waiting[use.want.key] = _stopped(gangs[use.want.key], Why.GANG, node_type=name, stop=one.stop)
            else:
                why = Why.REPLACEMENT if use.want.replaces else Why.DEMAND
                counts[use.want.bundle, why, name, one.stop] += use.copies * new.count
        for use in new.kept:
            counts[use.want.bundle, Why.CONSTRAINT, name, one.stop] += use.copies * new.count
        if new.why in FLOORS:
            counts[Bundle(new.shape.node_type.resources), new.why, name, one.stop] += new.count
    found = [
        _stopped(Demand(bundle, n), why, node_type=name, stop=stop)
        for (bundle, why, name, stop), n in counts.items()
    ]
    return [*waiting.values(), *found]


def _stopped(wanted: Demand | Gang, why: Why, *, node_type: str, stop: Stop) -> Deferred:
    return Deferred(wanted, stop.limiter, stop.text, why, nearest=node_type, have=stop.have, most=stop.most)


def _infeasible(settlement: Settlement) -> tuple[Infeasible, ...]:
    shapes = settlement.shapes

    def of_want(want: Want, *, from_constraint: bool) -> Infeasible:
        wanted = Demand(want.bundle, want.count)
        return never(wanted, want.bundle, shapes, from_constraint=from_constraint)

    found = [of_want(want, from_constraint=False) for want in settlement.impossible]
    found += [of_want(want, from_constraint=True) for want in settlement.constraint_impossible]
    found += [_gang_infeasible(shapes, *each) for each in settlement.gangs_impossible]
    return tuple(found)


def _gang_infeasible(shapes: Sequence[Shape], gang: GangWant, want: Want, types: Types) -> Infeasible:
    within = [shape for shape in shapes if types is None or shape.name in types]
    found = never(gang.gang, want.bundle, within)
    if types is None:
        return found
    told = f"no backend alone can hold all of it; of {within[0].node_type.backend}'s types, {found.text}"
    return replace(found, text=told)
