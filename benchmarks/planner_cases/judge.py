"""Whether a plan serves what it says it serves: by placing the bundles, and where that fails by an LP.

The LP asks for the least number of bundles that have no place. Its value is a proof; its solution,
rounded down and completed by the plain placer, is one more way to place.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

from benchmarks.planner_cases import bound, placer
from benchmarks.planner_cases.bound import Bin, Bound
from benchmarks.planner_cases.knapsack import TooLarge
from benchmarks.planner_cases.placer import Bins
from benchmarks.planner_cases.spec import Case, Shape

ROUNDS = 60
DIVES = 4
"""So often what the LP's solution has whole is placed, and the LP solved anew for the rest."""


@dataclass(frozen=True)
class Judged:
    """`unmet` is what counts, `words` what the plan says, `unplaced` what no way of placing served.

    `lacking` is the LP's proof, asked for only where there seems to be less room than the plan says.
    """

    unmet: int
    words: int
    unplaced: int
    lacking: float | None = None


def judge(case: Case, launched: Mapping[str, int], *, words: int) -> Judged:
    """Return how many bundles are not served, held against what the plan itself says."""
    left = placer.unplaced(case, launched)
    if left <= words:
        return Judged(words, words, left)
    try:
        least, left = _by_lp(case, launched, left)
    except TooLarge:
        return Judged(left, words, left)
    contradicted = math.ceil(least.value - 1e-6) > words
    return Judged(left if contradicted else words, words, left, least.value)


def _by_lp(case: Case, launched: Mapping[str, int], left: int) -> tuple[Bound, int]:
    """Return the LP's bound on what has no place, and the least that has been left by any way so far."""
    bins = placer.bins_of(case, launched)
    least = _least(case, bins)
    # Whole gangs can't be rounded this way.
    rest, solution = case, least
    for _ in range(0 if case.gangs else DIVES):
        rest, bins = _placed(rest, bins, solution)
        left = min(left, placer.unplaced_in(rest, bins))
        if left == 0:
            break
        solution = _least(rest, bins, whole=True)
    return least, left


def _least(case: Case, bins: Bins, *, whole: bool = False) -> Bound:
    items, shapes = bound.items_of(case)
    here = [
        Bin(
            dict(zip(bins.names, map(int, room), strict=True)),
            0.0,
            1,
            bound.held(shapes, labels),
            case.devices,
        )
        for room, labels in zip(bins.free, bins.labels, strict=True)
    ]
    nowhere = [Bin(item.need, 1.0, None, frozenset({index})) for index, item in enumerate(items)]
    return bound.lower_bound(items, [*here, *nowhere], rounds=ROUNDS, whole=whole)


def _placed(case: Case, bins: Bins, solution: Bound) -> tuple[Case, Bins]:
    """Place the whole part of the LP's solution, one filling at least; return what is left of both."""
    _, shapes = bound.items_of(case)
    counts, bins = dict(case.tasks), bins.copy()
    given: dict[tuple[int, ...], int] = {}
    here = [share for share in solution.shares if max(share.bins) < len(bins.free)]
    most = max((share.number for share in here), default=0.0)
    for share in here:
        first = given.get(share.bins, 0)
        whole = int(share.number + (1e-6 if most >= 1 - 1e-6 else 1 - most + 1e-6))
        rows = list(share.bins[first : first + whole])
        given[share.bins] = first + len(rows)
        for row in rows:
            _fill(bins, row, {shapes[index]: n for index, n in share.counts.items()}, left=counts)
    return replace(case, tasks=tuple((shape, count) for shape, count in counts.items() if count)), bins


def _fill(bins: Bins, row: int, filling: Mapping[Shape, int], *, left: dict[Shape, int]) -> None:
    for shape, copies in filling.items():
        taken = min(copies, left[shape])
        left[shape] -= taken
        bins.free[row] -= taken * bins.need(shape)
    if bins.devices is not None:
        # Which devices the filling took is not said, so this node takes nothing more.
        bins.free[row], bins.devices[row] = 0, 0
