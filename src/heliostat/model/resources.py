"""Amounts of resources in exact arithmetic.

Ray counts in 1/10000 of a unit (its FixedPoint); so do we, in whole numbers, so that
ten bundles of 0.1 CPU fill one CPU exactly and no float ever drifts.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

SCALE = 10_000

IMPLICIT_RESOURCE = "node:__internal_implicit_resource_"
"""Every node has one of each resource that begins so, listed or not (Ray Serve spreads replicas with it)."""


@dataclass(frozen=True)
class Resources:
    """Named non-negative amounts, in units of 1/10000; a name that is absent is zero.

    `amounts` is sorted by name and holds no zeros, so equal resources are equal values
    with equal hashes whatever order they were given in.
    """

    amounts: tuple[tuple[str, int], ...] = ()

    @classmethod
    def of(cls, units: Mapping[str, float | int]) -> Resources:
        """Build from whole or fractional units (`{"CPU": 0.5}`), rounded to 1/10000."""
        return cls.from_scaled((name, round(amount * SCALE)) for name, amount in units.items())

    @classmethod
    def from_scaled(cls, pairs: Iterable[tuple[str, int]]) -> Resources:
        """Build from amounts already in 1/10000; zeros are dropped, negatives refused."""
        kept = sorted((name, amount) for name, amount in pairs if amount)
        if any(amount < 0 for _, amount in kept):
            raise ValueError(f"resource amounts must not be negative: {kept}")
        return cls(tuple(kept))

    @cached_property
    def by_name(self) -> Mapping[str, int]:
        return dict(self.amounts)

    def __hash__(self) -> int:
        return self._hash

    @cached_property
    def _hash(self) -> int:
        return hash(self.amounts)

    def __bool__(self) -> bool:
        return bool(self.amounts)

    def __iter__(self) -> Iterator[tuple[str, int]]:
        return iter(self.amounts)

    def get(self, name: str) -> int:
        """Return the amount of `name` in 1/10000."""
        return self.by_name.get(name, 0)

    def units(self) -> dict[str, float]:
        """Return plain units, whole numbers as ints, for people, JSON and Ray."""
        return {
            name: amount // SCALE if amount % SCALE == 0 else amount / SCALE for name, amount in self.amounts
        }

    def fits_in(self, room: Resources) -> bool:
        free = room.by_name
        return all(amount <= free.get(name, 0) for name, amount in self.amounts)

    def plus(self, other: Resources) -> Resources:
        names = self.by_name.keys() | other.by_name.keys()
        return Resources.from_scaled((name, self.get(name) + other.get(name)) for name in names)

    def minus(self, other: Resources) -> Resources:
        """Subtract; `other` must fit (an overdraw is our own mistake, not the world's)."""
        names = self.by_name.keys() | other.by_name.keys()
        return Resources.from_scaled((name, self.get(name) - other.get(name)) for name in names)

    def times(self, count: int) -> Resources:
        return Resources.from_scaled((name, amount * count) for name, amount in self.amounts)

    def __str__(self) -> str:
        return "{" + ", ".join(f"{name}: {amount:g}" for name, amount in self.units().items()) + "}"


NOTHING = Resources()
