"""With few shapes every full pattern of a node is tried, and few nodes are all searched for."""

from __future__ import annotations

import numpy as np
import pytest

from heliostat.planner.cover import cover
from heliostat.planner.patterns import FEW_PATTERNS, FEW_SHAPES, Patterns
from heliostat.planner.problem import MICRO, Item, Problem, Source

UNIT = 10_000


def source(size: int, cost: float, shapes: int) -> Source:
    return Source((size * UNIT,), cost, round(cost * MICRO), 1000, False, (0,) * shapes, (0,) * shapes)


def problem(asked: dict[int, int], types: dict[int, float]) -> Problem:
    """Return a problem of `asked` (CPUs of a bundle: how many) and `types` (CPUs of a node: its cost)."""
    items = tuple(Item((size * UNIT,), count) for size, count in asked.items())
    return Problem(items, tuple(source(size, cost, len(items)) for size, cost in types.items()), total=1000)


@pytest.mark.parametrize(
    ("asked", "types", "cost"),
    [
        ({5: 6, 3: 6}, {16: 5.0}, 15.0),
        ({1: 9}, {4: 2.0, 12: 5.0}, 5.0),
        ({1: 9}, {8: 2.0, 12: 2.8}, 2.8),
        ({7: 3, 5: 3, 4: 3}, {16: 1.0}, 3.0),
        ({7: 30, 5: 30, 4: 30}, {16: 1.0}, 30.0),
    ],
)
def test_the_lowest_cost(asked: dict[int, int], types: dict[int, float], cost: float) -> None:
    given = problem(asked, types)
    found = cover(given)
    assert not any(found.left)
    assert sum(given.sources[one.source].cost * one.count for one in found.groups) == cost


def patterns(given: Problem) -> int:
    """Return how many patterns are known for as much as is asked."""
    shape = (len(given.sources), len(given.items))
    known = Patterns(given, np.ones(shape, dtype=bool), np.zeros(shape, dtype=bool))
    left = np.array([item.count for item in given.items])
    return known.fill(np.ones(shape[1]), left, np.ones(shape[0], dtype=bool)).copies.shape[1]


def test_all_are_known_where_they_are_few() -> None:
    """Of 5 and 3 into 16: (3, 0), (2, 2), (1, 3), (0, 5)."""
    assert patterns(problem({5: 9, 3: 9}, {16: 1.0})) == 4


@pytest.mark.parametrize("asked", [{1: 300, 2: 300, 3: 300}, dict.fromkeys(range(1, FEW_SHAPES + 2), 9)])
def test_a_few_orders_are_tried_where_they_are_many(asked: dict[int, int]) -> None:
    assert 0 < patterns(problem(asked, {96: 1.0})) < min(FEW_PATTERNS, 20)
