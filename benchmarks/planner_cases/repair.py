"""Makes room for bundles that plain placing left over, by moving others: a search with limits.

A bundle that fits nowhere takes the place of a few others of one shape on a node, and each of those is
put elsewhere in the same way, a few moves deep. What is placed certainly fits; what is left may fit still.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from benchmarks.planner_cases.placer import Bins, Matrix, allowed
from benchmarks.planner_cases.spec import SCALE

DEPTH = 3
"""So many moves follow one another for one bundle."""

MOVED = 4
"""At most so many others of a shape make room for one bundle."""

WIDTH = 60
"""So many places are tried at each depth, those first where the least has to move."""

STEPS = 5_000
"""Places tried in all."""

CUTS = 2_000
"""Steps of the search for a way to share out one node's devices."""

Counts = NDArray[np.int64]


def left_after_moves(start: Bins, packed: Bins, left: Sequence[int]) -> int:
    """Return how many bundles of `left` (a number for each of the bins' columns) have no place still.

    `start` are the bins before anything was placed, `packed` with what was. Both stay as they are.
    """
    search = _Search(start, packed)
    return sum(not search.insert(shape) for shape, count in enumerate(left) for _ in range(count))


class _Search:
    """What each node holds, changed one move at a time."""

    def __init__(self, start: Bins, packed: Bins) -> None:
        self.held: Matrix = packed.held.copy()
        self.needs = start.needs
        self.free: Matrix = start.free - self.held @ self.needs
        self.allowed = np.array([allowed(start, shape) for shape in start.columns])
        self.sizes = (self.needs / np.maximum(1, start.free.max(axis=0, initial=1))).sum(axis=1)
        self.devices = None if start.devices is None else (start.devices == SCALE).sum(axis=1)
        self.gpus = None if start.devices is None else self.needs[:, start.names.index("GPU")]
        self.done: list[tuple[int, Counts]] = []
        self.steps = 0

    def insert(self, shape: int, *, depth: int = DEPTH, above: frozenset[int] = frozenset()) -> bool:
        """Place one more of the shape, or leave everything as it was."""
        rows = np.flatnonzero(self.allowed[shape] & (self.free >= self.needs[shape]).all(axis=1))
        if any(self._change(int(row), {shape: 1}) for row in rows):
            return True
        for row, other, copies in self._exchanges(shape, above | {shape}) if depth else ():
            self.steps += 1
            if self.steps > STEPS:
                return False
            mark = len(self.done)
            if self._change(row, {shape: 1, other: -copies}) and all(
                self.insert(other, depth=depth - 1, above=above | {shape}) for _ in range(copies)
            ):
                return True
            self._back_to(mark)
        return False

    def _back_to(self, mark: int) -> None:
        """Take back all changes but the first `mark`."""
        while len(self.done) > mark:
            row, held = self.done.pop()
            self._set(row, held)

    def _exchanges(self, shape: int, above: frozenset[int]) -> list[tuple[int, int, int]]:
        """Return rows, and how many of which shape would have to leave there, the least first."""
        found = []
        lack = np.maximum(0, self.needs[shape] - self.free)
        for other, need in enumerate(self.needs):
            if other in above:
                continue
            each = np.where(need > 0, -(-lack // np.maximum(1, need)), np.where(lack > 0, MOVED + 1, 0))
            copies = np.maximum(1, each.max(axis=1))
            fit = self.allowed[shape] & (copies <= np.minimum(MOVED, self.held[:, other]))
            sizes = copies * self.sizes[other]
            found += [(sizes[row], int(row), other, int(copies[row])) for row in np.flatnonzero(fit)]
        return [(row, other, copies) for _, row, other, copies in sorted(found)[:WIDTH]]

    def _change(self, row: int, counts: dict[int, int]) -> bool:
        """Put on and take off the node, if what it holds then surely fits."""
        held = self.held[row].copy()
        for shape, count in counts.items():
            held[shape] += count
        if self.devices is not None and not self._on_devices(row, held):
            return False
        self.done.append((row, self.held[row].copy()))
        self._set(row, held)
        return True

    def _set(self, row: int, held: Counts) -> None:
        self.free[row] -= (held - self.held[row]) @ self.needs
        self.held[row] = held

    def _on_devices(self, row: int, held: Counts) -> bool:
        assert self.gpus is not None
        assert self.devices is not None
        whole = int((held * (self.gpus // SCALE))[self.gpus % SCALE == 0].sum())
        parts = np.repeat(self.gpus, held)
        parts = parts[parts % SCALE != 0]
        return shared_out(tuple(sorted(map(int, parts), reverse=True)), int(self.devices[row]) - whole)


@lru_cache(maxsize=100_000)
def shared_out(parts: tuple[int, ...], devices: int) -> bool:
    """Say whether a way is found to put the parts, the largest first, on so many whole devices."""
    if devices < 0 or sum(parts) > devices * SCALE:
        return False
    left = CUTS

    def search(at: int, free: tuple[int, ...]) -> bool:
        nonlocal left
        left -= 1
        if at == len(parts):
            return True
        # The fullest first; devices that are alike are the same choice.
        for room in sorted({one for one in free if one >= parts[at]}):
            if left < 0:
                return False
            rest = list(free)
            rest[rest.index(room)] -= parts[at]
            if search(at + 1, tuple(rest)):
                return True
        return False

    return search(0, (SCALE,) * devices)
