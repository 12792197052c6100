"""The bound is below the true optimum, which tiny instances let us find by trying everything."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from itertools import product
from random import Random

import numpy as np
import pytest

from benchmarks.planner_cases.bound import Bin, lower_bound, of_case
from benchmarks.planner_cases.cases import shape
from benchmarks.planner_cases.knapsack import Item, Knapsacks
from benchmarks.planner_cases.spec import Case, Gang, Type

ONE = 10_000
Room = tuple[int, int, int]
"""CPU, memory, and either GPU or nothing, in 1/10000."""

NAMES = ("CPU", "memory", "GPU")


def room(cpus: float = 0, memory: float = 0, gpus: float = 0) -> dict[str, int]:
    amounts = zip(NAMES, (cpus, memory, gpus), strict=True)
    return {name: round(amount * ONE) for name, amount in amounts if amount}


def optimum(items: list[Item], bins: list[Bin]) -> float:
    """Return the least cost of bins that hold all, by placing one bundle after the other everywhere."""
    bundles = tuple(index for index, item in enumerate(items) for _ in range(item.count))
    limited = [number for number, one in enumerate(bins) if one.members is not None]
    start = tuple(
        sorted((number, _empty(bins[number])) for number in limited for _ in range(bins[number].members or 0))
    )

    @cache
    def best(placed: int, there: tuple[tuple[int, tuple[int, ...]], ...]) -> float:
        if placed == len(bundles):
            return 0.0
        index = bundles[placed]
        costs = [float("inf")]
        for position, (number, free) in enumerate(there):
            if position == 0 or there[position - 1] != (number, free):
                others = there[:position] + there[position + 1 :]
                costs += [
                    best(placed + 1, _with(others, number, left)) for left in _after(index, number, free)
                ]
        for number, one in enumerate(bins):
            if one.members is None:
                costs += [
                    one.cost + best(placed + 1, _with(there, number, left))
                    for left in _after(index, number, _empty(one))
                ]
        return min(costs)

    def _after(index: int, number: int, free: tuple[int, ...]) -> list[tuple[int, ...]]:
        return list(_takes(items[index], free)) if index in bins[number].holds else []

    return best(0, start)


def _with(there: tuple[tuple[int, tuple[int, ...]], ...], number: int, free: tuple[int, ...]):
    return tuple(sorted((*there, (number, free))))


def _empty(one: Bin) -> tuple[int, ...]:
    """Return CPU, memory, and each device (or all GPUs as one)."""
    gpus = one.room.get("GPU", 0)
    devices = (ONE,) * (gpus // ONE) if one.devices else (gpus,)
    return (one.room.get("CPU", 0), one.room.get("memory", 0), *devices)


def _takes(item: Item, free: tuple[int, ...]):
    """Yield what may be left after one bundle; a part of a GPU may go to any device that has it."""
    cpu, memory = free[0] - item.need.get("CPU", 0), free[1] - item.need.get("memory", 0)
    gpu, devices = item.need.get("GPU", 0), free[2:]
    if min(cpu, memory) < 0:
        return
    if gpu == 0:
        yield (cpu, memory, *devices)
    elif gpu >= ONE and len(devices) > 1:
        whole = [place for place, left in enumerate(devices) if left == ONE][: gpu // ONE]
        if len(whole) * ONE == gpu:
            yield (cpu, memory, *sorted(0 if place in whole else left for place, left in enumerate(devices)))
    else:
        for place, left in enumerate(devices):
            if left >= gpu:
                yield (cpu, memory, *sorted((*devices[:place], left - gpu, *devices[place + 1 :])))


def tiny(seed: int, *, devices: bool) -> tuple[list[Item], list[Bin]]:
    """Return up to seven bundles of up to three shapes, two types and up to two free nodes."""
    rng = Random(seed)
    parts = (0, 0, 0.3, 0.5, 0.6, 1, 2) if devices else (0, 0, 0, 1)
    items = [
        Item(room(rng.choice((0.5, 1, 2, 3)), rng.choice((0, 1, 2, 5)), rng.choice(parts)), rng.randint(1, 3))
        for _ in range(rng.randint(1, 3))
    ]
    everything = frozenset(range(len(items)))
    some = frozenset(index for index in everything if rng.random() < 0.7)
    types = [
        Bin(room(4, 6, 2), rng.choice((1.0, 1.3, 2.0)), None, everything, devices),
        Bin(
            room(rng.choice((3, 6)), rng.choice((5, 9)), rng.choice((0, 2))),
            rng.choice((0.6, 1.1)),
            None,
            some,
            devices,
        ),
    ]
    free = [
        Bin(
            room(rng.choice((0.5, 2, 3)), rng.choice((1, 3)), rng.choice((0, 1))),
            0.0,
            rng.randint(1, 2),
            some,
            devices,
        )
        for _ in range(rng.randint(0, 2))
    ]
    return items, [*free, *types]


@pytest.mark.parametrize(("seed", "devices"), list(product(range(40), (False, True))))
def test_the_bound_is_below_the_optimum(seed: int, devices: bool) -> None:
    items, bins = tiny(seed, devices=devices)
    found, true = lower_bound(items, bins), optimum(items, bins)
    assert found.value <= true + 1e-9
    # Few nodes make the LP's gap large; it is still no arbitrary number.
    assert found.value >= true - 2.0
    assert found.value <= found.above + 1e-9


@pytest.mark.parametrize("seed", range(20))
def test_a_bound_of_fewer_rounds_is_smaller_and_true(seed: int) -> None:
    items, bins = tiny(seed, devices=False)
    true = optimum(items, bins)
    early = [lower_bound(items, bins, rounds=rounds).value for rounds in (1, 2, 3)]
    assert early == sorted(early)
    assert max(early) <= true + 1e-9


def test_bundles_are_whole_where_a_fluid_would_fit() -> None:
    # Three bundles of 3 CPUs fill 9 of 12 CPUs of three nodes of 4; a fluid would take 2.25 nodes.
    items = [Item(room(3), 3)]
    assert lower_bound(items, [Bin(room(4), 1.0, None, frozenset({0}))]).value == pytest.approx(3.0)


def test_a_part_of_a_gpu_lies_within_one_device() -> None:
    items = [Item(room(1, gpus=0.6), 8)]
    pooled = Bin(room(100, gpus=4), 1.0, None, frozenset({0}))
    apart = Bin(room(100, gpus=4), 1.0, None, frozenset({0}), devices=True)
    assert lower_bound(items, [pooled]).value == pytest.approx(8 / 6)
    assert lower_bound(items, [apart]).value == pytest.approx(2.0)


def test_of_a_gang_that_spreads_one_lies_on_a_node() -> None:
    node_type = Type("big", {"CPU": 100.0}, 1.0)
    gangs = tuple(Gang(f"g{number}", "STRICT_SPREAD", shape(1), 8) for number in range(2))
    for strategy, cost in (("STRICT_SPREAD", 8.0), ("PACK", 1.0)):
        several = tuple(replace(gang, strategy=strategy) for gang in gangs)
        found = of_case(Case("T", "a test", (node_type,), gangs=several))
        assert found is not None
        assert found.value == pytest.approx(cost)


def test_what_is_there_is_free_but_not_without_end() -> None:
    items = [Item(room(2), 10)]
    there = Bin(room(5), 0.0, 3, frozenset({0}))
    kind = Bin(room(4), 1.0, None, frozenset({0}))
    assert lower_bound(items, [there, kind]).value == pytest.approx(2.0)


def test_whole_shares_hold_everything() -> None:
    items = [Item(room(3, 1), 5), Item(room(1, 2), 7)]
    found = lower_bound(items, [Bin(room(4, 4), 1.0, None, frozenset({0, 1}))], whole=True)
    for index, item in enumerate(items):
        assert sum(round(share.number) * share.counts.get(index, 0) for share in found.shares) >= item.count
    assert all(abs(share.number - round(share.number)) < 1e-6 for share in found.shares)


@pytest.mark.parametrize("seed", range(30))
def test_a_filling_is_the_best_of_all(seed: int) -> None:
    rng = Random(seed)
    items = {
        n: Item(room(rng.choice((0.5, 1, 1.5)), rng.choice((0, 1, 2)), rng.choice((0, 0.4, 0.7, 1))), 6)
        for n in range(3)
    }
    prices = np.array([rng.uniform(0.1, 1) for _ in items])
    free = room(3, 3, 2)
    sacks = Knapsacks(items, [free], devices=True)
    best = sacks.solve(prices)[sacks.corners[0]]
    filling = sacks.filling(sacks.corners[0])
    assert sum(count * prices[index] for index, count in filling.items()) == pytest.approx(best)
    start = _empty(Bin(free, 0.0, 1, frozenset(items), devices=True))

    def value(counts: tuple[int, ...]) -> float:
        states = {start}
        for index, count in enumerate(counts):
            for _ in range(count):
                states = {left for state in states for left in _takes(items[index], state)}
        return float(prices @ np.array(counts)) if states else 0.0

    assert best == pytest.approx(max(map(value, product(range(7), repeat=len(items)))))
