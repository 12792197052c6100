"""From wants, node types and limits to the covering problem, and back to nodes by type.

Among the types that can hold a bundle: the preferred label, then the highest priority, then
one that will be there in time, then one without a device that nobody asked for, then the lowest cost of the
whole. docs/planner.md has examples.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from heliostat.model.demand import Bundle
from heliostat.planner.cover import cover
from heliostat.planner.ledger import Ledger, Room, price_of
from heliostat.planner.limits import DEVICE_WEIGHT, NODE_WEIGHT, SCARCE, SIZE_WEIGHT
from heliostat.planner.patience import Patience
from heliostat.planner.pool import preference
from heliostat.planner.problem import MICRO, Item, Problem, Source
from heliostat.planner.scene import Scene
from heliostat.planner.supply import Shape
from heliostat.planner.wants import Lens, Want


@dataclass(frozen=True)
class Choice:
    """`count` new nodes of a type, each to hold `contents` (copies of wants), brought by `want`."""

    shape: Shape
    count: int
    want: Want
    contents: tuple[tuple[Want, int], ...]


@dataclass(frozen=True)
class Unmet:
    """What no type can be launched for now; `rooms` says, best type first, what stops each."""

    want: Want
    rooms: tuple[Room, ...]


class Chooser:
    """Chooses for the wants of one round. What it is asked is a value, so equal questions cost one answer."""

    def __init__(self, scene: Scene, shapes: Sequence[Shape], lens: Lens) -> None:
        self.patience = Patience(scene, shapes)
        self._scene = scene
        self._shapes = shapes
        self._lens = lens
        self._likes: dict[tuple[str, Bundle], int | None] = {}

    @cached_property
    def costs(self) -> Mapping[str, float]:
        return weighed(self._shapes, self._scene.prices)

    def choose(
        self,
        wants: Sequence[Want],
        ledger: Ledger,
        free: Mapping[str, int] | None = None,
        *,
        within: frozenset[str] | None = None,
    ) -> tuple[list[Choice], list[Unmet]]:
        """Return new nodes that hold as much of `wants` as limits allow, and what they do not hold.

        `free` counts per type nodes that are on their way and may be chosen again, the soonest first: they
        cost what new ones cost, so that the answer to the same wants stays the same while its nodes come up.
        The ledger must not count them. `within` are the types that may be chosen; None: all.
        """
        wants = [want for want in wants if want.count > 0]
        shapes = [one for one in self._shapes if within is None or one.name in within]
        if free:
            # Of equals, what is there soonest is chosen.
            turns = {name: turn for turn, name in enumerate(free)}
            shapes.sort(key=lambda one: turns.get(one.name, len(turns)))
        solution = cover(self._problem(shapes, wants, ledger, free or {}))
        choices = [
            Choice(
                shape=shapes[group.source],
                count=group.count,
                want=wants[group.driver],
                contents=tuple((want, n) for want, n in zip(wants, group.copies, strict=True) if n),
            )
            for group in solution.groups
        ]
        after = ledger.copy()
        for choice in choices:
            after.add(choice.shape.name, choice.count)
        short = ((want, left) for want, left in zip(wants, solution.left, strict=True) if left)
        return choices, [self._unmet(shapes, replace(want, count=left), after) for want, left in short]

    def standing(self, choices: Sequence[Choice]) -> tuple[float, int]:
        """Return how well the types suit what they are for, the worst of it; lower is better.

        By label, priority and time first, then by devices that nobody asked for.
        """
        found = [
            (float(level), self._burden(choice.shape, want))
            for choice in choices
            for want, _ in choice.contents
            if (level := self._level(choice.shape, want)) is not None
        ]
        return max(found, default=(float("-inf"), 0))

    def _burden(self, shape: Shape, want: Want) -> int:
        spare = SCARCE.intersection(shape.node_type.resources.by_name)
        return len(spare - want.bundle.resources.by_name.keys())

    def _problem(
        self, shapes: Sequence[Shape], wants: Sequence[Want], ledger: Ledger, free: Mapping[str, int]
    ) -> Problem:
        marks = sorted({want.bundle.anti_affinity for want in wants if want.bundle.anti_affinity})
        numbers = {mark: index for index, mark in enumerate(marks)}
        items = tuple(
            Item(
                amounts=self._lens.asked(want.bundle),
                count=want.count,
                mark=numbers.get(want.bundle.anti_affinity or "", -1),
            )
            for want in wants
        )
        sources = tuple(
            self._source(shape, wants, ledger, cost=self.costs[shape.name], free=free.get(shape.name, 0))
            for shape in shapes
        )
        budget = ledger.budget_left()
        return Problem(
            items=items,
            sources=sources,
            total=ledger.cluster_room(),
            budget_micro=None if budget is None else round(budget * MICRO),
            device_columns=self._lens.device_columns,
        )

    def _source(
        self, shape: Shape, wants: Sequence[Want], ledger: Ledger, *, cost: float, free: int
    ) -> Source:
        room = ledger.type_room(shape.node_type)
        levels = tuple(self._level(shape, want) for want in wants)
        return Source(
            capacity=shape.spot.free,
            cost=cost,
            price_micro=round(price_of(ledger.scene, shape.node_type) * MICRO),
            most=max(room.count, free),
            hold=room.hold and room.count == 0,
            levels=levels,
            burdens=tuple(self._burden(shape, want) for want in wants),
        )

    def _level(self, shape: Shape, want: Want) -> int | None:
        key = (shape.name, want.bundle)
        if key not in self._likes:
            self._likes[key] = preference(want.bundle, shape.spot.labels)
        liked = self._likes[key]
        if liked is None:
            return None
        # The selector first, then the type's priority (any number within Ray's range), then being in time.
        late = self.patience.late_if_asked(shape.node_type, want)
        return (liked << 40) - 2 * shape.node_type.priority + late

    def _unmet(self, shapes: Sequence[Shape], want: Want, ledger: Ledger) -> Unmet:
        fitting = [shape for shape in shapes if shape.holds(want.bundle)]
        prices = {shape.name: price_of(ledger.scene, shape.node_type) for shape in fitting}
        ranked = sorted(fitting, key=lambda one: (-one.node_type.priority, prices[one.name], one.name))
        rooms = [ledger.room(one.node_type) for one in ranked]
        return Unmet(want, tuple(dict.fromkeys(room for room in rooms if room.count == 0)))


def weighed(shapes: Sequence[Shape], prices: Mapping[str, float]) -> dict[str, float]:
    """Return what a node of each type is weighed with when types are chosen.

    Its price; where prices are equal, its size, as a share of the largest of each resource, so
    that less is taken; then one more node, so that fewer are taken. Where nothing has a price, size is
    the price: a machine that costs no money is still taken from somebody.
    """
    largest: Counter[str] = Counter()
    for shape in shapes:
        for name, amount in shape.node_type.resources:
            largest[name] = max(largest[name], amount)

    def size(shape: Shape) -> float:
        parts = [
            amount / largest[name] * (DEVICE_WEIGHT if name in SCARCE else 1.0)
            for name, amount in shape.node_type.resources
        ]
        return sum(parts) / max(1, len(largest))

    priced = [price for price in prices.values() if price > 0]
    unit = SIZE_WEIGHT * min(priced) if priced else 1.0
    return {shape.name: prices[shape.name] + unit * (size(shape) + NODE_WEIGHT) for shape in shapes}
