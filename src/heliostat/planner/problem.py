"""The choice of new nodes as plain numbers: what is to be held, what a node holds, and the limits.

Hashable through and through, so that an answer can be kept for as long as the question stays the same.
"""

from __future__ import annotations

from dataclasses import dataclass

MICRO = 1_000_000
"""Money is counted in whole millionths of a dollar, so that sums are exact."""


@dataclass(frozen=True)
class Item:
    """`count` equal bundles: `amounts` per resource in 1/10000. A node holds one of each `mark`."""

    amounts: tuple[int, ...]
    count: int
    mark: int = -1


@dataclass(frozen=True)
class Source:
    """One node type. `cost` is what a node of it is weighed with, `price_micro` what it costs by the hour.

    `levels` says per item how well the type suits it, the lowest first, None where it never does;
    `burdens` how many kinds of device it has that the item does not need. `most` new nodes may be
    had; with `hold`, items that want this type wait when there are none, and go nowhere else.
    """

    capacity: tuple[int, ...]
    cost: float
    price_micro: int
    most: int
    hold: bool
    levels: tuple[int | None, ...]
    burdens: tuple[int, ...]


@dataclass(frozen=True)
class Problem:
    """`device_columns`: resources counted by device. `total`, `budget_micro`: limits of all sources."""

    items: tuple[Item, ...]
    sources: tuple[Source, ...]
    total: int
    budget_micro: int | None = None
    device_columns: tuple[int, ...] = ()


@dataclass(frozen=True)
class Group:
    """`count` new nodes of a source, each to hold `copies` of the items; the item `driver` brought them."""

    source: int
    count: int
    copies: tuple[int, ...]
    driver: int


@dataclass(frozen=True)
class Solution:
    """`left` counts per item what no source could be had for."""

    groups: tuple[Group, ...]
    left: tuple[int, ...]
