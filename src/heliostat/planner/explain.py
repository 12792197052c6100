"""The sentences, and the same as data: why nodes are launched, and what lacks where nothing can ever fit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from heliostat.model.demand import Bundle, Demand, Gang
from heliostat.model.plan import Infeasible, Reason, Why
from heliostat.model.resources import SCALE
from heliostat.planner.ledger import Room, price_of
from heliostat.planner.replacing import Ending, ending_work, names_of
from heliostat.planner.rivals import rivals
from heliostat.planner.scene import Scene
from heliostat.planner.settle import New, Settlement, staying
from heliostat.planner.supply import Shape

TEXTS_AT_MOST = 3
FLOORS = frozenset({Why.MIN_WORKERS, Why.ADDED_BY_HAND})


def launch_reason(
    scene: Scene, settlement: Settlement, new: Sequence[New], *, rooms: Mapping[str, Room]
) -> Reason:
    """Return why `new`, all of one type and one cause, are launched, as a sentence and as data.

    `rooms` says what every type's limits allow beside all that this plan launches.
    """
    first, count = new[0], sum(one.count for one in new)
    served = _served(new)
    data = {"type": first.shape.name, "count": count, "demands": _as_data(served), "rivals": []}
    if first.why in FLOORS:
        return Reason(first.why, _floor_text(scene, first), data)
    others = [one for one in settlement.shapes if one.name != first.shape.name]
    found = rivals(scene, first.shape, others=others, wanted=served, rooms=rooms)
    data["rivals"] = [{"type": one.node_type, "why": one.why, "text": one.text} for one in found]
    what = _counted(served) or f"room for {first.key}"
    chosen = f"{first.shape.name} {_standing(scene, settlement, first.shape, served)}"
    if first.why is Why.GANG:
        gang = next(one.gang for one in settlement.wants.gangs if one.gang.gang_id == first.key)
        whole = f"{gang} waits, whole or not at all; {count} more of {first.shape.name} complete it"
        return Reason(first.why, f"{whole}; {chosen}", data | {"gang": str(gang), "gang_id": gang.gang_id})
    if first.why is Why.CONSTRAINT:
        text = f"request_resources asks to keep {what}, and the cluster's total does not hold it; {chosen}"
        return Reason(first.why, text, data)
    if first.why is Why.REPLACEMENT:
        return _replacement(scene, new, data)
    verb = "waits" if served.total() == 1 else "wait"
    return Reason(first.why, f"{what} {verb}, nothing free holds {_it(served)}; {chosen}", data)


def _replacement(scene: Scene, new: Sequence[New], data: Mapping[str, object]) -> Reason:
    keys = {use.want.key for one in new for use in one.uses}
    works = [one for one in ending_work(scene) if one.key in keys]
    ids = [node.instance_id for work in works for node in work.nodes]
    text = f"{'; '.join(_end_text(scene, work) for work in works)}, and nothing free holds its work"
    return Reason(Why.REPLACEMENT, text, {**data, "replaces": ids})


def _end_text(scene: Scene, work: Ending) -> str:
    leases = [scene.leases[one.instance_id] for one in work.nodes if one.instance_id in scene.leases]
    if not leases:
        return f"{names_of(work.nodes)} drains while it works"
    left_s = min(one.expires_at_s for one in leases) - scene.now_s
    return f"the lease of {names_of(work.nodes)} ends in {left_s:.0f} s"


def _as_data(served: Counter[Bundle]) -> list[dict[str, object]]:
    ranked = sorted(served.items(), key=lambda one: str(one[0]))
    return [{"text": str(bundle), "resources": bundle.resources.units(), "count": n} for bundle, n in ranked]


def _it(served: Counter[Bundle]) -> str:
    return "it" if served.total() == 1 else "them"


def _floor_text(scene: Scene, new: New) -> str:
    node_type = new.shape.node_type
    there = staying(scene, node_type.name)
    old = sum(one.instance_id in scene.retiring and one.node_type == node_type.name for one in scene.running)
    of_old = f", and {old} of an old shape" if old else ""
    if new.why is Why.MIN_WORKERS:
        return f"min_workers of {node_type.name} is {node_type.min_workers}, {there} are there{of_old}"
    asked = scene.floor(node_type)
    return f"{asked} of {node_type.name} were asked for by hand, {there} are there{of_old}"


def _standing(scene: Scene, settlement: Settlement, shape: Shape, served: Counter[Bundle]) -> str:
    """Say what sets the chosen type apart from the others that could hold the same."""
    rivalling = [one for one in settlement.shapes if any(one.holds(bundle) for bundle in served)]
    others = [one for one in rivalling if one.name != shape.name]
    if not others:
        return "is the only type that fits"
    price = price_of(scene, shape.node_type)
    if all(shape.node_type.priority > one.node_type.priority for one in others):
        return f"has the highest priority ({shape.node_type.priority}) of the types that fit"
    if all(price < price_of(scene, one.node_type) for one in others):
        return "is the cheapest type that fits"
    return "fits best of the types that can be had"


def _served(new: Iterable[New]) -> Counter[Bundle]:
    """Count the bundles that the new nodes are for; what a constraint holds only where nothing else does."""
    served: Counter[Bundle] = Counter()
    for one in new:
        for use in one.kept if one.why is Why.CONSTRAINT else one.uses:
            served[use.want.bundle] += use.copies * one.count
    return served


def _counted(served: Counter[Bundle]) -> str:
    """Say what and how many, the largest numbers first, three shapes at most."""
    ranked = sorted(served.items(), key=lambda one: (-one[1], str(one[0])))
    texts = [str(Demand(bundle, count)) for bundle, count in ranked[:TEXTS_AT_MOST]]
    more = len(ranked) - len(texts)
    return ", ".join(texts) + (f" and {more} more shapes" if more > 0 else "")


def rooms_text(rooms: Sequence[Room], bundle: Bundle) -> str:
    """Say what stops each type that could hold the bundle."""
    if not rooms:
        return f"only nodes that are already here can hold {bundle}, and they are full"
    return "; ".join(room.text for room in rooms[:TEXTS_AT_MOST])


def never(
    wanted: Demand | Gang, bundle: Bundle, shapes: Sequence[Shape], *, from_constraint: bool = False
) -> Infeasible:
    """Return why no node type can ever hold the bundle, which is `wanted` or a part of it."""
    text, nearest = _lacking(bundle, shapes)
    if nearest is None:
        return Infeasible(wanted, text, from_constraint)
    return Infeasible(
        wanted,
        text,
        from_constraint,
        nearest=nearest.name,
        lacks=lacks(bundle, nearest),
        labels=_unmet_labels(bundle, nearest),
    )


def _lacking(bundle: Bundle, shapes: Sequence[Shape]) -> tuple[str, Shape | None]:
    if not shapes:
        return f"no node type can hold {bundle}: the file has none for workers", None
    roomy = [shape for shape in shapes if shape.roomy(bundle)]
    labelled = [shape for shape in shapes if bundle.allows(shape.labels)]
    if roomy and not labelled:
        nearest = _nearest(bundle, roomy)
        what = f"no node type has the labels that {bundle} asks for"
        return f"{what}; nearest is {_label_gap(bundle, nearest)}", nearest
    nearest = _nearest(bundle, labelled or shapes)
    gap = _gap(bundle, nearest)
    if roomy:
        text = (
            f"no node type has both the labels and the room for {bundle}; of those with the labels "
            f"{nearest.name} is nearest, which lacks {gap}"
        )
        return text, nearest
    return f"no node type can hold {bundle}; nearest is {nearest.name}, which lacks {gap}", nearest


def lacks(bundle: Bundle, shape: Shape) -> dict[str, tuple[float, float]]:
    """Return what an empty node of the type has too little of: (asked, there), in plain units."""
    short = [(name, amount) for name, amount in bundle.resources if shape.has(name) < amount]
    return {name: (amount / SCALE, shape.has(name) / SCALE) for name, amount in short}


def _unmet_labels(bundle: Bundle, shape: Shape) -> tuple[str, ...]:
    """Return the conditions that the type does not meet: those of the selector that lacks the fewest."""
    ways = [tuple(str(one) for one in way if not one.holds(shape.labels)) for way in bundle.selectors]
    return min(ways, key=len, default=())


def _label_gap(bundle: Bundle, shape: Shape) -> str:
    keys = dict.fromkeys(one.key for selector in bundle.selectors for one in selector)
    has = [f"{key}={shape.labels[key]}" if key in shape.labels else f"no label {key}" for key in keys]
    return f"{shape.name}, which has {', '.join(has)}"


def _nearest(bundle: Bundle, shapes: Sequence[Shape]) -> Shape:
    """Return the type that lacks the least: resources first, then labels."""

    def shortage(shape: Shape) -> tuple[int, float, int, str]:
        parts = [
            1 - shape.has(name) / amount for name, amount in bundle.resources if shape.has(name) < amount
        ]
        return (len(parts), sum(parts), len(_unmet_labels(bundle, shape)), shape.name)

    return min(shapes, key=shortage)


def _gap(bundle: Bundle, shape: Shape) -> str:
    gaps = [
        f"{name} ({asked:g} asked, {there:g} there)" for name, (asked, there) in lacks(bundle, shape).items()
    ]
    return ", ".join(gaps) or "nothing but the labels"
