"""How many are wanted: grow by one, keep what pays, give back what does not."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from heliostat.train.target import SAMPLES_MIN, SIZES, Growth, Rate, Throughput, clamp, pays


def grown(rate_of: Callable[[int], float], *, gain: float, limit: int, steps: int = 60) -> tuple[int, Growth]:
    """Let a group follow its target at once, and return where it ends."""
    growth, size = Growth(gain), 1
    for _ in range(steps):
        growth = growth.measured(size, items_per_s=rate_of(size), cost=float(size))
        size = clamp(growth.target(size, min_size=1), min_size=1, max_size=limit)
    return size, growth


@pytest.mark.parametrize(
    ("rate_of", "gain", "size"),
    [
        (lambda size: 10.0 * size, 0.5, 8),
        (lambda size: 10.0 * size, 1.0, 8),
        (lambda size: 10.0, 0.5, 1),
        (lambda size: 10.0 * min(size, 3), 0.5, 3),
        (lambda size: 10.0 * size**0.6, 0.5, 8),
        (lambda size: 10.0 * size**0.4, 0.5, 1),
        (lambda size: 10.0 / size, 0.1, 1),
    ],
)
def test_it_stops_where_one_more_does_not_pay(
    rate_of: Callable[[int], float], gain: float, size: int
) -> None:
    assert grown(rate_of, gain=gain, limit=8)[0] == size


def test_it_measures_before_it_asks_for_more() -> None:
    growth = Growth(0.5)
    assert growth.target(0, min_size=2) == 2
    for _ in range(SAMPLES_MIN):
        assert growth.target(2, min_size=2) == 2
        growth = growth.measured(2, items_per_s=5, cost=2)
    assert growth.target(2, min_size=2) == 3


def test_a_verdict_stands_while_nothing_changes() -> None:
    _, growth = grown(lambda size: 10.0, gain=0.5, limit=8)
    assert growth.verdict is not None
    for rate in (9.0, 10.0, 11.0, 12.0) * 5:
        growth = growth.measured(1, items_per_s=rate, cost=1.0)
        assert growth.target(1, min_size=1) == 1


def test_a_lost_member_is_wanted_back() -> None:
    _, growth = grown(lambda size: 10.0 * min(size, 3), gain=0.5, limit=8)
    assert growth.target(2, min_size=1) == 3


@pytest.mark.parametrize(("rate", "cost"), [(20.0, 1.0), (5.0, 1.0), (10.0, 2.0)])
def test_it_tries_again_when_the_work_has_changed(rate: float, cost: float) -> None:
    _, growth = grown(lambda size: 10.0, gain=0.5, limit=8)
    for _ in range(2 * SAMPLES_MIN):
        growth = growth.measured(1, items_per_s=rate, cost=cost)
    assert growth.verdict is None
    assert growth.target(1, min_size=1) == 2


def test_what_costs_something_all_at_once_is_another_workload() -> None:
    growth = Growth(0.5)
    for _ in range(SAMPLES_MIN):
        growth = growth.measured(1, items_per_s=10.0, cost=0.0)
    assert growth.rates[1].known
    assert not growth.measured(1, items_per_s=10.0, cost=1.0).rates[1].known


def test_one_slow_step_changes_nothing() -> None:
    _, growth = grown(lambda size: 10.0, gain=0.5, limit=8)
    growth = growth.measured(1, items_per_s=1.0, cost=1.0)
    assert growth.verdict is not None


@pytest.mark.parametrize(
    ("rates", "costs", "gain", "paid"),
    [
        ((10, 15), (1, 2), 0.5, True),
        ((10, 14), (1, 2), 0.5, False),
        ((10, 12), (4, 5), 0.5, True),
        ((10, 11), (4, 5), 0.5, False),
        ((10, 11), (2, 10), 0.5, False),
        ((10, 10), (2, 2), 0.5, True),
        ((10, 9), (2, 1), 0.5, False),
        ((10, 20), (0, 0), 0.5, True),
        ((10, 9), (0, 0), 0.5, False),
        ((10, 99), (0, 1), 0.5, False),
    ],
)
def test_pays(rates: tuple[float, float], costs: tuple[float, float], gain: float, paid: bool) -> None:
    smaller, larger = Rate((rates[0],) * 3, costs[0]), Rate((rates[1],) * 3, costs[1])
    assert pays(smaller, larger, gain=gain) is paid


def test_memory_is_bounded() -> None:
    growth = Growth(0.5)
    for size in range(1, 3 * SIZES):
        for _ in range(9):
            growth = growth.measured(size, items_per_s=float(size), cost=float(size))
    assert len(growth.rates) <= SIZES
    assert max(len(one.items_per_s) for one in growth.rates.values()) <= 9


@pytest.mark.parametrize("gain", [0, -1])
def test_a_gain_must_be_positive(gain: float) -> None:
    with pytest.raises(ValueError, match="more than 0"):
        Throughput(gain=gain)
