"""From a settlement to launches, and to words for what is deferred or can never fit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from heliostat.model.demand import Bundle, Demand
from heliostat.model.plan import Deferred, Infeasible, Launch, Limiter, Why
from heliostat.planner.choose import Unmet
from heliostat.planner.explain import launch_reason, never, rooms_text
from heliostat.planner.ledger import Ledger
from heliostat.planner.scene import Scene
from heliostat.planner.settle import New, Settlement
from heliostat.planner.throttle import Throttled, Withheld, throttle
from heliostat.planner.wants import Want


@dataclass(frozen=True)
class Growth:
    """What is launched now, what waits, what can never be; `wanted` counts new nodes per type."""

    launches: tuple[Launch, ...]
    deferred: tuple[Deferred, ...]
    infeasible: tuple[Infeasible, ...]
    wanted: Counter[str]


def grow(scene: Scene, settlement: Settlement) -> Growth:
    parts = throttle(scene, settlement)
    return Growth(
        launches=_launches(scene, settlement, parts),
        deferred=(*_deferred(scene, settlement), *_held_back(settlement, parts.withheld)),
        infeasible=_infeasible(settlement),
        wanted=_wanted(settlement),
    )


def _wanted(settlement: Settlement) -> Counter[str]:
    counts: Counter[str] = Counter()
    for one in settlement.new:
        counts[one.shape.name] += one.count
    return counts


def _launches(scene: Scene, settlement: Settlement, parts: Throttled) -> tuple[Launch, ...]:
    """One launch per type and cause; a gang's nodes of one type are one launch."""
    groups: dict[tuple[str, Why, str], list[New]] = {}
    for one in parts.launched:
        key = one.key if one.why is Why.GANG else ""
        groups.setdefault((one.shape.name, one.why, key), []).append(one)
    if not groups:
        return ()
    ledger = Ledger(scene)
    for name, count in _wanted(settlement).items():
        ledger.add(name, count)
    rooms = {shape.name: ledger.room(shape.node_type) for shape in settlement.shapes}
    return tuple(
        Launch(name, sum(one.count for one in new), launch_reason(scene, settlement, new, rooms=rooms))
        for (name, _, _), new in groups.items()
    )


def _deferred(scene: Scene, settlement: Settlement) -> list[Deferred]:
    found = [_of_unmet(unmet, Why.DEMAND) for unmet in settlement.unmet]
    found += [_of_unmet(unmet, Why.CONSTRAINT) for unmet in settlement.constraint_unmet]
    for gang, rooms in settlement.gangs_unmet:
        limiter = rooms[0].limiter if rooms else Limiter.CAPACITY
        text = rooms_text(rooms, gang.wants[0].bundle)
        words = f"a part of it would not fit, so none is launched: {text}"
        found.append(Deferred(gang.gang, limiter, words, Why.GANG))
    for short in settlement.short:
        node_type = short.shape.node_type
        text = f"{scene.floor(node_type)} of {node_type.name} shall be there; {short.room.text}"
        lacking = Demand(Bundle(node_type.resources), short.count)
        found.append(Deferred(lacking, short.room.limiter, text, Why.MIN_WORKERS))
    return found


def _of_unmet(unmet: Unmet, why: Why) -> Deferred:
    want = unmet.want
    limiter = unmet.rooms[0].limiter if unmet.rooms else Limiter.CAPACITY
    why = Why.REPLACEMENT if want.replaces else why
    return Deferred(Demand(want.bundle, want.count), limiter, rooms_text(unmet.rooms, want.bundle), why)


def _held_back(settlement: Settlement, withheld: Iterable[Withheld]) -> list[Deferred]:
    """Return what waits for withheld nodes: whole gangs, and demand by shape and limiter.

    Demand that was to share a gang's node waits with the gang, and so does another gang.
    """
    gangs = {gang.wants[0].key: gang.gang for gang in settlement.wants.gangs}
    waiting: dict[str, Deferred] = {}
    counts: Counter[tuple[Bundle, Limiter, str, Why]] = Counter()
    for one in withheld:
        uses = one.new.kept if one.new.why is Why.CONSTRAINT else one.new.uses
        for use in uses:
            if use.want.key in gangs:
                waiting[use.want.key] = Deferred(gangs[use.want.key], one.limiter, one.text, Why.GANG)
            else:
                why = Why.REPLACEMENT if use.want.replaces else one.new.why
                why = Why.DEMAND if why is Why.GANG else why
                counts[use.want.bundle, one.limiter, one.text, why] += use.copies * one.new.count
        if not uses:
            bundle = Bundle(one.new.shape.node_type.resources)
            counts[bundle, one.limiter, one.text, one.new.why] += one.new.count
    found = [
        Deferred(Demand(bundle, n), limiter, text, why) for (bundle, limiter, text, why), n in counts.items()
    ]
    return [*waiting.values(), *found]


def _infeasible(settlement: Settlement) -> tuple[Infeasible, ...]:
    shapes = settlement.shapes

    def of_want(want: Want, *, from_constraint: bool) -> Infeasible:
        wanted = Demand(want.bundle, want.count)
        return never(wanted, want.bundle, shapes, from_constraint=from_constraint)

    found = [of_want(want, from_constraint=False) for want in settlement.impossible]
    found += [of_want(want, from_constraint=True) for want in settlement.constraint_impossible]
    found += [never(gang.gang, want.bundle, shapes) for gang, want in settlement.gangs_impossible]
    return tuple(found)
