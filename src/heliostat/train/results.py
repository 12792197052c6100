"""The accounts of one `map`: each item counts once and only once. Pure.

An attempt is one item given to one member. Only the answer to an item's current attempt counts; whatever
comes for another one is too late, and is passed over.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Any

from heliostat.train.types import Dropped, Failure

MAX_TRIES = 3
"""Members that one item may cost: more, and it is probably the item that ends them."""


@dataclass(frozen=True)
class Attempt:
    item: int
    number: int


class Ledger:
    def __init__(self, count: int, on_failure: Failure) -> None:
        self._on_failure = on_failure
        self._waiting = deque(range(count))
        self._current: dict[int, Attempt] = {}
        self._tries = [0] * count
        self._cost = [0] * count
        self._results: dict[int, Any] = {}
        self._count = count

    @property
    def done(self) -> bool:
        return len(self._results) == self._count

    @property
    def waits(self) -> bool:
        """Whether an item waits for a member."""
        return bool(self._waiting)

    def give(self) -> Attempt:
        """Return the next item as an attempt; one must wait."""
        item = self._waiting.popleft()
        self._tries[item] += 1
        self._current[item] = Attempt(item, self._tries[item])
        return self._current[item]

    def answered(self, attempt: Attempt, value: Any) -> bool:
        """Take a result; return False, and change nothing, if it comes too late to count."""
        if self._current.get(attempt.item) != attempt:
            return False
        del self._current[attempt.item]
        self._results[attempt.item] = value
        return True

    def lost(self, attempt: Attempt, why: str, *, blameless: bool = False) -> str | None:
        """Take a loss; return why `map` must end, or None if it goes on.

        `blameless`: it may not have been the item, so it does not count towards `MAX_TRIES`.
        """
        if self._current.get(attempt.item) != attempt:
            return None
        del self._current[attempt.item]
        if self._on_failure is Failure.DROP:
            self._results[attempt.item] = Dropped(attempt.item, why)
            return None
        if self._on_failure is Failure.RAISE:
            return f"item {attempt.item}: {why}"
        self._cost[attempt.item] += not blameless
        if self._cost[attempt.item] >= MAX_TRIES:
            return f"item {attempt.item} has cost {MAX_TRIES} members, the last: {why}"
        # In front: whoever waits for all results waits for this one the longest.
        self._waiting.appendleft(attempt.item)
        return None

    def drop_waiting(self, why: str) -> None:
        """Give up what no member has begun."""
        for item in self._waiting:
            self._results[item] = Dropped(item, why)
        self._waiting.clear()

    def results(self) -> list[Any]:
        """Return what came of each item, in the order of items; all must be done."""
        assert self.done
        return [self._results[item] for item in range(self._count)]
