"""Whether a plan serves what it says it serves: by placing the bundles, and where that fails by a proof.

A gang that could not be placed if it were alone is surely not served. For the rest an LP asks for the least
number of bundles that have no place. Its value is a proof; its solution, rounded down and completed by the
plain placer and then by moving others, is one more way to place. The LP sees a gang as single
bundles, of those that spread one at most on a node; so it may miss that gangs stand in each other's way.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from benchmarks.planner_cases import bound, placer
from benchmarks.planner_cases.bound import Bin, Bound
from benchmarks.planner_cases.knapsack import TooLarge
from benchmarks.planner_cases.placer import Bins
from benchmarks.planner_cases.repair import left_after_moves
from benchmarks.planner_cases.spec import Case, Gang, Shape

ROUNDS = 60
DIVES = 4
"""So often what the LP's solution has whole is placed, and the LP solved anew for the rest."""


@dataclass(frozen=True)
class Judged:
    """`unmet` is what counts, `words` what the plan says, `unplaced` what no way of placing served.

    `lacking` is the number proven, asked for only where there seems to be less room than the plan says.
    Where it is not above `words`, the plan's claim stands, even if it is one that nobody could confirm.
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
    bins = placer.bins_of(case, launched)
    alone = tuple(gang for gang in case.gangs if placer.copies_of(bins, gang) >= gang.bundles)
    try:
        least = _least(replace(case, gangs=alone), bins)
        left = left if case.gangs else min(left, _dived(case, bins, least))
    except TooLarge:
        return Judged(left, words, left)
    lacking = _proven(case, alone, least.value)
    contradicted = math.ceil(lacking - 1e-6) > words
    return Judged(left if contradicted else words, words, left, lacking)


def _proven(case: Case, alone: Sequence[Gang], least: float) -> float:
    """Return a number of bundles that surely have no place: all of the gangs that not even alone have one."""
    hopeless = sum(gang.bundles for gang in case.gangs) - sum(gang.bundles for gang in alone)
    if case.tasks or not alone:
        return hopeless + least
    # What is lacking is some of the gangs, each with all it has.
    step = math.gcd(*(gang.bundles for gang in alone))
    return hopeless + float(step * math.ceil(least / step - 1e-6))


def _dived(case: Case, bins: Bins, solution: Bound) -> int:
    """Return what is left when the LP's solution is placed, the plain way for the rest, and others moved."""
    start, best, rest = bins, (case.bundles, bins), case
    for _ in range(DIVES):
        before = rest.bundles
        rest, bins = _placed(rest, bins, solution)
        best = min(best, placer.packed(rest, bins), key=lambda one: one[0])
        if best[0] == 0 or rest.bundles == before:
            break
        solution = _least(rest, bins, whole=True)
    placed = best[1].held.sum(axis=0)
    left = [count - int(placed[start.columns[shape]]) for shape, count in case.tasks]
    return left_after_moves(start, best[1], left)


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
        bins.take(row, shape, taken)
    if bins.devices is not None:
        # Which devices the filling took is not said, so this node takes nothing more.
        bins.free[row], bins.devices[row] = 0, 0
