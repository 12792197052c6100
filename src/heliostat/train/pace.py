"""How fast a group gets through its work between two `sync`, and how far apart those are. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Pace:
    amount: float = 0.0
    """Work, in the user's unit; items, where nobody says otherwise."""
    seconds: float = 0.0
    spoiled: bool = False
    """It does not tell what the size is worth: a member was lost, or has only just come."""

    def worked(self, amount: float, seconds: float, *, clean: bool) -> Pace:
        """Return the same with one more `map` or `call`."""
        return replace(
            self,
            amount=self.amount + amount,
            seconds=self.seconds + seconds,
            spoiled=self.spoiled or not clean,
        )

    @property
    def per_s(self) -> float | None:
        """Return the throughput, or None where nothing useful was measured."""
        if self.spoiled or not self.amount or self.seconds <= 0:
            return None
        return self.amount / self.seconds


GAPS = 8
"""Steps that are remembered: the longest of them is how long the next may take."""


@dataclass(frozen=True)
class Gaps:
    """The times between the end of a `sync` and the begin of the next."""

    recent_s: tuple[float, ...] = ()

    def seen(self, gap_s: float) -> Gaps:
        return Gaps((*self.recent_s, gap_s)[-GAPS:])

    @property
    def longest_s(self) -> float:
        return max(self.recent_s, default=0.0)
