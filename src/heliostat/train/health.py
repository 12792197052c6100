"""How much failing is borne. Purely computational: the time comes in as an argument."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field, replace


@dataclass(frozen=True)
class Failed:
    at_s: float
    node_id: str
    why: str


@dataclass(frozen=True)
class Restarts:
    """Failures of members in the last `window_s`; a drained or released one is none.

    Those on one node at one moment are one: what ended them together is likely to be the node. When that
    turns out to be gone, they are forgiven.
    """

    limit: int
    window_s: float
    recent: tuple[Failed, ...] = ()

    def failed(self, now_s: float, why: str, *, node_id: str = "") -> Restarts:
        """Return the same with one more. What is older than the window is forgotten."""
        one = Failed(now_s, node_id, why)
        recent = [old for old in self.recent if now_s - old.at_s < self.window_s]
        if any((old.at_s, old.node_id) == (now_s, node_id) for old in recent):
            return replace(self, recent=tuple(recent))
        # More than the limit need not be remembered: it is over, anyway.
        return replace(self, recent=(*recent, one)[-(self.limit + 1) :])

    def forgiven(self, alive: Collection[str]) -> Restarts:
        """Return the same without the failures on nodes that are gone."""
        return replace(self, recent=tuple(one for one in self.recent if one.node_id in alive))

    def too_many(self, now_s: float) -> bool:
        return sum(now_s - one.at_s < self.window_s for one in self.recent) > self.limit

    @property
    def last(self) -> str:
        """Return why the last one failed."""
        return self.recent[-1].why if self.recent else ""


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
