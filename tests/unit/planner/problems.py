"""Small covering problems of every kind, so small that brute force can judge the answers.

They are drawn from a seed and not choice by choice: thousands of them are worth more here than a failure
made smaller still.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import prod
from random import Random

from heliostat.planner.problem import MICRO, Item, Problem, Source
from tests.examples import seeds

UNIT = 10_000
STATES = 300
"""No more ways than this to hold a part of the items: what brute force takes is in proportion."""

AMOUNTS = (0, UNIT // 2, UNIT, 2 * UNIT, 3 * UNIT, 5 * UNIT, 7 * UNIT)
CAPACITIES = (2 * UNIT, 4 * UNIT, 8 * UNIT, 16 * UNIT)
SHARES = (0, 2000, 2500, 3000, 3334, 4000, 5000, 6000, 7500, UNIT, 2 * UNIT)
DEVICES = (0, UNIT, 2 * UNIT, 4 * UNIT)
PRICES = (0.5, 1.0, 1.7, 2.0, 3.0, 5.0)


def problem_of(chance: Random) -> Problem:
    """Return three sources and four items at most, without limits; half of them count devices one by one."""
    columns, shared = chance.randint(1, 3), chance.random() < 0.5
    items = [_item(chance, columns, shared) for _ in range(chance.randint(1, 4))]
    while prod(item.count + 1 for item in items) > STATES:
        items = [replace(item, count=(item.count + 1) // 2) for item in items]
    sources = [_source(chance, shared, items) for _ in range(chance.randint(1, 3))]
    return Problem(tuple(items), tuple(sources), 10_000, None, (0,) if shared else ())


def _item(chance: Random, columns: int, shared: bool) -> Item:
    amounts = [chance.choice(AMOUNTS) for _ in range(columns)]
    if shared:
        amounts[0] = chance.choice(SHARES)
    if not any(amounts):
        amounts[0] = UNIT
    return Item(tuple(amounts), chance.randint(1, 9), chance.choice((-1, -1, -1, 0, 1)))


def _source(chance: Random, shared: bool, items: Sequence[Item]) -> Source:
    capacity = [chance.choice(CAPACITIES) for _ in items[0].amounts]
    if shared:
        capacity[0] = chance.choice(DEVICES)
    price = chance.choice(PRICES)
    return Source(
        capacity=tuple(capacity),
        cost=price + 0.001 * chance.random(),
        price_micro=round(price * MICRO),
        most=1000,
        hold=False,
        levels=tuple(chance.choice((0, 0, 0, 0, 1, None)) for _ in items),
        burdens=(0,) * len(items),
    )


def limited_of(chance: Random) -> Problem:
    """Return a problem whose limits bind: of each source, of all together, of money; some are waited for."""
    problem = problem_of(chance)
    sources = []
    for one in problem.sources:
        most = chance.randint(0, 4)
        # What is free of charge is no matter for the budget, but still weighs something.
        price = chance.choice((one.price_micro, one.price_micro, 0))
        hold = most == 0 and chance.random() < 0.5
        sources.append(replace(one, most=most, hold=hold, price_micro=price))
    budget = chance.choice((None, chance.randint(0, 12) * MICRO // 2))
    return replace(problem, sources=tuple(sources), total=chance.randint(0, 6), budget_micro=budget)


def with_burdens(problem: Problem) -> Problem:
    """Return the problem with nodes that have devices as the second choice of what needs none."""
    needless = [not item.amounts[0] for item in problem.items]
    sources = [
        replace(one, burdens=tuple(int(one.capacity[0] > 0 and each) for each in needless))
        for one in problem.sources
    ]
    return replace(problem, sources=tuple(sources)) if problem.device_columns else problem


chances = seeds.map(Random)
problems = chances.map(problem_of)
devices_apart = problems.map(with_burdens)
limited = chances.map(limited_of).map(with_burdens)
