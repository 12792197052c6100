"""The covering program: never below the optimum, near it, within every limit; and relaxed, against HiGHS."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from heliostat.planner.cover import cover
from heliostat.planner.problem import MICRO, Group, Item, Problem, Solution, Source
from heliostat.planner.simplex import Columns, Floats, Ints, relax
from tests.examples import many, timeout
from tests.unit.planner.optimum import cheapest, holds, holds_in_one_order
from tests.unit.planner.problems import UNIT, devices_apart, limited, problems

MANY = many(2000)

ITEM = Item((UNIT,), 5)

WORST = 1.5
WORST_OF_SHARES = 2.0
"""How many times the optimum an answer may cost. Of 20,000 random problems the dearest cost 1.2 times as
much, with shares of devices 1.57 times. Nobody places shares but in one order."""

MEAN = 1.001
"""And on the average; 1.0001 was measured. Of a thousand it is up to 1.0006: one dear answer counts much."""


def cost_of(problem: Problem, solution: Solution) -> float:
    return sum(problem.sources[group.source].cost * group.count for group in solution.groups)


def held(problem: Problem, solution: Solution) -> list[int]:
    numbers = range(len(problem.items))
    return [sum(group.copies[index] * group.count for group in solution.groups) for index in numbers]


def open_to(problem: Problem, solution: Solution, number: int) -> int:
    """Return how many more nodes of a source the limits allow beside an answer."""
    added = [
        sum(one.count for one in solution.groups if one.source == n) for n in range(len(problem.sources))
    ]
    source = problem.sources[number]
    room = min(source.most - added[number], problem.total - sum(added))
    if problem.budget_micro is not None and source.price_micro:
        spent = sum(one.price_micro * n for one, n in zip(problem.sources, added, strict=True))
        room = min(room, (problem.budget_micro - spent) // source.price_micro)
    return room


def alone_in(problem: Problem, source: Source, item: int) -> bool:
    one = [int(index == item) for index in range(len(problem.items))]
    return source.levels[item] is not None and holds(problem, source, one)


def assert_it_adds_up(problem: Problem, answer: Solution) -> None:
    """Every group fits and suits, and what is held and what is left are all there is."""
    for group in answer.groups:
        source = problem.sources[group.source]
        assert group.count > 0
        assert group.copies[group.driver] > 0
        assert holds(problem, source, group.copies)
        assert all(level is not None for n, level in zip(group.copies, source.levels, strict=True) if n)
    both = zip(held(problem, answer), answer.left, strict=True)
    assert [n + left for n, left in both] == [item.count for item in problem.items]
    assert min(answer.left) >= 0


class TestAgainstTheOptimum:
    @timeout()
    def test_never_below_it_and_near_it_and_all_that_fits_is_held(self) -> None:
        factors: list[float] = []

        @MANY
        @given(problems)
        def measure(problem: Problem) -> None:
            best, answer = cheapest(problem), cover(problem)
            assert_it_adds_up(problem, answer)
            if best is None:
                assert any(answer.left)
                return
            assert not any(answer.left)
            factors.append(cost_of(problem, answer) / best)
            assert 1 - 1e-9 <= factors[-1] <= (WORST_OF_SHARES if problem.device_columns else WORST)

        measure()
        assert len(factors) > 500
        assert sum(factors) / len(factors) <= MEAN

    @many(400)
    @given(devices_apart)
    def test_where_devices_are_left_alone_it_is_never_below_it_either(self, problem: Problem) -> None:
        """No factor is promised here: brute force spreads GPU nodes, so that others may ride on them."""
        best, answer = cheapest(problem), cover(problem)
        assert_it_adds_up(problem, answer)
        assert any(answer.left) is (best is None)
        if best is not None:
            assert cost_of(problem, answer) >= best * (1 - 1e-9)


class TestEveryAnswer:
    @many(1500)
    @given(limited)
    def test_no_limit_is_passed_and_nothing_is_left_that_could_be_had(self, problem: Problem) -> None:
        answer = cover(problem)
        assert_it_adds_up(problem, answer)
        rooms = [open_to(problem, answer, number) for number in range(len(problem.sources))]
        assert min(rooms) >= 0
        for item in np.flatnonzero(answer.left).tolist():
            suiting = [n for n, one in enumerate(problem.sources) if alone_in(problem, one, item)]
            waits = any(problem.sources[n].hold for n in suiting)
            assert waits or not any(rooms[n] for n in suiting)
            if problem.items[item].mark < 0:
                assert not [one for one in answer.groups if has_room(problem, one, item)]

    @many(150)
    @given(limited)
    def test_the_same_for_the_same(self, problem: Problem) -> None:
        # Of equal problems the answer is remembered, so it is worked out anew here.
        assert cover.__wrapped__(problem) == cover.__wrapped__(replace(problem)) == cover(problem)


def has_room(problem: Problem, group: Group, item: int) -> bool:
    """Say whether a group's nodes, which suit the item, could hold one more, devices shared out plainly."""
    more = [n + (index == item) for index, n in enumerate(group.copies)]
    source = problem.sources[group.source]
    return source.levels[item] is not None and holds_in_one_order(problem, source, more)


class TestRules:
    """Tables on one resource; of `ONE` a node holds four."""

    def answer(self, items: tuple[Item, ...], *sources: Source, **changed: object) -> dict[int, int]:
        problem = replace(Problem(items, sources, total=100), **changed)  # type: ignore[arg-type]
        counts: dict[int, int] = {}
        for group in cover(problem).groups:
            counts[group.source] = counts.get(group.source, 0) + group.count
        return counts

    def source(self, cost: float = 1.0, *, most: int = 100, size: int = 4, **changed: object) -> Source:
        plain = Source((size * UNIT,), cost, round(cost * MICRO), most, False, levels=(0,), burdens=(0,))
        return replace(plain, **changed)  # type: ignore[arg-type]

    def test_the_best_level_whatever_it_costs(self) -> None:
        dear, cheap = self.source(9.0, levels=(0,)), self.source(1.0, levels=(1,))
        assert self.answer((ITEM,), dear, cheap) == {0: 2}

    def test_the_next_level_for_what_the_best_has_no_more_of(self) -> None:
        dear, cheap = self.source(9.0, most=1, levels=(0,)), self.source(1.0, levels=(1,))
        assert self.answer((ITEM,), dear, cheap) == {0: 1, 1: 1}

    def test_none_of_the_next_level_while_the_best_is_about_to_be_known_better(self) -> None:
        best, next_best = self.source(9.0, most=0, hold=True), self.source(1.0, levels=(1,))
        assert self.answer((ITEM,), best, next_best) == {}
        assert self.answer((ITEM,), replace(best, hold=False), next_best) == {1: 2}

    def test_of_one_level_it_waits_for_the_cheapest_only(self) -> None:
        cheap, dear = self.source(1.0, most=0, hold=True), self.source(2.0)
        assert self.answer((ITEM,), cheap, dear) == {}
        assert self.answer((ITEM,), replace(cheap, cost=3.0), dear) == {1: 2}

    def test_what_one_level_offers_is_weighed_by_cost_alone(self) -> None:
        assert self.answer((ITEM,), self.source(1.1), self.source(1.0)) == {1: 2}
        eight = (replace(ITEM, count=8),)
        assert self.answer(eight, self.source(1.9, size=8), self.source(1.0)) == {0: 1}
        assert self.answer(eight, self.source(2.1, size=8), self.source(1.0)) == {1: 2}

    def test_the_last_few_nodes_are_searched_and_not_only_filled_by_worth(self) -> None:
        nine = (replace(ITEM, count=9),)
        assert self.answer(nine, self.source(2.0, size=8), self.source(2.8, size=12)) == {1: 1}
        assert self.answer((ITEM,), self.source(1.0), self.source(1.5, size=8)) == {1: 1}

    def test_no_node_with_a_device_that_is_not_needed_however_cheap(self) -> None:
        with_device, without = self.source(0.1, burdens=(1,)), self.source(1.0)
        assert self.answer((ITEM,), with_device, without) == {1: 2}
        assert self.answer((ITEM,), with_device, replace(without, most=0)) == {0: 2}

    def test_but_what_needs_none_rides_where_another_brings_it(self) -> None:
        items = (Item((UNIT,), 1), Item((3 * UNIT,), 1))
        device = self.source(2.0, levels=(0, 0), burdens=(1, 0))
        plain = self.source(1.5, levels=(0, None), burdens=(0, 0))
        assert self.answer(items, device, plain) == {0: 1}
        assert self.answer((replace(items[0], count=2), items[1]), device, plain) == {0: 1, 1: 1}

    def test_one_of_each_mark_on_a_node(self) -> None:
        assert self.answer((replace(ITEM, mark=0),), self.source()) == {0: 5}
        items = (Item((UNIT,), 2, 0), Item((UNIT,), 2, 1), Item((UNIT,), 2, 0))
        assert self.answer(items, self.source(levels=(0,) * 3, burdens=(0,) * 3)) == {0: 4}

    def test_the_budget_is_exact(self) -> None:
        tenth = self.source(0.1, size=1)
        assert self.answer((ITEM,), tenth, budget_micro=MICRO * 3 // 10) == {0: 3}
        assert self.answer((ITEM,), tenth, budget_micro=MICRO * 3 // 10 - 1) == {0: 2}

    def test_the_total_of_all(self) -> None:
        assert self.answer((ITEM,), self.source(9.0, most=1), self.source(levels=(1,)), total=1) == {0: 1}

    def test_nothing_suits(self) -> None:
        assert self.answer((ITEM,), self.source(levels=(None,)), self.source(size=0)) == {}
        assert self.answer((ITEM,)) == {}
        assert self.answer((), self.source(levels=(), burdens=())) == {}

    def test_what_waits_for_its_best_level_shares_a_node_that_comes_anyway(self) -> None:
        """The first item waits for a source on hold; the second brings a node with room for it."""
        items = (Item((UNIT,), 5), Item((2 * UNIT,), 2))
        best = self.source(most=0, hold=True, levels=(0, None), burdens=(0, 0))
        other = self.source(levels=(1, 0), burdens=(0, 0), size=3)
        answer = cover(Problem(items, (best, other), total=100))
        assert (answer.left, sum(one.count for one in answer.groups)) == ((3, 0), 2)

    def test_shares_of_devices_that_ride_are_placed_the_largest_first(self) -> None:
        """Two quarters are there first, side by side or not: four of 0.75 go on four devices with them."""
        items = (Item((2500,), 2), Item((7500,), 5))
        best = self.source(most=0, hold=True, levels=(None, 0), burdens=(0, 0))
        other = self.source(levels=(0, 1), burdens=(0, 0))
        answer = cover(Problem(items, (best, other), total=100, device_columns=(0,)))
        assert answer.left == (0, 1)
        assert [(one.source, one.count, one.copies) for one in answer.groups] == [(1, 1, (2, 4))]


class TestRelaxed:
    """The relaxed program over patterns that are all given, against HiGHS."""

    @many(300)
    @given(st.randoms(use_true_random=True))
    def test_the_same_value_as_an_lp_solver_and_values_that_prove_it(self, chance: Random) -> None:
        counts, known = program_of(chance)
        start = known.at(np.arange(len(counts)))
        answer = relax(counts, start, lambda _: known)
        value = float(answer.amounts @ answer.columns.costs)
        assert value == pytest.approx(least(counts, known), rel=1e-6)
        # It holds what it has to, with no less than nothing of a pattern.
        assert (answer.columns.copies @ answer.amounts >= counts - 1e-6).all()
        assert (answer.amounts >= 0).all()
        # The values are a proof: no pattern is worth more than it costs, and they sum up to the same.
        assert (answer.values >= 0).all()
        assert (answer.values @ known.copies <= known.costs * (1 + 1e-6)).all()
        assert float(answer.values @ counts) == pytest.approx(value, rel=1e-6)

    def test_it_ends_where_nothing_more_is_found(self) -> None:
        asked: list[Floats] = []

        def price(values: Floats) -> Columns:
            asked.append(values)
            return columns([[2, 1], [1, 2]], [1.0, 1.0])

        answer = relax(np.array([3, 3]), columns([[1, 0], [0, 1]], [1.0, 1.0]), price)
        assert float(answer.amounts.sum()) == pytest.approx(2.0)
        assert answer.values == pytest.approx([1 / 3, 1 / 3])
        assert len(asked) == 2


def columns(copies: list[list[int]], costs: list[float]) -> Columns:
    return Columns(np.array(copies, dtype=np.int64), np.array(costs), np.zeros(len(costs), dtype=np.int64))


def program_of(chance: Random) -> tuple[Ints, Columns]:
    """Return counts and patterns, the first of which hold one bundle each."""
    rows, more = chance.randint(1, 8), chance.randint(0, 30)
    alone = [[chance.randint(1, 5) * (i == j) for j in range(rows)] for i in range(rows)]
    mixed = [[chance.choice((0, 0, 1, 2, 3, 7)) for _ in range(more)] for _ in range(rows)]
    costs = [chance.choice((0.5, 1.0, 1.0, 2.5, 4.0)) + 0.01 * chance.random() for _ in range(rows + more)]
    counts = np.array([chance.randint(1, 200) for _ in range(rows)], dtype=np.int64)
    return counts, columns([one + other for one, other in zip(alone, mixed, strict=True)], costs)


def least(counts: Ints, known: Columns) -> float:
    """Return what HiGHS says the relaxed program costs."""
    import highspy

    solver = highspy.Highs()
    solver.setOptionValue("output_flag", False)
    amounts = [solver.addVariable(lb=0.0, obj=float(cost)) for cost in known.costs]
    for count, row in zip(counts.tolist(), known.copies.tolist(), strict=True):
        solver.addConstr(sum(n * one for n, one in zip(row, amounts, strict=True)) >= count)
    solver.minimize()
    return float(solver.getInfo().objective_function_value)
