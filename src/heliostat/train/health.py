"""How much failing is borne. Purely computational: the time comes in as an argument."""

from __future__ import annotations

from dataclasses import dataclass, field, replace


@dataclass(frozen=True)
class Restarts:
    """Failures of members in the last `window_s`; a drained or released one is none."""

    limit: int
    window_s: float
    at_s: tuple[float, ...] = ()
    last: str = ""

    def failed(self, now_s: float, why: str) -> Restarts:
        """Return the same with one more. What is older than the window is forgotten."""
        recent = [one for one in self.at_s if now_s - one < self.window_s]
        # More than the limit need not be remembered: it is over, anyway.
        return replace(self, at_s=(*recent, now_s)[-(self.limit + 1) :], last=why)

    def too_many(self, now_s: float) -> bool:
        return sum(now_s - one < self.window_s for one in self.at_s) > self.limit


@dataclass(frozen=True)
class Shortage:
    """Since when a group has had too few members; None while it has enough."""

    timeout_s: float
    since_s: float | None = field(default=None)

    def seen(self, now_s: float, *, enough: bool) -> Shortage:
        if enough:
            return replace(self, since_s=None)
        return self if self.since_s is not None else replace(self, since_s=now_s)

    def left_s(self, now_s: float) -> float:
        """Return how much longer it is borne; infinity while there are enough."""
        if self.since_s is None:
            return float("inf")
        return self.since_s + self.timeout_s - now_s
