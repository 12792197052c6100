"""The last few nodes, searched: a relaxed answer says little about one node more or less.

Depth first over the patterns worth most, cut off where the bundles' values promise no gain. The
first descent is the greedy answer, so there always is one; the named limits end the search, never the clock.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from heliostat.planner.patterns import Flags, Patterns
from heliostat.planner.simplex import Columns, Floats, Ints

WIDTH = 6
"""So many of the best patterns are tried at each node, and the cheapest that holds all that is left."""

STEPS = 60
"""So many times patterns are asked for beyond the first descent."""

Chosen = tuple[tuple[int, Ints], ...]
"""Nodes: the source and the copies of each item."""


@dataclass
class Tail:
    """One search. `values` are what one more of each item costs, by the relaxed answer."""

    patterns: Patterns
    values: Floats
    opened: Flags
    _least: float = float("inf")
    _best: Chosen = ()
    _steps: int = STEPS
    _seen: dict[bytes, float] = field(default_factory=dict)

    def search(self, left: Ints) -> Chosen:
        """Return nodes that hold `left`, at the lowest cost found."""
        self._descend(left, 0.0, ())
        return self._best

    def _descend(self, left: Ints, cost: float, chosen: Chosen) -> None:
        if not left.any():
            if cost < self._least - 1e-12:
                self._least, self._best = cost, chosen
            return
        key = left.tobytes()
        hopeless = cost + float(self.values @ left) * (1 - 1e-9) >= self._least
        if hopeless or cost >= self._seen.get(key, float("inf")):
            return
        first = self._least == float("inf")
        if not first:
            if self._steps <= 0:
                return
            self._steps -= 1
        self._seen[key] = cost
        found = self.patterns.fill(np.maximum(self.values, 1e-12), left, self.opened)
        for index in self._branches(found, left):
            copies = found.copies[:, index]
            node = (int(found.kinds[index]), copies)
            self._descend(left - copies, cost + float(found.costs[index]), (*chosen, node))

    def _branches(self, found: Columns, left: Ints) -> list[int]:
        if not found.copies.shape[1]:
            return []
        worth = np.round(self.values @ found.copies / found.costs, 9)
        order = np.lexsort((found.kinds, -found.copies.sum(axis=0), -worth)).tolist()
        whole = np.flatnonzero((found.copies == left[:, None]).all(axis=0))
        cheapest = [int(whole[found.costs[whole].argmin()])] if len(whole) else []
        return list(dict.fromkeys([*order[:WIDTH], *cheapest]))
