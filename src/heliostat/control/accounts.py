"""The cluster's accounts: node time, added up in memory and written to the journal at times."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from heliostat.control.usage import usage
from heliostat.model.instance import Instance
from heliostat.model.node_type import Policy
from heliostat.ports.journal import Journal, UsageRow, added_up


class Accounts:
    """A crash loses what was not written yet: at most `every_s` seconds of it."""

    def __init__(self, journal: Journal, *, every_s: float) -> None:
        self._journal = journal
        self._every_s = every_s
        self._rows: list[UsageRow] = []
        self._until_s: float | None = None
        self._written_s = float("-inf")

    def add(
        self,
        instances: Sequence[Instance],
        *,
        policy: Policy,
        prices: Mapping[str, float],
        wall_s: float,
        monotonic_s: float,
    ) -> None:
        """Count what ran since the last call; `wall_s` is Unix time, `prices` are in $/h by node type."""
        if self._until_s is not None:
            seconds = monotonic_s - self._until_s
            self._rows += usage(instances, policy=policy, prices=prices, seconds=seconds, wall_s=wall_s)
        self._until_s = monotonic_s
        if self._rows and monotonic_s - self._written_s >= self._every_s:
            self._written_s = monotonic_s
            self.flush()

    def unwritten(self) -> Sequence[UsageRow]:
        return added_up(self._rows)

    def flush(self) -> None:
        if self._rows:
            self._journal.add_usage(added_up(self._rows))
            self._rows = []
