"""What Ray waits for, grouped by shape as Ray reports it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

from heliostat.model.resources import Resources


class LabelOperator(Enum):
    IN = "in"
    NOT_IN = "not in"


@dataclass(frozen=True)
class LabelConstraint:
    """One condition on a node's labels. `NOT_IN` also holds where the key is absent, as in Ray."""

    key: str
    operator: LabelOperator
    values: tuple[str, ...]

    def holds(self, labels: Mapping[str, str]) -> bool:
        inside = labels.get(self.key) in self.values
        return inside if self.operator is LabelOperator.IN else not inside

    def __str__(self) -> str:
        return f"{self.key} {self.operator.value} ({', '.join(self.values)})"


LabelSelector = tuple[LabelConstraint, ...]
"""Conditions that must all hold."""


@dataclass(frozen=True)
class Bundle:
    """Resources that one node must hold at once, and which nodes may hold them.

    `selectors` are tried in order: the first is preferred, later ones are fallbacks;
    none means any node. Bundles of one gang that share `anti_affinity` must be on
    nodes of their own (Ray's STRICT_SPREAD).
    """

    resources: Resources
    selectors: tuple[LabelSelector, ...] = ()
    anti_affinity: str | None = None

    def allows(self, labels: Mapping[str, str]) -> bool:
        """Say whether any selector (preferred or fallback) accepts a node with `labels`."""
        return not self.selectors or any(
            all(constraint.holds(labels) for constraint in selector) for selector in self.selectors
        )

    def __str__(self) -> str:
        if not self.selectors:
            return str(self.resources)
        ways = " or ".join(" and ".join(map(str, selector)) or "anywhere" for selector in self.selectors)
        return f"{self.resources} where {ways}"


@dataclass(frozen=True)
class Demand:
    """`count` equal bundles, each of which may go to a node of its own."""

    bundle: Bundle
    count: int

    def __str__(self) -> str:
        return f"{self.count} × {self.bundle}"


class GangStrategy(Enum):
    PACK = "PACK"
    SPREAD = "SPREAD"
    STRICT_PACK = "STRICT_PACK"
    STRICT_SPREAD = "STRICT_SPREAD"


@dataclass(frozen=True)
class Gang:
    """Bundles that must be placed all or none: a placement group that Ray has not placed.

    `demands` groups equal bundles. `gang_id` is the placement group's hex id.
    """

    gang_id: str
    strategy: GangStrategy
    demands: tuple[Demand, ...]

    @property
    def mark(self) -> str:
        """Return the label that Ray puts on a node while a part of the group is there."""
        return f"_PG_{self.gang_id}"

    def __str__(self) -> str:
        return f"placement group {self.gang_id[:8]} ({self.strategy.value}): " + ", ".join(
            map(str, self.demands)
        )


@dataclass(frozen=True)
class Constraint:
    """What the last `request_resources()` asks to keep available, against *total* resources."""

    demands: tuple[Demand, ...]
