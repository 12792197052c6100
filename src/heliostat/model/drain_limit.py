"""How many nodes may be drained at a time because nobody needs them as they are, and when."""

from __future__ import annotations

from dataclasses import dataclass

MINUTES_A_DAY = 24 * 60
VOLUNTARY = ("idle", "drift", "over_max")
"""Why a node may be drained that could stay: it is idle, of an old shape, or above a lowered maximum."""


@dataclass(frozen=True)
class DrainLimit:
    """At most `count` nodes at a time, or `percent` of those that are up, rounded up: 1% of 10 is one.

    `reasons` are of `VOLUNTARY`; empty: all. `hours` are two minutes of the day, from the first until
    just before the second, over midnight where the second is the smaller one; None: always.
    """

    count: int = 0
    percent: int | None = None
    reasons: frozenset[str] = frozenset()
    hours: tuple[int, int] | None = None

    def most(self, up: int) -> int:
        """Return how many that is where `up` nodes are up."""
        return self.count if self.percent is None else -(-up * self.percent // 100)

    def concerns(self, reason: str) -> bool:
        """Say whether nodes that are drained for this reason count; "" is one that is not known."""
        return not reason or not self.reasons or reason in self.reasons

    def holds_at(self, local_s: float) -> bool:
        """Say whether it counts now; `local_s` is Unix seconds plus the local time's offset to UTC."""
        if self.hours is None:
            return True
        first, last = self.hours
        minute = int(local_s // 60) % MINUTES_A_DAY
        return first <= minute < last if first < last else not last <= minute < first

    def __str__(self) -> str:
        parts = [f"{self.count}" if self.percent is None else f"{self.percent}%"]
        parts += [" and ".join(one for one in VOLUNTARY if one in self.reasons)] if self.reasons else []
        parts += ["-".join(f"{at // 60:02}:{at % 60:02}" for at in self.hours)] if self.hours else []
        return ", ".join(parts)
