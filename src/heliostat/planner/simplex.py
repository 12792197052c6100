"""The covering program behind the choice of node types: revised simplex with generated columns.

    minimise  cost · x   subject to   A x >= counts,  x >= 0

A column of A says how many copies of each bundle one node of a type holds (a pattern). There are
too many to write down, so the dual values of the known ones price new ones (Gilmore and Gomory,
1961). Whole numbers are made of the result elsewhere; the dual values tell what each bundle costs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

PIVOTS_PER_ROW = 12
PIVOTS_MORE = 60
"""The program stops after so many steps per bundle shape, and so many more: it is feasible all along."""

SWEEPS = 40
"""So often new columns are asked for at most."""

TOLERANCE = 1e-7


@dataclass(frozen=True)
class Columns:
    """Patterns by column: `copies` (bundles × patterns), the cost and node type of each."""

    copies: Ints
    costs: Floats
    kinds: Ints

    def plus(self, other: Columns) -> Columns:
        return Columns(
            np.concatenate([self.copies, other.copies], axis=1),
            np.concatenate([self.costs, other.costs]),
            np.concatenate([self.kinds, other.kinds]),
        )

    def at(self, index: Ints) -> Columns:
        return Columns(self.copies[:, index], self.costs[index], self.kinds[index])


@dataclass(frozen=True)
class Relaxed:
    """The relaxed answer: `amounts` of the patterns in `columns`, and what one more of each bundle costs."""

    columns: Columns
    amounts: Floats
    values: Floats


def relax(counts: Ints, start: Columns, price: Callable[[Floats], Columns]) -> Relaxed:
    """Solve the covering program, from `start` (one column per bundle, holding that bundle alone).

    `price(values)` returns patterns that may be worth more than they cost; the program ends
    when it has none, or at the named limits.
    """
    master = _Master(counts.astype(np.float64), start)
    left = PIVOTS_PER_ROW * len(counts) + PIVOTS_MORE
    for _ in range(SWEEPS):
        left -= master.optimise(left)
        if left <= 0 or not master.learn(price(master.values())):
            break
    return master.answer()


class _Master:
    """The program over the known columns; columns beyond them take back what is held twice."""

    def __init__(self, counts: Floats, start: Columns) -> None:
        self._columns = start
        diagonal = start.copies.diagonal().astype(np.float64)
        self._basis = np.arange(len(counts))
        self._costs = start.costs.copy()
        self._inverse = np.diag(1.0 / diagonal)
        self._amounts = counts / diagonal
        self._floats = start.copies.astype(np.float64)

    def values(self) -> Floats:
        return self._costs @ self._inverse

    def learn(self, found: Columns) -> bool:
        """Add the patterns that pay; say whether there were any."""
        worth = self.values() @ found.copies - found.costs
        keep = np.flatnonzero(worth > TOLERANCE * found.costs)
        if not len(keep):
            return False
        chosen = found.at(keep)
        self._columns = self._columns.plus(chosen)
        self._floats = np.concatenate([self._floats, chosen.copies], axis=1)
        return True

    def optimise(self, most: int) -> int:
        """Step while a known column pays, `most` times at most; return the steps taken."""
        for step in range(most):
            values = self.values()
            worth = (values @ self._floats - self._columns.costs) / self._columns.costs
            best, give_back = int(worth.argmax()), int(values.argmin())
            if worth[best] > TOLERANCE:
                self._enter(best, self._floats[:, best], self._columns.costs[best])
            elif values[give_back] < -TOLERANCE:
                surplus = np.zeros(len(values))
                surplus[give_back] = -1.0
                self._enter(-1 - give_back, surplus, 0.0)
            else:
                return step
        return most

    def _enter(self, name: int, column: Floats, cost: float) -> None:
        direction = self._inverse @ column
        falling = direction > 1e-9
        ratios = np.where(falling, self._amounts / np.where(falling, direction, 1.0), np.inf)
        out = int(ratios.argmin())
        amount = max(0.0, float(ratios[out]))
        self._amounts -= amount * direction
        np.maximum(self._amounts, 0.0, out=self._amounts)
        self._amounts[out] = amount
        pivot = self._inverse[out] / direction[out]
        self._inverse -= np.outer(direction, pivot)
        self._inverse[out] = pivot
        self._basis[out] = name
        self._costs[out] = cost

    def answer(self) -> Relaxed:
        real = np.flatnonzero(self._basis >= 0)
        used = real[np.lexsort((self._basis[real],))]
        chosen = self._columns.at(self._basis[used])
        return Relaxed(chosen, self._amounts[used], np.maximum(self.values(), 0.0))
