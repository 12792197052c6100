"""The best filling of one bin at given prices of items, exactly, for every size of bin at once.

Dynamic programming over a grid of room: its step in each resource is the greatest common divisor of
what items ask, so rounding room down to the grid loses nothing. Copies of an item are halved into
chunks (1, 2, 4, …), each taken or not. Where parts of GPUs are asked for, one device after another is
filled first, on a grid with the rest of that device as one more side; whole devices come after. There an
item's count limits each device, not the node: where a node could hold more than there are, a filling
may be worth too much, which makes a bound smaller and no less true.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.planner_cases.spec import SCALE

GPU = "GPU"
CELLS_AT_MOST = 4_000_000
"""A larger grid is refused."""

WORTHLESS = 1e-12
"""Items whose price is below this are left out."""

Cells = NDArray[np.float64]


class TooLarge(Exception):
    """The grid would have more than `CELLS_AT_MOST` cells."""


@dataclass(frozen=True)
class Item:
    """One bundle, in 1/10000, how many there are, and how many of them one bin may hold (None: all)."""

    need: Mapping[str, int]
    count: int
    together: int | None = None

    @property
    def most(self) -> int:
        return self.count if self.together is None else min(self.count, self.together)


@dataclass(frozen=True)
class _Chunk:
    """`copies` of an item: what they take of the grid, and where it was better to take them."""

    item: int
    copies: int
    steps: tuple[int, ...]
    taken: NDArray[np.bool_]


class Knapsacks:
    """Fillings of bins that may hold the same `items` (by number). `rooms` are in 1/10000.

    `corners` are the rooms on the grid.
    """

    def __init__(
        self, items: Mapping[int, Item], rooms: Sequence[Mapping[str, int]], *, devices: bool
    ) -> None:
        fitting = [index for index, item in items.items() if any(_fits(item, room) for room in rooms)]
        self.items = {index: items[index] for index in fitting}
        parts = {index for index in fitting if devices and items[index].need.get(GPU, 0) % SCALE}
        self.parts = parts
        whole = all(room.get(GPU, 0) % SCALE == 0 for room in rooms)
        assert whole or not parts, "which device the rest lies on is not known"
        names = sorted({name for index in fitting for name in items[index].need})
        self.names = tuple(name for name in names if name != GPU) + ((GPU,) if GPU in names else ())
        self.units = {name: self._unit(name) for name in self.names}
        self.corners = [tuple(room.get(name, 0) // self.units[name] for name in self.names) for room in rooms]
        self.sides = tuple(max(along) + 1 for along in zip(*self.corners, strict=True))
        self.part_unit = math.gcd(SCALE, *(items[index].need[GPU] for index in parts)) if parts else SCALE
        cells = (
            math.prod(self.sides) if not parts else math.prod(self.sides[:-1]) * (SCALE // self.part_unit + 1)
        )
        if max(cells, math.prod(self.sides)) > CELLS_AT_MOST:
            raise TooLarge(f"{cells} cells")
        self.best: Cells = np.zeros(self.sides)
        self.chunks: list[_Chunk] = []
        self.stages: list[list[_Chunk]] = []

    def _unit(self, name: str) -> int:
        if name == GPU and self.parts:
            return SCALE
        return math.gcd(*(item.need[name] for item in self.items.values() if name in item.need))

    def solve(self, prices: NDArray[np.float64]) -> Cells:
        """Return the best value of every room on the grid at these prices of items."""
        self.best, self.stages, self.chunks = np.zeros(self.sides), [], []
        if self.parts:
            self._fill_devices(prices)
        for index, item in self.items.items():
            if index not in self.parts and prices[index] > WORTHLESS:
                steps = tuple(item.need.get(name, 0) // self.units[name] for name in self.names)
                self.chunks += _fill(self.best, index, item.most, steps=steps, price=float(prices[index]))
        return self.best

    def _fill_devices(self, prices: NDArray[np.float64]) -> None:
        full = SCALE // self.part_unit
        plane = np.zeros(self.sides[:-1])
        for device in range(1, self.sides[-1]):
            grid = np.repeat(plane[..., None], full + 1, axis=-1)
            stage: list[_Chunk] = []
            for index in sorted(self.parts):
                if prices[index] > WORTHLESS:
                    need = self.items[index].need
                    others = tuple(need.get(name, 0) // self.units[name] for name in self.names[:-1])
                    steps = (*others, need[GPU] // self.part_unit)
                    stage += _fill(
                        grid, index, self.items[index].most, steps=steps, price=float(prices[index])
                    )
            self.stages.append(stage)
            plane = grid[..., full]
            self.best[..., device] = plane

    def fitting(self, corner: tuple[int, ...]) -> list[int]:
        """Return the items of which one at least fits into that much room."""
        room = {name: at * self.units[name] for name, at in zip(self.names, corner, strict=True)}
        return [index for index, item in self.items.items() if _fits(item, room)]

    def filling(self, corner: tuple[int, ...]) -> dict[int, int]:
        """Return what the best filling of that much room holds, as counts of items, at the last prices."""
        counts: dict[int, int] = {}
        corner = _unwind(self.chunks, corner, counts)
        if self.parts:
            others, devices = corner[:-1], corner[-1]
            for stage in reversed(self.stages[:devices]):
                others = _unwind(stage, (*others, SCALE // self.part_unit), counts)[:-1]
        return counts


def _fits(item: Item, room: Mapping[str, int]) -> bool:
    return all(amount <= room.get(name, 0) for name, amount in item.need.items())


def _chunks(copies: int) -> Iterator[int]:
    """Yield numbers whose sums are exactly all of 0 to `copies`."""
    size = 1
    while copies > 0:
        yield min(size, copies)
        copies -= size
        size *= 2


def _fill(grid: Cells, item: int, count: int, *, steps: tuple[int, ...], price: float) -> list[_Chunk]:
    most = min((side - 1) // step for side, step in zip(grid.shape, steps, strict=True) if step)
    made = []
    for copies in _chunks(min(count, most)):
        shift = tuple(copies * step for step in steps)
        lower: Any = tuple(slice(0, side - by) for side, by in zip(grid.shape, shift, strict=True))
        upper: Any = tuple(slice(by, None) for by in shift)
        other = grid[lower] + copies * price
        taken = other > grid[upper]
        np.maximum(grid[upper], other, out=grid[upper])
        made.append(_Chunk(item, copies, shift, taken))
    return made


def _unwind(chunks: Sequence[_Chunk], corner: tuple[int, ...], counts: dict[int, int]) -> tuple[int, ...]:
    """Walk back from a corner through the chunks, counting what was taken; return the room that is left."""
    for chunk in reversed(chunks):
        lower = tuple(at - step for at, step in zip(corner, chunk.steps, strict=True))
        if min(lower) >= 0 and chunk.taken[lower]:
            counts[chunk.item] = counts.get(chunk.item, 0) + chunk.copies
            corner = lower
    return corner
