"""Room to place bundles in, grouped: nodes in the same state are one spot with many members.

Placing costs as many steps as there are distinct states, whatever the number of nodes or tasks.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from enum import IntEnum

from heliostat.model.demand import Bundle
from heliostat.model.resources import Resources
from heliostat.planner.wants import Want

Labels = tuple[tuple[str, str], ...]


class Kind(IntEnum):
    """The order in which room is used.

    JUST_JOINED is what is already taken on a node that joined a moment ago: demand that
    is older than the node may be the very work that runs there, reported a report late.
    """

    BUSY = 0
    RUNNING = 1
    COMING = 2
    JUST_JOINED = 3


@dataclass(frozen=True)
class Spot:
    """One distinct state of a node. `taken` holds the anti-affinity marks on it."""

    kind: Kind
    node_type: str
    free: Resources
    labels: Labels = ()
    scarce: frozenset[str] = frozenset()
    taken: frozenset[str] = frozenset()
    joined_s: float = 0.0

    def order(self) -> tuple[str, Labels, tuple[tuple[str, int], ...], tuple[str, ...], float]:
        return (self.node_type, self.labels, self.free.amounts, tuple(sorted(self.taken)), self.joined_s)

    def less(self, bundle: Bundle, copies: int) -> Spot:
        marks = {bundle.anti_affinity} if bundle.anti_affinity else set()
        return replace(self, free=self.free.minus(bundle.resources.times(copies)), taken=self.taken | marks)


@dataclass(frozen=True)
class Use:
    """`copies` of a want's bundle went to each of `members`."""

    want: Want
    members: tuple[str, ...]
    copies: int
    kind: Kind


class Pool:
    """Spots with their members, and what was placed so far. Mutable, private to one planning step."""

    def __init__(self) -> None:
        self.spots: dict[Spot, tuple[str, ...]] = {}
        self.uses: list[Use] = []

    def copy(self) -> Pool:
        other = Pool()
        other.spots = dict(self.spots)
        other.uses = list(self.uses)
        return other

    def add(self, spot: Spot, members: Sequence[str]) -> None:
        if members:
            self.spots[spot] = self.spots.get(spot, ()) + tuple(members)

    def place(self, want: Want) -> Want:
        """Place as many of `want` as there is room for; return the want with what is left of it."""
        left = want.count
        for per, spot in self._fitting(want):
            if left <= 0:
                break
            left -= self._fill(spot, want, per=per, left=left)
        return replace(want, count=left)

    def place_all(self, wants: Iterable[Want]) -> list[Want]:
        """Place each in turn; return what is left, wants that are wholly placed left out."""
        left = [self.place(want) for want in wants]
        return [want for want in left if want.count > 0]

    def _fitting(self, want: Want) -> list[tuple[int, Spot]]:
        """Return the spots that hold the bundle, the best first, with how many copies each takes.

        Nodes that run before those on their way, preferred labels before fallbacks, nodes without
        an unneeded GPU before those with one, and then the tightest, so that big rooms stay whole.
        """
        bundle = want.bundle
        preferences: dict[Labels, int | None] = {}
        found = []
        for spot in self.spots:
            per = copies_in(spot.free, bundle, taken=spot.taken)
            if per == 0 or (spot.kind is Kind.JUST_JOINED and want.since_s > spot.joined_s):
                continue
            if spot.labels not in preferences:
                preferences[spot.labels] = preference(bundle, spot.labels)
            liked = preferences[spot.labels]
            if liked is None:
                continue
            wasted = len(spot.scarce - bundle.resources.by_name.keys())
            found.append(((spot.kind, liked, wasted, per, spot.order()), per, spot))
        found.sort(key=lambda one: one[0])
        return [(per, spot) for _, per, spot in found]

    def _fill(self, spot: Spot, want: Want, *, per: int, left: int) -> int:
        members = self.spots.pop(spot)
        full = min(left // per, len(members))
        part = left - full * per if full < len(members) else 0
        self._use(spot, want, members=members[:full], copies=per)
        if part:
            self._use(spot, want, members=members[full : full + 1], copies=part)
        self.add(spot, members[full + bool(part) :])
        return full * per + part

    def _use(self, spot: Spot, want: Want, *, members: tuple[str, ...], copies: int) -> None:
        if members:
            self.add(spot.less(want.bundle, copies), members)
            self.uses.append(Use(want, members, copies, spot.kind))


def copies_in(free: Resources, bundle: Bundle, *, taken: frozenset[str] = frozenset()) -> int:
    """Return how many copies of the bundle fit into one node with `free` left."""
    if bundle.anti_affinity is None:
        return bundle.resources.times_in(free)
    return 0 if bundle.anti_affinity in taken else min(1, bundle.resources.times_in(free))


def preference(bundle: Bundle, labels: Labels) -> int | None:
    """Return which of the bundle's selectors accepts a node with `labels`; None if none does."""
    if not bundle.selectors:
        return 0
    known = dict(labels)
    holding = (
        index
        for index, selector in enumerate(bundle.selectors)
        if all(constraint.holds(known) for constraint in selector)
    )
    return next(holding, None)
