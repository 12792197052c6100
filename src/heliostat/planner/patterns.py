"""Patterns: what one new node holds. All that are tried fill greedily, by worth for the room taken.

Every type is filled in several orders at once, since a bundle's size is a matter of which
resource is counted. Where devices count one by one, each is filled on its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import product

import numpy as np
from numpy.typing import NDArray

from heliostat.model.resources import SCALE
from heliostat.planner.devices import Devices, copies_on, fresh, take
from heliostat.planner.limits import ENDLESS
from heliostat.planner.mixes import best_mix
from heliostat.planner.problem import Group, Item, Problem, Source
from heliostat.planner.simplex import Columns, Floats, Ints

MIX_PRICES = (0.0, 0.15, 0.4)
"""How dear the other resources are held, as parts of the node's cost, when devices are filled with mixes."""

MIX_STEPS = 40
"""How often another mix or whole bundle is looked for while one node's devices are filled."""

FEW_SHAPES = 4
FEW_PATTERNS = 400
"""With no more shapes, and no more patterns of all types together, every full pattern is written down."""

Flags = NDArray[np.bool_]


def copies_in_one(problem: Problem, source: Source, item: Item) -> int:
    """Return how many copies of an item one empty node holds, labels aside."""
    count = fitting(item.amounts, source.capacity, _devices(problem, source))
    return min(count, 1) if item.mark >= 0 else count


class Patterns:
    """Fills nodes for one problem. `allowed` says which items may bring a node of a source, `riding` which
    may only share it.

    Where there are few patterns, all are known; else those that several orders of filling lead to.
    """

    def __init__(self, problem: Problem, allowed: Flags, riding: Flags) -> None:
        self._problem = problem
        self._allowed = allowed
        self._usable = allowed | riding
        self._kinds = np.flatnonzero(allowed.any(axis=1))
        self._vectors = np.array([item.amounts for item in problem.items], dtype=np.int64)
        self._capacity = np.array([one.capacity for one in problem.sources], dtype=np.int64)
        self._costs = np.array([one.cost for one in problem.sources])
        self._marks = np.array([item.mark for item in problem.items], dtype=np.int64)
        self._divisors = np.where(self._vectors > 0, self._vectors, 1)
        self._free_of_charge = self._vectors == 0
        self._sizes = self._measures()
        self._device_column = next(iter(problem.device_columns), 0)
        self._every = self._all_of_few() if len(problem.items) <= FEW_SHAPES else None

    def _measures(self) -> Floats:
        """Return sizes (orders × sources × items): the sum of shares, the largest share, by each resource."""
        capacity = np.maximum(self._capacity, 1)[:, None, :]
        shares = self._vectors[None, :, :] / capacity
        each = [shares[:, :, index] + 1e-3 * shares.sum(axis=2) for index in range(shares.shape[2])]
        sizes = np.stack([shares.sum(axis=2), shares.max(axis=2, initial=0.0), *each])
        return np.asarray(np.maximum(sizes, 1e-9), dtype=np.float64)

    def alone(self, item: int, left: Ints) -> tuple[int, int]:
        """Return the source that holds the item alone at the lowest cost a copy, and how many copies."""
        best = (float("inf"), 0, 0)
        for kind in np.flatnonzero(self._allowed[:, item]):
            source = self._problem.sources[kind]
            copies = min(copies_in_one(self._problem, source, self._problem.items[item]), int(left[item]))
            best = min(best, (source.cost / copies, int(kind), copies))
        return best[1], best[2]

    def fill(self, values: Floats, left: Ints, open_to: Flags) -> Columns:
        """Return one pattern per source and order, those without an item that may bring the node left out."""
        kinds = self._kinds[open_to[self._kinds]]
        if not len(kinds):
            return Columns(np.zeros((len(left), 0), dtype=np.int64), np.zeros(0), kinds)
        if self._every is not None:
            each, copies = self._every
            opened = open_to[each]
            return self._driven(each[opened], np.minimum(copies[opened], left))
        each, ranking = self._rankings(kinds, values)
        if self._problem.device_columns:
            copies = self._one_by_one(each, ranking, left)
            each, copies = self._with_mixes(each, copies, ranking, kinds=kinds, values=values, left=left)
        else:
            copies = self._together(each, ranking, left)
        return self._driven(each, copies)

    def _driven(self, each: Ints, copies: Ints) -> Columns:
        """Return the patterns, each once, that hold an item which may bring such a node."""
        driven = ((copies > 0) & self._allowed[each]).any(axis=1)
        unique = _distinct(np.column_stack([each, copies])[driven])
        found = unique[:, 0]
        return Columns(unique[:, 1:].T, self._costs[found], found)

    def _all_of_few(self) -> tuple[Ints, Ints] | None:
        """Return the sources and copies of all patterns to which nothing can be added, if they are few."""
        found: list[tuple[int, list[int]]] = []
        for kind in self._kinds.tolist():
            for copies in self._full(kind, by_device_size(self._problem), [0] * len(self._problem.items)):
                found.append((kind, copies))
                if len(found) > FEW_PATTERNS:
                    return None
        each = np.array([kind for kind, _ in found], dtype=np.int64)
        return each, np.array([one for _, one in found], dtype=np.int64).reshape(len(found), -1)

    def _full(self, kind: int, order: Sequence[int], copies: list[int]) -> Iterator[list[int]]:
        """Yield patterns with these copies of the items before `order`; of the last one as many as fit."""
        problem, source = self._problem, self._problem.sources[kind]
        if not order:
            yield list(copies)
            return
        index, item = order[0], problem.items[order[0]]
        free, devices = room_after(problem, source, copies)
        most = min(fitting(item.amounts, free, devices), item.count) if self._usable[kind, index] else 0
        if item.mark >= 0:
            met = any(n and one.mark == item.mark for n, one in zip(copies, problem.items, strict=True))
            most = 0 if met else min(most, 1)
        for count in range(most, -1 if len(order) > 1 else most - 1, -1):
            copies[index] = count
            yield from self._full(kind, order[1:], copies)
        copies[index] = 0

    def _rankings(self, kinds: Ints, values: Floats) -> tuple[Ints, Ints]:
        """Return the orders in which each source is filled: worth for size, worth, the largest first."""
        sizes = self._sizes[:, kinds, :]
        worth = np.broadcast_to(values, sizes[:1].shape)
        ranked = np.concatenate([values / sizes, worth, sizes[:1] * (values > 0)])
        each = np.repeat(kinds, len(ranked))
        keys = ranked.transpose(1, 0, 2).reshape(len(each), -1)
        return each, np.argsort(-np.round(keys, 9), axis=1, kind="stable")

    def _together(self, each: Ints, ranking: Ints, left: Ints) -> Ints:
        # What is placed already takes no steps: towards the end that is most of it.
        wanted = int((left > 0).sum())
        ranking = ranking[(left > 0)[ranking]].reshape(len(each), wanted)
        rows, items = np.arange(len(each)), np.ascontiguousarray(ranking.T)
        free = self._capacity[each].copy()
        most = left[items] * self._usable[each, items]
        divisors, vectors = self._divisors[items], self._vectors[items]
        least = np.where(self._free_of_charge[items], ENDLESS, 0)
        marks, marked = self._marks[items], self._marks[items] >= 0
        met = np.zeros((len(each), int(self._marks.max(initial=-1)) + 2), dtype=bool)
        for rank in range(wanted):
            count = np.maximum(free // divisors[rank], least[rank]).min(axis=1, initial=ENDLESS)
            count = np.minimum(count, most[rank], out=most[rank])
            if marked[rank].any():
                mark, here = marks[rank], marked[rank]
                count[here] = np.where(met[rows[here], mark[here]], 0, np.minimum(count[here], 1))
                met[rows[here], mark[here]] |= count[here] > 0
            free -= count[:, None] * vectors[rank]
        copies = np.zeros((len(each), len(left)), dtype=np.int64)
        copies[rows, items] = most
        return copies

    def _one_by_one(self, each: Ints, ranking: Ints, left: Ints) -> Ints:
        known: dict[tuple[int, bytes], list[int]] = {}
        found = []
        for kind, order in zip(each, ranking, strict=True):
            key = (int(kind), order.tobytes())
            if key not in known:
                known[key] = self._by_device(int(kind), order, left)
            found.append(known[key])
        return np.array(found, dtype=np.int64).reshape(len(each), len(left))

    def _with_mixes(
        self, each: Ints, copies: Ints, ranking: Ints, *, kinds: Ints, values: Floats, left: Ints
    ) -> tuple[Ints, Ints]:
        """Add patterns whose devices are filled one by one with the best mix of shares."""
        found = []
        orders = len(ranking) // len(kinds)
        for number, kind in enumerate(kinds.tolist()):
            order = ranking[number * orders]
            for worth in self._worths(kind, values):
                start = self._mixed(kind, worth, left)
                found.append((kind, self._by_device(kind, order, left, start)))
        more = np.array([one for _, one in found], dtype=np.int64).reshape(len(found), len(left))
        return np.concatenate([each, [kind for kind, _ in found]]), np.concatenate([copies, more])

    def _worths(self, kind: int, values: Floats) -> Iterator[Floats]:
        """Return the items' worth beside other resources, held dear in several ways."""
        others = [column for column in range(len(self._capacity[kind])) if column != self._device_column]
        for first, rest in product(MIX_PRICES, MIX_PRICES if len(others) > 1 else (0.0,)):
            dear = np.zeros(len(self._capacity[kind]))
            dear[others] = rest
            dear[others[:1]] = first
            yield values - self._costs[kind] * self._vectors / np.maximum(self._capacity[kind], 1) @ dear

    def _mixed(self, kind: int, values: Floats, left: Ints) -> list[int]:
        """Fill a node's devices, each time with what is worth most for the devices it takes."""
        column, capacity, worth = self._device_column, self._capacity[kind], values.tolist()
        asked = [item.amounts[column] for item in self._problem.items]
        rest, devices = left.tolist(), int(capacity[column]) // SCALE
        copies, free = [0] * len(rest), capacity.copy()
        able = np.flatnonzero(self._usable[kind] & (self._marks < 0) & (values > 0))
        usable = able.tolist()
        for _ in range(MIX_STEPS):
            fit = [one for one in usable if rest[one] and (self._vectors[one] <= free).all()]
            mix = best_mix({one: asked[one] for one in fit if 0 < asked[one] < SCALE}, worth)
            options = [(sum(worth[one] * n for one, n in mix.items()), 1, mix)] if mix else []
            for one in fit:
                whole = asked[one] // SCALE
                if whole and asked[one] % SCALE == 0 and whole <= devices:
                    options.append((worth[one] / whole, whole, {one: 1}))
            if not options or not devices:
                break
            _, taken, chosen = max(options, key=lambda option: option[0])
            need = sum(self._vectors[one] * n for one, n in chosen.items())
            times = min(devices // taken, *(rest[one] // n for one, n in chosen.items()))
            asks = need > 0
            times = min(times, int((free[asks] // need[asks]).min(initial=ENDLESS)))
            if not times:
                # The mix does not fit as a whole: without its largest part the next one may.
                usable.remove(max(chosen, key=lambda one: (asked[one], one)))
                continue
            for one, n in chosen.items():
                copies[one] += n * times
                rest[one] -= n * times
            free = free - need * times
            devices -= taken * times
        return copies

    def _by_device(self, kind: int, order: Ints, left: Ints, start: Sequence[int] | None = None) -> list[int]:
        source = self._problem.sources[kind]
        copies = in_one_order(self._problem, source, start) if start else [0] * len(left)
        free, devices = room_after(self._problem, source, copies)
        met = {item.mark for item, n in zip(self._problem.items, copies, strict=True) if n and item.mark >= 0}
        for index in order.tolist():
            item = self._problem.items[index]
            if not self._usable[kind, index] or item.mark in met:
                continue
            count = min(fitting(item.amounts, free, devices), int(left[index]) - copies[index])
            count = min(count, 1) if item.mark >= 0 else count
            if count <= 0:
                continue
            copies[index] += count
            if item.mark >= 0:
                met.add(item.mark)
            _put(item, count, free=free, devices=devices)
        return in_one_order(self._problem, source, copies)


def by_device_size(problem: Problem) -> list[int]:
    """Return the items' numbers, those first that take most of a device: shares leave whole ones alone."""

    def largest(index: int) -> tuple[int, ...]:
        return tuple(-problem.items[index].amounts[column] for column in problem.device_columns)

    return sorted(range(len(problem.items)), key=largest)


def in_one_order(problem: Problem, source: Source, copies: Sequence[int]) -> list[int]:
    """Return what of a pattern also fits when it is placed in the order in which everybody places it."""
    free, devices = list(source.capacity), _devices(problem, source)
    kept = [0] * len(copies)
    for index in by_device_size(problem):
        item = problem.items[index]
        kept[index] = min(copies[index], fitting(item.amounts, free, devices))
        _put(item, kept[index], free=free, devices=devices)
    return kept


def more_of(problem: Problem, group: Group, item: int, most: int) -> int:
    """Return how many more of an item, `most` at most, each node of a group holds.

    All of it is placed anew, in one order: shares that came one by one leave gaps that those have not.
    """

    source = problem.sources[group.source]

    def hold(count: int) -> bool:
        more = [n + count * (index == item) for index, n in enumerate(group.copies)]
        return in_one_order(problem, source, more) == more

    free, devices = room_after(problem, source, group.copies)
    count = min(fitting(problem.items[item].amounts, free, devices), most)
    while count and not hold(count):
        count -= 1
    while count < most and hold(count + 1):
        count += 1
    return count


def room_after(
    problem: Problem, source: Source, copies: Sequence[int]
) -> tuple[list[int], dict[int, Devices]]:
    """Return what a node has left, in sums and by device, after a pattern was put on it."""
    free, devices = list(source.capacity), _devices(problem, source)
    for index in by_device_size(problem):
        _put(problem.items[index], copies[index], free=free, devices=devices)
    return free, devices


def _devices(problem: Problem, source: Source) -> dict[int, Devices]:
    return {column: fresh(source.capacity[column]) for column in problem.device_columns}


def fitting(amounts: Sequence[int], free: Sequence[int], devices: Mapping[int, Devices]) -> int:
    """Return how many bundles of these amounts fit into what a node has left."""
    count = min((free[column] // one for column, one in enumerate(amounts) if one), default=ENDLESS)
    for column, known in devices.items():
        if count and amounts[column]:
            count = min(count, copies_on(known, amounts[column]))
    return count


def _put(item: Item, count: int, *, free: list[int], devices: dict[int, Devices]) -> None:
    if not count:
        return
    for column, amount in enumerate(item.amounts):
        free[column] -= amount * count
    for column, known in devices.items():
        if item.amounts[column]:
            devices[column] = take(known, item.amounts[column], count)


def _distinct(rows: Ints) -> Ints:
    """Return each row once, in the order of its numbers, none negative (as `numpy.unique`, but quicker)."""
    # Bytes with the highest first sort as the numbers do.
    ordered = rows.astype(">i8")
    raw, width = ordered.tobytes(), max(1, ordered.shape[1] * ordered.itemsize)
    found = sorted({raw[start : start + width] for start in range(0, len(raw), width)})
    numbers = np.frombuffer(b"".join(found), dtype=">i8").reshape(-1, rows.shape[1])
    return np.asarray(numbers, dtype=np.int64)
