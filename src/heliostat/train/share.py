"""How a cluster is divided between roles: weighted max-min fair, with minimums. Pure.

The next place always goes to the role that has the least for its weight, minimums first: this is the
progressive filling by which max-min fairness is usually defined (Bertsekas and Gallager, Data Networks,
6.5.2). A role that finds no room any more is full. Rooms are nodes, so that a share is what can be placed,
bundle by bundle.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from heliostat.train.cluster import Room

SLACK = 1e-6
"""Ray counts in ten-thousandths."""


@dataclass(frozen=True)
class Claim:
    """What one role could use, and what it has."""

    name: str
    bundle: Mapping[str, float]
    want: int
    """Its target: more would not help."""
    min_size: int = 0
    weight: float = 1.0
    held: Mapping[str, int] = field(default_factory=dict)
    """Places that it has now, by node."""
    label_selector: Mapping[str, str] | None = None


Share = dict[str, dict[str, int]]
"""For each role, how many places it gets on which node."""


def divide(rooms: Sequence[Room], claims: Sequence[Claim]) -> Share:
    """Return each role's share of the rooms; what the roles hold now counts as free in `rooms`.

    No role gets more than it wants; no room holds more than it can; and no place is left that a role could
    use. Of two equal roles the one keeps a place that has it, so a division that was carried out stands.
    """
    table = _Table(rooms, claims)
    open_claims = list(claims)
    while open_claims:
        claim = min(open_claims, key=table.level)
        if table.count(claim) >= claim.want or not table.fill(claim):
            open_claims.remove(claim)
    return table.share


class _Table:
    """A division while it is made."""

    def __init__(self, rooms: Sequence[Room], claims: Sequence[Claim]) -> None:
        self._claims = claims
        self._order = {claim.name: index for index, claim in enumerate(claims)}
        self._free = {room.node_id: dict(room.free) for room in rooms}
        self._labels = {room.node_id: room.labels for room in rooms}
        self.share: Share = {claim.name: {} for claim in claims}

    def count(self, claim: Claim) -> int:
        return sum(self.share[claim.name].values())

    def level(self, claim: Claim) -> tuple[bool, float, bool, int]:
        """Return how well off a role would be with one more: the lowest is served next."""
        count = self.count(claim)
        holds_it = sum(claim.held.values()) > count
        return (count >= claim.min_size, (count + 1) / claim.weight, not holds_it, self._order[claim.name])

    def fill(self, claim: Claim) -> bool:
        """Take the best place for one more bundle; return False if there is none."""
        nodes = [node for node in self._free if self._fits(claim, node)]
        if not nodes:
            return False
        node = min(nodes, key=lambda one: self._badness(claim, one))
        for name, amount in claim.bundle.items():
            self._free[node][name] -= amount
        self.share[claim.name][node] = self.share[claim.name].get(node, 0) + 1
        return True

    def _fits(self, claim: Claim, node: str, *, reserved: Mapping[str, float] | None = None) -> bool:
        free, kept = self._free[node], reserved or {}
        return matches(claim.label_selector, self._labels[node]) and all(
            free.get(name, 0.0) - kept.get(name, 0.0) >= amount - SLACK
            for name, amount in claim.bundle.items()
        )

    def _badness(self, claim: Claim, node: str) -> tuple[bool, bool, float, float, str]:
        """Own places first, then those where nobody has to move, then those with the least left over."""
        mine = self.share[claim.name].get(node, 0) < claim.held.get(node, 0)
        beside = self._fits(claim, node, reserved=self._reserved(claim, node))
        free = self._free[node]
        # A bundle without GPUs is best kept off nodes that have some.
        wasted = sum(amount for name, amount in free.items() if name == "GPU" and name not in claim.bundle)
        left = sum(free.get(name, 0.0) for name in claim.bundle)
        return (not mine, not beside, wasted, left, node)

    def _reserved(self, claim: Claim, node: str) -> dict[str, float]:
        """Return what other roles hold on a node and have not been given again yet."""
        kept: dict[str, float] = {}
        for other in self._claims:
            if other.name == claim.name:
                continue
            more = max(0, other.held.get(node, 0) - self.share[other.name].get(node, 0))
            for name, amount in other.bundle.items():
                kept[name] = kept.get(name, 0.0) + more * amount
        return kept


def matches(selector: Mapping[str, str] | None, labels: Mapping[str, str]) -> bool:
    """Tell whether labels satisfy a selector as Ray writes it: `a`, `!a`, `in(a,b)`, `!in(a,b)`."""
    return all(_matches(wanted, labels.get(name)) for name, wanted in (selector or {}).items())


def _matches(wanted: str, label: str | None) -> bool:
    negated, rest = wanted.startswith("!"), wanted.removeprefix("!")
    several = re.fullmatch(r"in\((.*)\)", rest)
    values = [one.strip() for one in several[1].split(",")] if several else [rest]
    return (label not in values) if negated else (label in values)
