"""The cheapest cover by brute force, with nothing of the planner's own: the judge of `cover`.

All that fits on one node is written down, and every count of items is solved from the smaller ones.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache

import numpy as np

from heliostat.planner.problem import Item, Problem, Source

DEVICE = 10_000


@lru_cache(maxsize=50_000)
def devices_hold(parts: tuple[int, ...], devices: int) -> bool:
    """Say whether parts (in 1/10000, the largest first) find room on so many whole devices.

    A whole number takes whole devices, a share lies within one; every way is tried.
    """
    shares = [part % DEVICE for part in parts if part % DEVICE]
    free = devices - sum(part // DEVICE for part in parts)
    return free >= 0 and _shares_fit(tuple(sorted(shares, reverse=True)), (DEVICE,) * free)


def _shares_fit(shares: tuple[int, ...], free: tuple[int, ...]) -> bool:
    if not shares:
        return True
    rooms = {left for left in free if left >= shares[0]}
    return any(_shares_fit(shares[1:], _less(free, room, shares[0])) for room in rooms)


def _less(free: tuple[int, ...], room: int, share: int) -> tuple[int, ...]:
    left = list(free)
    left.remove(room)
    return (*left, room - share)


def holds(problem: Problem, source: Source, copies: Sequence[int]) -> bool:
    """Say whether one empty node of the source has room for `copies`, marks and devices included."""
    for column, room in enumerate(source.capacity):
        if sum(item.amounts[column] * n for item, n in zip(problem.items, copies, strict=True)) > room:
            return False
    marks = [
        item.mark for item, n in zip(problem.items, copies, strict=True) for _ in range(n) if item.mark >= 0
    ]
    if len(marks) != len(set(marks)):
        return False
    return all(
        devices_hold(tuple(_parts(problem.items, copies, column)), source.capacity[column] // DEVICE)
        for column in problem.device_columns
    )


def holds_in_one_order(problem: Problem, source: Source, copies: Sequence[int]) -> bool:
    """Say whether there is room when devices are shared out plainly: the largest first, the fullest first."""
    return holds(problem, source, copies) and all(
        _plainly(_parts(problem.items, copies, column), source.capacity[column] // DEVICE)
        for column in problem.device_columns
    )


def _plainly(parts: Sequence[int], devices: int) -> bool:
    free = [DEVICE] * devices
    for part in parts:
        each = min(part, DEVICE)
        for _ in range(part // each):
            spot = min((left for left in free if left >= each), default=None)
            if spot is None:
                return False
            free[free.index(spot)] -= each
    return True


def _parts(items: Iterable[Item], copies: Sequence[int], column: int) -> list[int]:
    parts = [item.amounts[column] for item, n in zip(items, copies, strict=True) for _ in range(n)]
    return sorted((part for part in parts if part), reverse=True)


def all_counts(most: Sequence[int]) -> np.ndarray:
    """Return every vector up to `most`, smaller ones before those that they are part of."""
    return np.array(list(np.ndindex(*(one + 1 for one in most))), dtype=np.int64)


def may_bring(problem: Problem) -> tuple[list[list[bool]], list[list[bool]]]:
    """Return per source and item: whether the item may bring such a node, and whether it may lie on one."""
    bring = [[False] * len(problem.items) for _ in problem.sources]
    lie = [[False] * len(problem.items) for _ in problem.sources]
    for number in range(len(problem.items)):
        alone = [int(index == number) for index in range(len(problem.items))]
        ranks = {
            index: (level, source.burdens[number])
            for index, source in enumerate(problem.sources)
            if (level := source.levels[number]) is not None and holds(problem, source, alone)
        }
        for index, (level, burden) in ranks.items():
            lie[index][number] = level == min(ranks.values())[0]
            bring[index][number] = (level, burden) == min(ranks.values())
    return bring, lie


def patterns(problem: Problem) -> list[tuple[float, tuple[int, ...]]]:
    """Return (cost, copies) of all that one node can hold and to which nothing can be added."""
    counts = [item.count for item in problem.items]
    bring, lie = may_bring(problem)
    found = []
    for source, brings, lies in zip(problem.sources, bring, lie, strict=True):
        limits = [count if able else 0 for count, able in zip(counts, lies, strict=True)]
        fitting = {tuple(one.tolist()) for one in all_counts(limits) if holds(problem, source, one.tolist())}
        for copies in fitting:
            more = ((*copies[:i], copies[i] + 1, *copies[i + 1 :]) for i in range(len(copies)))
            if not fitting.intersection(more) and any(n and ok for n, ok in zip(copies, brings, strict=True)):
                found.append((source.cost, copies))
    return found


def cheapest(problem: Problem) -> float | None:
    """Return the least cost at which all items are held when no limit binds; None if that can't be."""
    known = patterns(problem)
    counts = [item.count for item in problem.items]
    if not all(any(copies[index] for _, copies in known) for index in range(len(counts))):
        return None
    costs = np.array([cost for cost, _ in known])
    held = np.array([copies for _, copies in known], dtype=np.int64)
    radix = np.array([int(np.prod([n + 1 for n in counts[index + 1 :]])) for index in range(len(counts))])
    states = all_counts(counts)
    best = np.zeros(len(states))
    for number, state in enumerate(states[1:], start=1):
        useful = (held.clip(max=state)).any(axis=1)
        before = (state - held).clip(min=0) @ radix
        best[number] = (costs + best[before])[useful].min()
    return float(best[-1])
