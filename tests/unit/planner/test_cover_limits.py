"""Where a limit binds: nodes whose work fits into what others have left are not launched."""

from __future__ import annotations

from collections import Counter

import pytest

from heliostat.planner.cover import cover
from heliostat.planner.problem import MICRO, Item, Problem, Source

UNIT = 10_000


def source(size: int, cost: float, most: int, levels: tuple[int | None, ...]) -> Source:
    return Source((size * UNIT,), cost, round(cost * MICRO), most, False, levels, (0,) * len(levels))


def answer(items: tuple[Item, ...], *sources: Source) -> tuple[dict[int, int], tuple[int, ...]]:
    found = cover(Problem(items, sources, total=100))
    counts: Counter[int] = Counter()
    for group in found.groups:
        counts[group.source] += group.count
    return dict(counts), found.left


@pytest.mark.parametrize(
    ("small", "far"),
    [(1, 0), (2, 0), (3, 1), (4, 2)],
)
def test_small_work_goes_where_the_last_large_node_has_room(small: int, far: int) -> None:
    """Of 16 CPUs one node may be had, for four tasks of 10; beside one of them it has room for two of 3."""
    items = (Item((10 * UNIT,), 4), Item((3 * UNIT,), small))
    counts, left = answer(items, source(16, 3.0, 1, (0, 0)), source(4, 0.5, 50, (None, 0)))
    assert (counts.get(0), counts.get(1, 0), left) == (1, far, (3, 0))


def test_not_to_a_node_that_suits_it_less() -> None:
    items = (Item((10 * UNIT,), 4), Item((3 * UNIT,), 2))
    counts, left = answer(items, source(16, 3.0, 1, (0, 1)), source(4, 0.5, 50, (None, 0)))
    assert (counts, left) == ({0: 1, 1: 2}, (3, 0))


def test_what_a_mark_keeps_apart_stays_apart() -> None:
    items = (Item((10 * UNIT,), 4), Item((3 * UNIT,), 2, mark=0))
    counts, left = answer(items, source(16, 3.0, 1, (0, 0)), source(4, 0.5, 50, (None, 0)))
    assert (counts, left) == ({0: 1, 1: 1}, (3, 0))
