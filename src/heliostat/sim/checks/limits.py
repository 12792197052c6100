"""Rule 2: never more than `max_workers`, per type or in all, nor dearer than the budget."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from heliostat.sim.checks.view import View

SLACK_USD_PER_H = 1e-6


class Limits:
    """Counts everything that a backend has taken on and that is not over, one for each instance id.

    (Two machines of one id are rule 1's.) `max_surge` is the only allowance.
    """

    name = "limits"

    def __init__(self, view: View) -> None:
        self._view = view
        policy = view.scenario.policy
        self._most = {one.name: one.max_workers + policy.max_surge for one in policy.node_types}
        self._prices = {one.name: one.price_usd_per_h for one in policy.node_types}
        self._most_in_all = policy.max_workers + policy.max_surge
        self._most_usd = policy.max_cost_usd_per_h

    def look(self) -> Iterator[str]:
        types = {one.instance_id: one.node_type for one in self._view.ours}
        if len(types) > self._most_in_all:
            yield f"{len(types)} workers, at most {self._most_in_all} (max_workers): {self._named()}"
        for name, count in Counter(types.values()).items():
            if count > self._most[name]:
                yield f"{count} of {name}, at most {self._most[name]} (max_workers): {self._named()}"
        if self._most_usd is not None:
            usd = sum(self._prices[name] for name in types.values())
            if usd > self._most_usd + SLACK_USD_PER_H:
                yield f"{usd:g} $/h, at most {self._most_usd:g} (max_cost_usd_per_h): {self._named()}"

    def _named(self) -> str:
        return ", ".join(f"{one} {one.phase.value}" for one in self._view.ours)
