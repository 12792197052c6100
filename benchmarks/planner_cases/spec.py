"""What a case is made of, as plain numbers: neither Heliostat's model nor Ray's messages."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

GIB = 2.0**30
SCALE = 10_000
"""Ray counts in 1/10000 of a unit."""

NOW_S = 1_800_000_000.0

Selector = tuple[tuple[str, str, tuple[str, ...]], ...]
"""Conditions (label, «in» or «not in», values) that must all hold."""


def scaled(amounts: Mapping[str, float]) -> dict[str, int]:
    """Return the amounts that are not zero, in 1/10000."""
    return {name: round(amount * SCALE) for name, amount in amounts.items() if round(amount * SCALE)}


@dataclass(frozen=True)
class Type:
    """A node type of Ray and ours. `ready_in_s`: how long its backend's queue is just now."""

    name: str
    amounts: Mapping[str, float]
    price: float
    labels: Mapping[str, str] = field(default_factory=dict)
    backend: str = "cloud"
    ready_in_s: float | None = None
    patience_s: float = 0.0

    @property
    def in_time(self) -> bool:
        """Say whether the backend brings it before the user's patience ends."""
        return self.ready_in_s is None or self.patience_s == 0 or self.ready_in_s <= self.patience_s


@dataclass(frozen=True)
class Shape:
    """One bundle: what it asks, and where it may go (the first selector is preferred)."""

    amounts: tuple[tuple[str, float], ...]
    selectors: tuple[Selector, ...] = ()

    def allows(self, labels: Mapping[str, str]) -> bool:
        return not self.selectors or any(
            all((labels.get(key) in values) == (operator == "in") for key, operator, values in selector)
            for selector in self.selectors
        )

    def fits(self, amounts: Mapping[str, float]) -> bool:
        return all(amount <= amounts.get(name, 0.0) for name, amount in self.amounts)


@dataclass(frozen=True)
class Gang:
    """A placement group: `bundles` equal bundles of one shape, all or none."""

    gang_id: str
    strategy: str
    shape: Shape
    bundles: int


@dataclass(frozen=True)
class Node:
    """A running node of a type with `free` left of it. `idle_s` 0 means that it works."""

    index: int
    type: Type
    free: tuple[tuple[str, float], ...]
    idle_s: float = 0.0

    @property
    def instance_id(self) -> str:
        return f"launch{self.index:06d}.0"

    @property
    def ip(self) -> str:
        return f"10.{self.index >> 16 & 255}.{self.index >> 8 & 255}.{self.index & 255}"


@dataclass(frozen=True)
class Case:
    """One input for both planners.

    `devices`: a part of a GPU must lie within one device, as in Ray's own scheduling.
    """

    name: str
    title: str
    types: tuple[Type, ...]
    nodes: tuple[Node, ...] = ()
    tasks: tuple[tuple[Shape, int], ...] = ()
    gangs: tuple[Gang, ...] = ()
    devices: bool = False

    @property
    def states(self) -> int:
        """Return in how many different states nodes are, whatever is each node's own."""
        return len({(node.type.name, node.free) for node in self.nodes})

    @property
    def shapes(self) -> int:
        return len({shape for shape, _ in self.tasks} | {gang.shape for gang in self.gangs})

    @property
    def bundles(self) -> int:
        return sum(count for _, count in self.tasks) + sum(gang.bundles for gang in self.gangs)
