"""Which new nodes hold what is left over, near the lowest cost: the covering program, made whole.

Each bundle goes to the node types that suit it best and can still be had. The relaxed program
over their patterns (simplex.py) says how many of which; the whole part of that is taken, and what remains
is filled node by node with whatever pattern is worth most for its cost, by the program's own values.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache

import numpy as np

from heliostat.planner.limits import ENDLESS
from heliostat.planner.patterns import Flags, Patterns, by_device_size, copies_in_one, in_one_order, more_of
from heliostat.planner.problem import Group, Problem, Solution
from heliostat.planner.simplex import Columns, Floats, Ints, relax
from heliostat.planner.tail import Tail

REMEMBERED = 64
"""Answers that are kept: demand that a limit holds back asks the same in every round."""


NEARLY = 0.99
"""A pattern worth this part of the best one is taken in the same step."""


FEW_ITEMS = 4
"""With so few shapes one node of each pattern is held back from the whole part, and searched for anew."""

FEW_NODES = 8
"""And where no more nodes than these are taken, all of them are searched for: the cheaper answer counts."""

SEARCHED_ITEMS = 12
SEARCHED_BUNDLES = 2_000
"""With more shapes, or more bundles left over, the last nodes are filled greedily, not searched for."""


@lru_cache(maxsize=REMEMBERED)
def cover(problem: Problem) -> Solution:
    """Return groups of new nodes that hold the items, within every limit, and what is left of them.

    No limit is ever passed. An item is left only if no source that suits it can be had, or if
    one that it waits for (`hold`) is at its limit.
    """
    return _Cover(problem).run()


class _Cover:
    def __init__(self, problem: Problem) -> None:
        self._problem = problem
        self._left: Ints = np.array([item.count for item in problem.items], dtype=np.int64)
        self._added = [0] * len(problem.sources)
        self._groups: list[Group] = []
        self._vectors: Ints = np.array([item.amounts for item in problem.items], dtype=np.int64)
        self._most = np.array(
            [[copies_in_one(problem, source, item) for item in problem.items] for source in problem.sources],
            dtype=np.int64,
        ).reshape(len(problem.sources), len(problem.items))

    def run(self) -> Solution:
        # Each turn launches something or ends: a source at its limit is no source in the next turn.
        while self._left.any():
            allowed, riding = self._suited()
            items = np.flatnonzero(allowed.any(axis=0))
            if not len(items):
                break
            before = len(self._groups)
            self._take_up(items, allowed[:, items], riding[:, items])
            limited = any(not self._open(group.source) for group in self._groups)
            if not (limited and self._drop()) and len(self._groups) == before:
                break
        return Solution(tuple(self._groups), tuple(int(one) for one in self._left))

    # Limits.

    def _open(self, source: int) -> int:
        """Return how many more nodes of the source may be had now."""
        problem, chosen = self._problem, self._problem.sources[source]
        most = min(chosen.most - self._added[source], problem.total - sum(self._added))
        if problem.budget_micro is not None and chosen.price_micro > 0:
            spent = sum(
                one.price_micro * count for one, count in zip(problem.sources, self._added, strict=True)
            )
            most = min(most, (problem.budget_micro - spent) // chosen.price_micro)
        return max(0, most)

    def _opened(self) -> Flags:
        return np.array([self._open(index) > 0 for index in range(len(self._added))])

    def _suited(self) -> tuple[Flags, Flags]:
        """Return which sources may bring a node for which item, and which items may share such a node.

        An item is brought by the sources of its best level of which any can be had. It may ride on one
        that differs only in devices that it does not need.
        """
        sources, left = self._problem.sources, self._left
        shape = (len(sources), len(left))
        allowed, riding = np.zeros(shape, dtype=bool), np.zeros(shape, dtype=bool)
        room = self._opened()
        for item in np.flatnonzero(left > 0).tolist():
            ranked = self._ranked(item, room)
            if not ranked or not room[ranked[0][-1]]:
                # Nothing suits, or the best is about to be known better: the item waits for it.
                continue
            level, burden = ranked[0][:2]
            for one_level, one_burden, _, index in ranked:
                if one_level == level and room[index]:
                    riding[index, item] = True
                    allowed[index, item] = one_burden == burden
        return allowed, riding & ~allowed

    def _ranked(self, item: int, room: Flags) -> list[tuple[int, int, float, int]]:
        """Return the sources that can be had for the item or that it waits for, the best first."""
        found = []
        for index, source in enumerate(self._problem.sources):
            level, most = source.levels[item], int(self._most[index, item])
            if level is not None and most > 0 and (room[index] or source.hold):
                each = source.cost / min(most, int(self._left[item]))
                found.append((level, source.burdens[item], each, index))
        return sorted(found)

    # Taking up.

    def _take_up(self, items: Ints, allowed: Flags, riding: Flags) -> None:
        part = _part(self._problem, items.tolist(), self._left)
        patterns = Patterns(part, allowed, riding)
        start = self._state()
        values = self._whole_part(patterns, items, self._left[items])
        self._rest(patterns, values, items)
        if len(items) <= FEW_ITEMS and sum(self._added) - sum(start[1]) <= FEW_NODES:
            first, standing = self._state(), self._standing()
            self._restore(start)
            self._rest(patterns, values, items)
            if self._standing() >= standing:
                self._restore(first)
        self._share()

    def _state(self) -> tuple[Ints, list[int], list[Group]]:
        return self._left.copy(), list(self._added), list(self._groups)

    def _restore(self, state: tuple[Ints, list[int], list[Group]]) -> None:
        self._left, self._added, self._groups = state

    def _standing(self) -> tuple[int, float]:
        """Return how much is left over, and what the nodes cost."""
        costs = (self._problem.sources[group.source].cost * group.count for group in self._groups)
        return int(self._left.sum()), sum(costs)

    def _whole_part(self, patterns: Patterns, items: Ints, left: Ints) -> Floats:
        """Take the whole part of the relaxed answer; return what one more of each item costs."""
        start = _alone(patterns, self._problem, left)
        opened = self._opened()
        answer = relax(left, start, lambda values: patterns.fill(values, left, opened))
        worth = answer.values @ answer.columns.copies / answer.columns.costs
        # Where a limit leaves something over, it is not the hardest: items come in that order.
        hardest = (answer.columns.copies > 0).argmax(axis=0)
        held_back = 1 if len(items) <= FEW_ITEMS else 0
        for index in np.lexsort((answer.columns.kinds, -np.round(worth, 9), hardest)).tolist():
            whole = int(answer.amounts[index] + 1e-6) - held_back
            self._take(items, answer.columns.copies[:, index], int(answer.columns.kinds[index]), most=whole)
        return answer.values

    def _rest(self, patterns: Patterns, values: Floats, items: Ints) -> None:
        """Fill node by node what the whole part left, while a source that suits can be had."""
        left = self._left[items]
        if len(items) <= SEARCHED_ITEMS and left.sum() <= SEARCHED_BUNDLES:
            for kind, copies in Tail(patterns, values, self._opened()).search(left):
                self._take(items, copies, kind, most=1)
        while True:
            left = self._left[items]
            opened = self._opened()
            if not left.any():
                return
            found = patterns.fill(np.maximum(values, 1e-12), left, opened)
            if not found.copies.shape[1]:
                return
            taken = [
                self._take(items, found.copies[:, index], int(found.kinds[index]), most=ENDLESS)
                for index in _best(found, values)
            ]
            if not any(taken):
                return

    def _take(self, items: Ints, copies: Ints, kind: int, *, most: int) -> bool:
        """Add nodes with this pattern, as many as are wanted whole and may be had."""
        held = np.flatnonzero(copies)
        repeats = int((self._left[items[held]] // copies[held]).min())
        count = min(most, repeats, self._open(kind))
        if count <= 0:
            return False
        whole = np.zeros(len(self._left), dtype=np.int64)
        whole[items] = copies
        self._left -= whole * count
        self._added[kind] += count
        driver = int(items[held[0]])
        self._groups.append(Group(kind, count, tuple(whole.tolist()), driver))
        return True

    def _share(self) -> None:
        """Put what found no source of its own into what the new nodes have left, the largest first."""
        for item in [one for one in by_device_size(self._problem) if self._left[one] > 0]:
            # A group that is filled in part is split: the list grows, and its rest comes by too.
            for index, group in enumerate(self._groups):
                if self._left[item] > 0:
                    self._share_one(item, index, group)

    def _share_one(self, item: int, index: int, group: Group) -> None:
        source = self._problem.sources[group.source]
        wanted = self._problem.items[item]
        if source.levels[item] is None or not self._most[group.source, item]:
            return
        if wanted.mark >= 0:
            # A gang's own nodes hold one each; sharing is decided when its nodes are there.
            return
        left = int(self._left[item])
        each = more_of(self._problem, group, item, left)
        if not each:
            return
        nodes = min(group.count, left // each)
        copies = list(group.copies)
        copies[item] += each
        self._left[item] -= nodes * each
        self._groups[index] = replace(group, count=nodes, copies=tuple(copies))
        if nodes < group.count:
            self._groups.append(replace(group, count=group.count - nodes))

    def _drop(self) -> bool:
        """Do without nodes whose content others have room for, the dearest first; say whether there are any.

        Where a limit binds, the relaxed program's values mislead, and what is full was filled too late.
        """
        before = sum(self._added)
        costs = [self._problem.sources[group.source].cost for group in self._groups]
        for index in sorted(range(len(costs)), key=lambda one: -costs[one]):
            for host in range(len(self._groups)):
                if host != index and self._groups[index].count:
                    self._move(index, host)
        self._groups = [group for group in self._groups if group.count]
        return sum(self._added) < before

    def _move(self, index: int, host_index: int) -> None:
        """Move what nodes of a group hold to another group's nodes, as far as all of it fits there."""
        group, host = self._groups[index], self._groups[host_index]
        if not self._suits(group, host):
            return
        each = 0
        while each < group.count and self._holds(host, group, each + 1):
            each += 1
        nodes = min(host.count, group.count // each) if each else 0
        if not nodes:
            return
        copies = tuple(n + each * more for n, more in zip(host.copies, group.copies, strict=True))
        self._groups[index] = replace(group, count=group.count - nodes * each)
        self._groups[host_index] = replace(host, count=nodes, copies=copies)
        self._added[group.source] -= nodes * each
        if nodes < host.count:
            self._groups.append(replace(host, count=host.count - nodes))

    def _suits(self, group: Group, host: Group) -> bool:
        """Say whether a host has the room in sums, and suits all that a group holds as well as its own."""
        source, target = (self._problem.sources[one.source] for one in (group, host))
        held = np.flatnonzero(group.copies).tolist()
        if any(self._problem.items[item].mark >= 0 for item in held):
            return False
        levels = [(target.levels[item], source.levels[item]) for item in held]
        if any(level is None or known is None or level > known for level, known in levels):
            return False
        more = np.array(group.copies) + np.array(host.copies)
        return bool((more @ self._vectors <= np.array(target.capacity)).all())

    def _holds(self, host: Group, group: Group, times: int) -> bool:
        more = [n + times * one for n, one in zip(host.copies, group.copies, strict=True)]
        return in_one_order(self._problem, self._problem.sources[host.source], more) == more


def _part(problem: Problem, items: Sequence[int], left: Ints) -> Problem:
    """Return the problem with only these items."""
    sources = tuple(
        replace(
            one,
            levels=tuple(one.levels[item] for item in items),
            burdens=tuple(one.burdens[item] for item in items),
        )
        for one in problem.sources
    )
    chosen = tuple(replace(problem.items[item], count=int(left[item])) for item in items)
    return replace(problem, items=chosen, sources=sources)


def _alone(patterns: Patterns, problem: Problem, left: Ints) -> Columns:
    """Return for each item the pattern that holds it alone at the lowest cost a copy."""
    found = [patterns.alone(item, left) for item in range(len(left))]
    copies = np.diag(np.array([count for _, count in found], dtype=np.int64))
    kinds = np.array([kind for kind, _ in found], dtype=np.int64)
    costs = np.array([problem.sources[kind].cost for kind, _ in found])
    return Columns(copies, costs, kinds)


def _best(found: Columns, values: Floats) -> list[int]:
    """Return the patterns worth most for their cost, then those that hold more, then the first.

    What is nearly as good as the best goes with it, if it is still wanted then: that saves sweeps.
    """
    worth = np.round(values @ found.copies / found.costs, 9)
    order = np.lexsort((found.kinds, -found.copies.sum(axis=0), -worth)).tolist()
    least = NEARLY * worth[order[0]]
    return [index for index in order if worth[index] >= least]
