"""The sentences: why nodes are launched, why demand waits, what lacks where nothing can ever fit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from heliostat.model.demand import Bundle, Demand
from heliostat.model.plan import Reason, Why
from heliostat.model.resources import SCALE
from heliostat.planner.choose import fits
from heliostat.planner.ledger import Room, price_of
from heliostat.planner.pool import preference
from heliostat.planner.rows import Uses
from heliostat.planner.scene import Scene
from heliostat.planner.settle import New, Settlement, staying
from heliostat.planner.supply import Shape

TEXTS_AT_MOST = 3


def launch_reason(scene: Scene, settlement: Settlement, new: Sequence[New]) -> Reason:
    """Return why `new`, all of one type and one cause, are launched, as a sentence and as data."""
    first = new[0]
    served = _served(settlement, new)
    data = {
        "node_type": first.shape.name,
        "count": len(new),
        "demands": {
            str(bundle): count for bundle, count in sorted(served.items(), key=lambda one: str(one[0]))
        },
    }
    if first.why in {Why.MIN_WORKERS, Why.ADDED_BY_HAND}:
        return Reason(first.why, _floor_text(scene, first), data)
    what = _counted(served) or f"room for {first.key}"
    chosen = f"{first.shape.name} {_standing(scene, settlement, first.shape, served)}"
    if first.why is Why.GANG:
        text = f"{first.key} waits, whole or not at all; {len(new)} more of {first.shape.name} complete it"
        return Reason(first.why, text, data | {"gang": first.key})
    if first.why is Why.CONSTRAINT:
        text = f"request_resources asks to keep {what}, and the cluster's total does not hold it; {chosen}"
        return Reason(first.why, text, data)
    verb = "waits" if served.total() == 1 else "wait"
    return Reason(first.why, f"{what} {verb}, nothing free holds {_it(served)}; {chosen}", data)


def _it(served: Counter[Bundle]) -> str:
    return "it" if served.total() == 1 else "them"


def _floor_text(scene: Scene, new: New) -> str:
    node_type = new.shape.node_type
    there = staying(scene, node_type.name)
    if new.why is Why.MIN_WORKERS:
        return f"min_workers of {node_type.name} is {node_type.min_workers}, {there} are there"
    return f"{scene.floor(node_type)} of {node_type.name} were asked for by hand, {there} are there"


def _standing(scene: Scene, settlement: Settlement, shape: Shape, served: Counter[Bundle]) -> str:
    """Say what sets the chosen type apart from the others that could hold the same."""
    rivals = [one for one in settlement.shapes if any(fits(one, bundle) for bundle in served)]
    others = [one for one in rivals if one.name != shape.name]
    if not others:
        return "is the only type that fits"
    price = price_of(scene, shape.node_type)
    if all(shape.node_type.priority > one.node_type.priority for one in others):
        return f"has the highest priority ({shape.node_type.priority}) of the types that fit"
    if all(price < price_of(scene, one.node_type) for one in others):
        return "is the cheapest type that fits"
    return "fits best of the types that can be had"


def _served(settlement: Settlement, new: Iterable[New]) -> Counter[Bundle]:
    """Count the bundles that the new nodes are for; what a constraint holds only where nothing else does."""
    served: Counter[Bundle] = Counter()
    for one in new:
        uses: Uses = settlement.constraint_uses if one.why is Why.CONSTRAINT else settlement.uses
        for use in uses.get(one.member, ()):
            served[use.want.bundle] += use.copies
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


def lacking(bundle: Bundle, shapes: Sequence[Shape]) -> str:
    """Say why no node type can ever hold the bundle: what is nearest, and what it lacks."""
    if not shapes:
        return f"no node type can hold {bundle}: the file has none for workers"
    roomy = [shape for shape in shapes if bundle.resources.fits_in(shape.node_type.resources)]
    labelled = [shape for shape in shapes if preference(bundle, tuple(shape.labels.items())) is not None]
    if roomy and not labelled:
        return (
            f"no node type has the labels that {bundle} asks for; nearest is {_label_gap(bundle, roomy[0])}"
        )
    if roomy and labelled:
        nearest = _nearest(bundle, labelled)
        return (
            f"no node type has both the labels and the room for {bundle}; of those with the labels "
            f"{nearest.name} is nearest, which lacks {_gap(bundle, nearest)}"
        )
    nearest = _nearest(bundle, labelled or shapes)
    return f"no node type can hold {bundle}; nearest is {nearest.name}, which lacks {_gap(bundle, nearest)}"


def _label_gap(bundle: Bundle, shape: Shape) -> str:
    keys = dict.fromkeys(one.key for selector in bundle.selectors for one in selector)
    has = [f"{key}={shape.labels[key]}" if key in shape.labels else f"no label {key}" for key in keys]
    return f"{shape.name}, which has {', '.join(has)}"


def _nearest(bundle: Bundle, shapes: Sequence[Shape]) -> Shape:
    def shortage(shape: Shape) -> tuple[int, float, str]:
        have = shape.node_type.resources
        parts = [1 - have.get(name) / amount for name, amount in bundle.resources if have.get(name) < amount]
        return (len(parts), sum(parts), shape.name)

    return min(shapes, key=shortage)


def _gap(bundle: Bundle, shape: Shape) -> str:
    have = shape.node_type.resources
    gaps = [
        f"{name} ({amount / SCALE:g} asked, {have.get(name) / SCALE:g} there)"
        for name, amount in bundle.resources
        if have.get(name) < amount
    ]
    return ", ".join(gaps) or "nothing but the labels"
