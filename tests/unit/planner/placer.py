"""Placing by brute force, with nothing of the planner's own: the judge of what it claims."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from heliostat.model.demand import Bundle


@dataclass
class Bin:
    """One node: what is free in 1/10000, its labels, and the groups that must not meet there again."""

    free: dict[str, int]
    labels: dict[str, str] = field(default_factory=dict)
    marks: set[str] = field(default_factory=set)

    def holds(self, bundle: Bundle) -> bool:
        if bundle.anti_affinity in self.marks:
            return False
        if not all(self.free.get(name, 0) >= amount for name, amount in bundle.resources):
            return False
        return not bundle.selectors or any(
            all((self.labels.get(c.key) in c.values) == (c.operator.value == "in") for c in way)
            for way in bundle.selectors
        )

    def take(self, bundle: Bundle) -> None:
        for name, amount in bundle.resources:
            self.free[name] -= amount
        if bundle.anti_affinity:
            self.marks.add(bundle.anti_affinity)

    def give_back(self, bundle: Bundle) -> None:
        for name, amount in bundle.resources:
            self.free[name] += amount
        if bundle.anti_affinity:
            self.marks.discard(bundle.anti_affinity)

    def state(self) -> tuple[object, ...]:
        return (tuple(sorted(self.free.items())), tuple(sorted(self.labels.items())), frozenset(self.marks))


def put_somewhere(bins: Sequence[Bin], bundle: Bundle) -> int | None:
    """Take the first bin that holds the bundle, as a scheduler that knows nothing of plans does."""
    for index, one in enumerate(bins):
        if one.holds(bundle):
            one.take(bundle)
            return index
    return None


def all_fit(bins: Sequence[Bin], bundles: Sequence[Bundle]) -> bool:
    """Say whether some way exists to place all bundles at once, by trying every one that differs."""
    ordered = sorted(bundles, key=lambda one: -sum(amount for _, amount in one.resources))
    return _search(list(bins), ordered, set())


def _search(bins: list[Bin], left: list[Bundle], hopeless: set[object]) -> bool:
    if not left:
        return True
    key = (len(left), frozenset((one.state(), sum(o.state() == one.state() for o in bins)) for one in bins))
    if key in hopeless:
        return False
    first, seen = left[0], set()
    for one in bins:
        if one.state() in seen or not one.holds(first):
            continue
        seen.add(one.state())
        one.take(first)
        if _search(bins, left[1:], hopeless):
            return True
        one.give_back(first)
    hopeless.add(key)
    return False
