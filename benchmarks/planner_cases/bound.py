"""A lower bound on what any plan costs that places every bundle whole.

The configuration LP (a column is one filling of one node) by column generation: what runs is free
bins with its exact room, each different state with its number of nodes; node types are priced bins
without end. Prices of items come from HiGHS, the best new fillings from `knapsack`. At any prices π of
items, with v(π) a bin's best filling, and after scaling π so that no type's filling is worth more
than the type (Farley),

    Σ count·π − Σ nodes·max(0, v(π) − cost)   over the bins that are limited

is a lower bound (Lagrange). So the best of these is returned wherever the iteration is stopped; that it
is stopped by counts and gaps, never by a clock, makes it the same on every machine. Gangs are taken
as single bundles (those that spread: one of a gang on a node), and preferred labels like fallbacks,
which can only make the bound smaller.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import highspy
import numpy as np
from numpy.typing import NDArray

from benchmarks.planner_cases.knapsack import Item, Knapsacks, TooLarge
from benchmarks.planner_cases.spec import Case, Shape, scaled

ROUNDS = 120
GAP = 2e-4
"""Stop when the LP over the fillings found so far is so close to the bound."""

SMOOTHING = 0.6
"""How far new prices are drawn towards the best ones so far: plain column generation swings."""

SAFETY = 1e-9
"""The bound is made smaller by this share, which covers the rounding of floats."""

OPTIONS: Mapping[str, bool | int | float | str] = {
    "output_flag": False,
    "threads": 1,
    "random_seed": 1,
    "solver": "simplex",
    "presolve": "off",
}
WHOLE_OPTIONS: Mapping[str, bool | int | float | str] = {
    "solver": "choose",
    "presolve": "on",
    "mip_max_nodes": 300,
    "mip_abs_gap": 0.5,
}
REDUCED_COST = 1e-7
"""A filling must gain more than this to be added."""

Prices = NDArray[np.float64]


@dataclass(frozen=True)
class Bin:
    """Nodes of one kind: their room in 1/10000, one's cost, how many (None: no end), items allowed.

    `devices`: a part of a GPU must lie within one device.
    """

    room: Mapping[str, int]
    cost: float
    members: int | None
    holds: frozenset[int]
    devices: bool = False


@dataclass(frozen=True)
class Share:
    """`number` nodes (a fraction, perhaps) of those that `bins` name hold `counts` each."""

    bins: tuple[int, ...]
    counts: Mapping[int, int]
    number: float


@dataclass(frozen=True)
class Bound:
    """`value` is certain; the LP's own optimum lies between it and `above`, which `shares` costs."""

    value: float
    above: float
    rounds: int
    shares: tuple[Share, ...] = ()


def of_case(case: Case) -> Bound | None:
    """Return the bound on the cost of what is launched; None where the grids would be too large."""
    # What no type can hold costs nothing.
    case = replace(
        case,
        tasks=tuple(one for one in case.tasks if _somewhere(case, one[0])),
        gangs=tuple(one for one in case.gangs if _somewhere(case, one.shape)),
    )
    items, shapes = items_of(case)
    types = [
        Bin(scaled(one.amounts), one.price, None, held(shapes, one.labels), case.devices)
        for one in case.types
        if one.in_time
    ]
    try:
        return lower_bound(items, [*_there(case, shapes), *types])
    except TooLarge:
        return None


def items_of(case: Case) -> tuple[list[Item], list[Shape]]:
    """Return all bundles, one by one, and the shape of each item.

    Those of gangs that spread are items of their own: as many on one node at most as there are gangs.
    """
    counts: Counter[tuple[Shape, bool]] = Counter()
    spread = Counter(gang.shape for gang in case.gangs if gang.strategy == "STRICT_SPREAD")
    for shape, count in case.tasks:
        counts[shape, False] += count
    for gang in case.gangs:
        counts[gang.shape, gang.strategy == "STRICT_SPREAD"] += gang.bundles
    items = [
        Item(scaled(dict(shape.amounts)), count, spread[shape] if apart else None)
        for (shape, apart), count in counts.items()
    ]
    return items, [shape for shape, _ in counts]


def _somewhere(case: Case, shape: Shape) -> bool:
    return any(one.in_time and shape.fits(one.amounts) and shape.allows(one.labels) for one in case.types)


def held(shapes: Sequence[Shape], labels: Mapping[str, str]) -> frozenset[int]:
    """Return the numbers of the shapes that a node with these labels may hold."""
    return frozenset(index for index, shape in enumerate(shapes) if shape.allows(labels))


def _there(case: Case, shapes: Sequence[Shape]) -> list[Bin]:
    counts = Counter((node.free, node.type.name) for node in case.nodes)
    allowed = {one.name: held(shapes, one.labels) for one in case.types}
    return [
        Bin(scaled(dict(free)), 0.0, count, allowed[name], case.devices)
        for (free, name), count in counts.items()
    ]


def lower_bound(
    items: Sequence[Item], bins: Sequence[Bin], *, rounds: int = ROUNDS, whole: bool = False
) -> Bound:
    """Return a lower bound on the cost of bins that hold all items. Every item fits some endless bin.

    With `whole`, `shares` are whole numbers: the best mix of the fillings found that HiGHS comes upon.
    """
    if not items:
        return Bound(0.0, 0.0, 0)
    families = _Families(items, bins)
    master = _Master(items, families)
    best, best_at = families.price(master.prices), master.prices
    done = 1
    while done < rounds and master.value - best > GAP * master.value:
        done += 1
        prices = SMOOTHING * best_at + (1 - SMOOTHING) * master.prices
        best, best_at = max((best, best_at), (families.price(prices), prices), key=lambda one: one[0])
        new = families.gaining(master)
        if not new:
            # The smoothed prices missed what the LP's own prices would find.
            best, best_at = max(
                (best, best_at), (families.price(master.prices), master.prices), key=lambda one: one[0]
            )
            new = families.gaining(master)
        if not new:
            break
        master.add(new)
    value, above = max(0.0, best * (1 - SAFETY)), master.value
    if whole:
        master.make_whole()
    return Bound(value, above, done, master.shares(families))


@dataclass(frozen=True)
class _Filling:
    """One column: what one node of a family holds."""

    family: int
    counts: Mapping[int, int]


@dataclass(frozen=True)
class _Group:
    """Families that may hold the same items: one grid for all of them, one corner of it for each."""

    sacks: Knapsacks
    corners: list[tuple[int, ...]]
    first: int

    def values(self) -> Prices:
        return np.array([self.sacks.best[corner] for corner in self.corners])


class _Families:
    """The bins, those equal on the grid merged into one family, with the best fillings at the last prices."""

    def __init__(self, items: Sequence[Item], bins: Sequence[Bin]) -> None:
        self.counts = np.array([item.count for item in items], dtype=np.float64)
        self.groups: list[_Group] = []
        costs: list[float] = []
        self.bins: list[list[int]] = []
        alike: dict[tuple[frozenset[int], bool, bool], list[int]] = {}
        for index, one in enumerate(bins):
            alike.setdefault((one.holds, one.devices, bool(one.room.get("GPU"))), []).append(index)
        for (holds, devices, _), several in alike.items():
            allowed = {index: items[index] for index in sorted(holds)}
            sacks = Knapsacks(allowed, [bins[index].room for index in several], devices=devices)
            merged: dict[tuple[tuple[int, ...], float], list[int]] = {}
            for index, corner in zip(several, sacks.corners, strict=True):
                merged.setdefault((corner, bins[index].cost), []).append(index)
            self.groups.append(_Group(sacks, [corner for corner, _ in merged], len(costs)))
            costs += [cost for _, cost in merged]
            self.bins += merged.values()
        members = [
            sum(np.inf if (end := bins[index].members) is None else end for index in several)
            for several in self.bins
        ]
        self.costs, self.members = np.array(costs), np.array(members)
        self.values = np.zeros(len(costs))

    def price(self, prices: Prices) -> float:
        """Find the best fillings at these prices of items; return the bound that the prices prove."""
        for group in self.groups:
            group.sacks.solve(prices)
            self.values[group.first : group.first + len(group.corners)] = group.values()
        endless = np.isinf(self.members)
        over = endless & (self.values > self.costs)
        factor = float((self.costs[over] / self.values[over]).min()) if over.any() else 1.0
        gains = np.maximum(0.0, factor * self.values - self.costs)[~endless] * self.members[~endless]
        return factor * float(self.counts @ prices) - float(gains.sum())

    def gaining(self, master: _Master) -> list[_Filling]:
        """Return the fillings found last that make the LP's value smaller, at most one a family."""
        found = []
        for group in self.groups:
            for number, corner in enumerate(group.corners):
                family = group.first + number
                if self.values[family] > 0:
                    filling = _Filling(family, group.sacks.filling(corner))
                    if master.gains(filling):
                        found.append(filling)
        return found

    def singles(self) -> list[_Filling]:
        """Return endless families holding one item each, for every item that they can hold."""
        return [
            _Filling(group.first + number, {index: 1})
            for group in self.groups
            for number, corner in enumerate(group.corners)
            if np.isinf(self.members[group.first + number])
            for index in group.sacks.fitting(corner)
        ]


class _Master:
    """The LP over the fillings found so far: rows are the items, then the families that have an end."""

    def __init__(self, items: Sequence[Item], families: _Families) -> None:
        self.items = len(items)
        self.fillings: list[_Filling] = []
        self.costs = families.costs
        limited = np.flatnonzero(~np.isinf(families.members))
        self.rows = {int(family): self.items + row for row, family in enumerate(limited)}
        self.highs: Any = highspy.Highs()  # type: ignore[no-untyped-call]
        for name, value in OPTIONS.items():
            self.highs.setOptionValue(name, value)
        infinity = highspy.kHighsInf
        for item in items:
            self.highs.addRow(float(item.count), infinity, 0, np.empty(0, dtype=np.int32), np.empty(0))
        for family in limited:
            end = float(families.members[family])
            self.highs.addRow(-infinity, end, 0, np.empty(0, dtype=np.int32), np.empty(0))
        self.add(families.singles())

    def add(self, fillings: Sequence[_Filling]) -> None:
        """Add the columns and solve."""
        self.fillings += fillings
        for filling in fillings:
            rows = list(filling.counts) + ([self.rows[filling.family]] if filling.family in self.rows else [])
            entries = [float(count) for count in filling.counts.values()] + [1.0] * (
                filling.family in self.rows
            )
            self.highs.addCol(
                float(self.costs[filling.family]),
                *(0.0, highspy.kHighsInf, len(rows)),
                *(np.array(rows, dtype=np.int32), np.array(entries)),
            )
        self.highs.run()
        assert self.highs.getModelStatus() == highspy.HighsModelStatus.kOptimal, "an item fits no endless bin"
        self.value = float(self.highs.getInfo().objective_function_value)
        duals = np.array(self.highs.getSolution().row_dual)
        self.prices: Prices = np.maximum(0.0, duals[: self.items])
        self.family_prices = duals

    def gains(self, filling: _Filling) -> bool:
        """Say whether the column has a negative reduced cost."""
        row = self.rows.get(filling.family)
        of_family = float(self.family_prices[row]) if row is not None else 0.0
        worth = sum(count * float(self.prices[index]) for index, count in filling.counts.items())
        return float(self.costs[filling.family]) - worth - of_family < -REDUCED_COST

    def make_whole(self) -> None:
        """Solve again, in whole numbers of fillings."""
        for column in range(self.highs.getNumCol()):
            self.highs.changeColIntegrality(column, highspy.HighsVarType.kInteger)
        for name, value in WHOLE_OPTIONS.items():
            self.highs.setOptionValue(name, value)
        self.highs.run()

    def shares(self, families: _Families) -> tuple[Share, ...]:
        """Return the LP's solution."""
        numbers = self.highs.getSolution().col_value
        return tuple(
            Share(tuple(families.bins[filling.family]), filling.counts, float(number))
            for filling, number in zip(self.fillings, numbers, strict=True)
            if number > 0
        )
