"""How many members are wanted. Pure: measurements come in, a number goes out.

`Throughput` grows by one, and keeps the new member only if it paid: the gain in throughput in percent,
divided by the growth of cost in percent, must reach `gain`. Otherwise the group gives it back, and does not
ask again until something changes.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from statistics import median
from typing import Any

SAMPLES = 5
"""Steps at a size that are remembered; the middle one counts, so that a single slow step does not."""
SAMPLES_MIN = 3
SIZES = 64
"""Sizes whose measurements are remembered; the ones farthest from the present size go first."""
CHANGED = 0.25
"""Throughput or cost that differs by a quarter from what a verdict rests on: it is another workload."""


@dataclass(frozen=True)
class Throughput:
    """Grow while it pays.

    `gain` is the least that counts: 1.0 wants throughput to grow as fast as cost, 0.5 half as fast. `cost` is
    that of one member, in any unit, and 0 or more; each costs 1 where it is None. The step from no cost at
    all to some never pays: it is no percentage. `method` names the one whose `map` (and
    `call` with an `amount`) is measured; all are where it is None.
    """

    gain: float = 0.5
    cost: Callable[[Any], float] | None = None
    method: str | None = None

    def __post_init__(self) -> None:
        if not self.gain > 0:
            raise ValueError(f"gain is {self.gain}: it must be more than 0")


Target = int | Callable[[Any], int] | Throughput | None


def whole(number: Any) -> int | None:
    """Return a whole number as an int, one of NumPy's too; None for anything else, and for a bool."""
    if isinstance(number, bool):
        return None
    try:
        return operator.index(number)
    except TypeError:
        return None


@dataclass(frozen=True)
class Rate:
    """What was seen at one size."""

    items_per_s: tuple[float, ...] = ()
    cost: float = 0.0

    @property
    def known(self) -> bool:
        return len(self.items_per_s) >= SAMPLES_MIN

    @property
    def middle(self) -> float:
        return median(self.items_per_s)


@dataclass(frozen=True)
class Verdict:
    """One more than `size` does not pay; it holds while `size` does what it did."""

    size: int
    rate: float
    cost: float


@dataclass(frozen=True)
class Growth:
    """What has been measured, and what follows. A value: each method returns the next one."""

    gain: float
    rates: Mapping[int, Rate] = field(default_factory=dict)
    verdict: Verdict | None = None

    def measured(self, size: int, *, items_per_s: float, cost: float) -> Growth:
        """Take one step's throughput at a size, and judge the last growth once enough is known."""
        assert size > 0
        before = self.rates.get(size, Rate())
        if before.items_per_s and _differs(before.cost, cost):
            return Growth(self.gain, {size: Rate((items_per_s,), cost)})
        rate = Rate((*before.items_per_s, items_per_s)[-SAMPLES:], cost)
        near = sorted({**self.rates, size: rate}, key=lambda one: (abs(one - size), one))[:SIZES]
        rates = {one: rate if one == size else self.rates[one] for one in near}
        return replace(self, rates=rates)._judged(size)

    def _judged(self, size: int) -> Growth:
        now = self.rates[size]
        if not now.known:
            return self
        if self.verdict is not None and size == self.verdict.size:
            changed = _differs(self.verdict.rate, now.middle) or _differs(self.verdict.cost, now.cost)
            return Growth(self.gain, {size: now}) if changed else self
        smaller = self.rates.get(size - 1)
        if smaller is None or not smaller.known or pays(smaller, now, gain=self.gain):
            return self
        return replace(self, verdict=Verdict(size - 1, smaller.middle, smaller.cost))

    def target(self, size: int, *, min_size: int) -> int:
        """Return the size that is worth having, never below `min_size`; the caller knows the upper limit."""
        if self.verdict is not None:
            return max(min_size, self.verdict.size)
        at = max(size, min_size)
        rate = self.rates.get(at)
        # What is there is measured before more is asked for.
        return at + 1 if rate is not None and rate.known else at


def pays(smaller: Rate, larger: Rate, *, gain: float) -> bool:
    """Tell whether the step from one size to the next was worth its cost."""
    if smaller.cost == 0 < larger.cost:
        # In percent that is without end, and so no gain is enough.
        return False
    more_cost = larger.cost / smaller.cost - 1.0 if smaller.cost else 0.0
    more_items = larger.middle / smaller.middle - 1.0
    # What costs nothing pays as long as it does no harm.
    return more_items >= gain * more_cost if more_cost > 0 else more_items >= 0


def _differs(before: float, now: float) -> bool:
    return abs(now - before) > CHANGED * before


def clamp(wanted: int, *, min_size: int, max_size: int) -> int:
    return max(min_size, min(max_size, wanted))
