"""Places a case's bundles on what is there and what was launched, and counts what is left.

It knows nothing of either planner. Finding the best packing is hard, so it tries several plain ways
and keeps the one that leaves the least: what it places certainly fits, what it leaves may fit. A part
of a GPU must lie within one device where the case says so; a node that comes after the user's
patience holds nothing. Gangs are those of the cases: on any nodes, or each bundle on one of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from benchmarks.planner_cases.spec import SCALE, Case, Gang, Shape, scaled

BY_NODE_AT_MOST = 1_000_000
"""Nodes times shapes up to which nodes are also filled one after the other."""

Matrix = NDArray[np.int64]
Mask = NDArray[np.bool_]
Rows = NDArray[np.int64] | int


@dataclass
class Bins:
    """Every node as a row: what is free of each resource (1/10000), and of each GPU device if they count.

    `columns` numbers the shapes: `held` counts what was placed of each on a row, `needs` has what one asks.
    """

    names: tuple[str, ...]
    columns: Mapping[Shape, int]
    needs: Matrix
    free: Matrix
    held: Matrix
    labels: tuple[Mapping[str, str], ...]
    has_gpu: Mask
    devices: Matrix | None

    def copy(self) -> Bins:
        devices = None if self.devices is None else self.devices.copy()
        return replace(self, free=self.free.copy(), held=self.held.copy(), devices=devices)

    def take(self, rows: Rows, shape: Shape, copies: Rows) -> None:
        """Place so many copies on each of the rows, which have room for them."""
        self.free[rows] -= np.multiply.outer(copies, self.need(shape))
        self.held[rows, self.columns[shape]] += copies

    def need(self, shape: Shape) -> NDArray[np.int64]:
        return np.asarray(self.needs[self.columns[shape]])


def bins_of(case: Case, launched: Mapping[str, int]) -> Bins:
    """Return the case's nodes and the launched ones that come in time."""
    assert not (case.gangs and case.devices), "gangs are placed without a look at devices"
    shapes = dict.fromkeys([*(shape for shape, _ in case.tasks), *(gang.shape for gang in case.gangs)])
    names = tuple(sorted({name for shape in shapes for name, _ in shape.amounts}))
    needs = [scaled(dict(shape.amounts)) for shape in shapes]
    kinds = {one.name: one for one in case.types}
    new = [kinds[name] for name, count in launched.items() if kinds[name].in_time for _ in range(count)]
    rooms = [scaled(dict(node.free)) for node in case.nodes] + [scaled(one.amounts) for one in new]
    owners = [node.type for node in case.nodes] + new
    free = np.array([[room.get(name, 0) for name in names] for room in rooms], dtype=np.int64)
    devices = None
    if case.devices:
        most = max(int(one.amounts.get("GPU", 0)) for one in case.types)
        whole = [room.get("GPU", 0) // SCALE for room in rooms]
        devices = np.array([[SCALE] * n + [0] * (most - n) for n in whole], dtype=np.int64).reshape(-1, most)
    return Bins(
        names,
        {shape: column for column, shape in enumerate(shapes)},
        np.array([[asked.get(name, 0) for name in names] for asked in needs], dtype=np.int64),
        free.reshape(-1, len(names)),
        np.zeros((len(rooms), len(shapes)), dtype=np.int64),
        tuple(one.labels for one in owners),
        np.array([one.amounts.get("GPU", 0) > 0 for one in owners], dtype=bool),
        devices,
    )


def unplaced(case: Case, launched: Mapping[str, int]) -> int:
    """Return how many bundles the best of the ways leaves; a gang counts whole."""
    return packed(case, bins_of(case, launched))[0] if case.bundles else 0


def packed(case: Case, bins: Bins) -> tuple[int, Bins]:
    """Return the same for bins that stand already and stay as they are, and how they are filled then."""
    best = case.bundles, bins
    slow = case.devices or len(bins.free) * case.shapes > BY_NODE_AT_MOST
    fills: tuple[Fill, ...] = (_by_bundle,) if slow else (_by_bundle, _by_node)
    for order in ORDERS:
        for fill in fills:
            filled = bins.copy()
            left = _one_way(case, filled, order, fill=fill)
            best = min(best, (left, filled), key=lambda one: one[0])
            if left == 0:
                return best
    return best


Fill = Callable[[Bins, list[tuple[Shape, int]]], int]


@dataclass(frozen=True)
class Size:
    """What orders look at: a bundle's share of the largest node in each resource, and who allows it."""

    gpus: float
    allowed: int
    shares: Mapping[str, float]

    @property
    def largest(self) -> float:
        return max(self.shares.values())

    @property
    def total(self) -> float:
        return sum(self.shares.values())


ORDERS: tuple[Callable[[Size], tuple[float, ...]], ...] = (
    lambda size: (-size.gpus, size.allowed, -size.largest),
    lambda size: (-size.gpus, size.allowed, -size.total),
    lambda size: (-size.gpus, -size.largest, size.allowed),
    lambda size: (-size.gpus, -size.shares.get("CPU", 0.0), -size.total),
    lambda size: (-size.gpus, -size.shares.get("memory", 0.0), -size.total),
    lambda size: (size.allowed, -size.largest),
)
"""The hardest first, in several senses of the word."""


def _one_way(case: Case, bins: Bins, order: Callable[[Size], tuple[float, ...]], *, fill: Fill) -> int:
    largest = {name: max(one.amounts.get(name, 0.0) for one in case.types) for name in bins.names}

    def key(shape: Shape) -> tuple[float, ...]:
        shares = {name: amount / largest[name] for name, amount in shape.amounts}
        return order(Size(dict(shape.amounts).get("GPU", 0.0), int(allowed(bins, shape).sum()), shares))

    keys = {shape: key(shape) for shape in [*(one for one, _ in case.tasks), *(g.shape for g in case.gangs)]}
    left = 0
    for gang in sorted(case.gangs, key=lambda one: (one.strategy != "STRICT_SPREAD", keys[one.shape])):
        if copies_of(bins, gang) >= gang.bundles:
            _place(bins, gang.shape, gang.bundles, most=_most(gang))
        else:
            left += gang.bundles
    return left + fill(bins, sorted(case.tasks, key=lambda one: keys[one[0]]))


def copies_of(bins: Bins, gang: Gang) -> int:
    """Return how many of the gang's bundles there would be room for, even more than it has."""
    return int(np.minimum(_fitting(bins, gang.shape), _most(gang)).sum())


def _most(gang: Gang) -> int:
    """Return how many of the gang may lie on one node."""
    return 1 if gang.strategy == "STRICT_SPREAD" else gang.bundles


def _by_bundle(bins: Bins, tasks: Sequence[tuple[Shape, int]]) -> int:
    """Take one shape after the other, each to the tightest nodes."""
    if bins.devices is None:
        return sum(_place(bins, shape, count) for shape, count in tasks)
    return sum(_place_on_devices(bins, shape, count) for shape, count in tasks)


def _by_node(bins: Bins, tasks: Sequence[tuple[Shape, int]]) -> int:
    """Fill one node after the other, the fullest first; work without GPUs goes last to nodes with them."""
    left = {
        shape: _place(bins, shape, count) if dict(shape.amounts).get("GPU") else count
        for shape, count in tasks
    }
    rows = np.lexsort((bins.free.sum(axis=1), bins.has_gpu))
    needs = [(shape, bins.need(shape), allowed(bins, shape)) for shape in left]
    for row in rows:
        for shape, need, may in needs:
            if left[shape] and may[row]:
                copies = min(left[shape], int(_copies(bins.free[row : row + 1], need)[0]))
                bins.take(row, shape, copies)
                left[shape] -= copies
    return sum(left.values())


def _place(bins: Bins, shape: Shape, count: int, *, most: int | None = None) -> int:
    """Place up to `count`, at most `most` on a node; return how many are left."""
    need, copies = bins.need(shape), _fitting(bins, shape)
    if most is not None:
        copies = np.minimum(copies, most)
    wasteful = bins.has_gpu & (not dict(shape.amounts).get("GPU"))
    scale = np.maximum(1, bins.free.max(axis=0, initial=1))
    slack = ((bins.free - need) / scale).sum(axis=1)
    rows = np.lexsort((slack, wasteful))
    rows = rows[copies[rows] > 0]
    taken = np.minimum(copies[rows], np.maximum(0, count - (np.cumsum(copies[rows]) - copies[rows])))
    bins.take(rows, shape, taken)
    return count - int(taken.sum())


def _fitting(bins: Bins, shape: Shape) -> NDArray[np.int64]:
    """Return how many copies each row has room for."""
    return np.where(allowed(bins, shape), _copies(bins.free, bins.need(shape)), 0)


def _copies(free: Matrix, need: NDArray[np.int64]) -> NDArray[np.int64]:
    asked = need > 0
    return np.asarray((free[:, asked] // need[asked]).min(axis=1), dtype=np.int64)


def allowed(bins: Bins, shape: Shape) -> Mask:
    """Say of each row whether its labels suit the shape."""
    if not shape.selectors:
        return np.ones(len(bins.labels), dtype=bool)
    return np.array([shape.allows(labels) for labels in bins.labels], dtype=bool)


def _place_on_devices(bins: Bins, shape: Shape, count: int) -> int:
    """Place one bundle after the other; a part of a GPU goes to the fullest device that holds it."""
    gpu = round(dict(shape.amounts).get("GPU", 0.0) * SCALE)
    if gpu == 0:
        return _place(bins, shape, count)
    assert bins.devices is not None
    column = bins.names.index("GPU")
    need = bins.need(shape)
    for placed in range(count):
        # GPUs are counted by device; the sum only stands for them in what else looks at it.
        roomy = (bins.free[:, np.arange(len(need)) != column] >= need[np.arange(len(need)) != column]).all(
            axis=1
        )
        roomy &= allowed(bins, shape)
        if gpu < SCALE:
            residue = np.where((bins.devices >= gpu) & roomy[:, None], bins.devices - gpu, SCALE * 2)
            spot = np.unravel_index(int(residue.argmin()), residue.shape)
            if residue[spot] > SCALE:
                return count - placed
            bins.devices[spot] -= gpu
            row = int(spot[0])
        else:
            whole = (bins.devices == SCALE).sum(axis=1)
            fit = np.where(roomy & (whole * SCALE >= gpu), whole, 1_000)
            row = int(fit.argmin()) if len(fit) else 0
            if not len(fit) or fit[row] == 1_000:
                return count - placed
            free = np.flatnonzero(bins.devices[row] == SCALE)
            bins.devices[row, free[: gpu // SCALE]] = 0
        bins.take(row, shape, 1)
    return 0
