"""Which types of new nodes hold what is left over, by a greedy fill of one node after another.

Among the types that hold the hardest bundle: the preferred label, then the highest
priority, then no unneeded GPU, then the lowest price for what it satisfies, then the
better filled one, fewer instances, and least waste. docs/planner.md has examples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from heliostat.model.demand import Bundle
from heliostat.model.resources import Resources
from heliostat.planner.ledger import Ledger, Room, price_of
from heliostat.planner.pool import copies_in, preference
from heliostat.planner.supply import Shape
from heliostat.planner.wants import Want

WELL_FILLED = 0.5
"""A node whose fullest resource is used to less than this share counts as waste."""


@dataclass(frozen=True)
class Choice:
    """`count` new nodes of a type, brought by `want`; `others` says why not the next best types."""

    shape: Shape
    count: int
    want: Want
    others: tuple[str, ...] = ()


@dataclass(frozen=True)
class Unmet:
    """What no type can be launched for now; `rooms` says, best type first, what stops each."""

    want: Want
    rooms: tuple[Room, ...]


@dataclass(frozen=True)
class Fill:
    """How many copies of each remaining want one new node would hold."""

    shape: Shape
    copies: tuple[int, ...]
    used: Resources

    def repeats(self, left: Sequence[Want]) -> int:
        """Return how many nodes can be filled exactly like this one."""
        return min(want.count // copies for want, copies in zip(left, self.copies, strict=True) if copies)


def fits(shape: Shape, bundle: Bundle) -> bool:
    """Say whether an empty node of the type holds the bundle, labels and marks included."""
    spot = shape.spot
    return preference(bundle, spot.labels) is not None and copies_in(spot.free, bundle) > 0


class Chooser:
    """Chooses for one list of wants, hardest first; takes what it chooses from the ledger."""

    def __init__(self, shapes: Sequence[Shape], ledger: Ledger) -> None:
        self._shapes = shapes
        self._ledger = ledger
        self._prices = {one.name: price_of(ledger.scene, one.node_type) for one in shapes}

    def choose(self, wants: Sequence[Want]) -> tuple[list[Choice], list[Unmet]]:
        """Return new nodes that hold as much of `wants` as limits allow, and what they do not hold."""
        left = [want for want in wants if want.count > 0]
        choices: list[Choice] = []
        unmet: list[Unmet] = []
        while left:
            choice, fill = self._next(left)
            if choice is None or fill is None:
                unmet.append(self._unmet(left.pop(0)))
                continue
            choices.append(choice)
            self._ledger.add(choice.shape.name, choice.count)
            left = _remaining(left, fill, choice.count)
        return choices, unmet

    def _next(self, left: Sequence[Want]) -> tuple[Choice | None, Fill | None]:
        driver = left[0]
        fitting = [shape for shape in self._shapes if fits(shape, driver.bundle)]
        rooms = {shape.name: self._ledger.room(shape.node_type) for shape in fitting}
        open_to = [shape for shape in fitting if rooms[shape.name].count or rooms[shape.name].hold]
        if not open_to:
            return None, None
        total = _total(left)
        fills = [(self._score(fill, left, total), fill) for fill in (_fill(one, left) for one in open_to)]
        fills.sort(key=lambda one: one[0])
        best = fills[0][1]
        room = rooms[best.shape.name]
        if room.count == 0:
            # The best type is about to be known better: this want waits rather than go elsewhere.
            return None, None
        count = max(1, min(best.repeats(left), room.count))
        others = tuple(self._other(fill) for _, fill in fills[1:3])
        shut = [rooms[one.name].text for one in fitting if one not in open_to]
        return Choice(best.shape, count, driver, (*others, *shut[: 2 - len(others)])), best

    def _score(
        self, fill: Fill, left: Sequence[Want], total: Resources
    ) -> tuple[int, int, int, float, bool, float, float, float, str]:
        shape, driver = fill.shape, left[0].bundle
        asked = {
            name for want, n in zip(left, fill.copies, strict=True) if n for name, _ in want.bundle.resources
        }
        satisfied = sum(amount / total.get(name) for name, amount in fill.used) or 1.0
        shares = [fill.used.get(name) / amount for name, amount in shape.node_type.resources]
        filled = max(shares, default=1.0)
        wasted = len(shares) - sum(shares)
        poor = filled < WELL_FILLED
        liked = preference(driver, shape.spot.labels)
        return (
            liked if liked is not None else 0,
            -shape.node_type.priority,
            len(shape.spot.scarce - asked),
            self._prices[shape.name] / satisfied,
            poor,
            wasted if poor else 0.0,
            -satisfied,
            wasted,
            shape.name,
        )

    def _other(self, fill: Fill) -> str:
        price = self._prices[fill.shape.name]
        return f"{fill.shape.name} ({price:g} $/h, priority {fill.shape.node_type.priority}) fits less well"

    def _unmet(self, want: Want) -> Unmet:
        fitting = [shape for shape in self._shapes if fits(shape, want.bundle)]
        ranked = sorted(fitting, key=lambda one: (-one.node_type.priority, self._prices[one.name], one.name))
        rooms = [self._ledger.room(one.node_type) for one in ranked]
        stopping = [room for room in rooms if room.count == 0]
        return Unmet(want, tuple(dict.fromkeys(stopping)))


def _fill(shape: Shape, left: Sequence[Want]) -> Fill:
    spot, copies = shape.spot, []
    for want in left:
        fitting = copies_in(spot.free, want.bundle, taken=spot.taken)
        liked = fitting and preference(want.bundle, spot.labels) is not None
        count = min(want.count, fitting) if liked else 0
        copies.append(count)
        if count:
            spot = spot.less(want.bundle, count)
    return Fill(shape, tuple(copies), shape.spot.free.minus(spot.free))


def _total(left: Sequence[Want]) -> Resources:
    total: dict[str, int] = {}
    for want in left:
        for name, amount in want.bundle.resources:
            total[name] = total.get(name, 0) + amount * want.count
    return Resources.from_scaled(total.items())


def _remaining(left: Sequence[Want], fill: Fill, count: int) -> list[Want]:
    after = [
        replace(want, count=want.count - copies * count)
        for want, copies in zip(left, fill.copies, strict=True)
    ]
    return [want for want in after if want.count > 0]
