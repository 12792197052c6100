"""Rule 2: never more than `max_workers`, per type or in all, nor dearer than the budget."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from heliostat.model.plan import Why
from heliostat.sim.checks.view import View
from heliostat.sim.world.machine import Machine

SLACK = 1e-6


class Limits:
    """Counts everything that a backend has taken on and that is not over, one for each instance id.

    (Two machines of one id are rule 1's.) `max_surge` is the only allowance. What was asked for before the
    journal was lost is left out: it may have been unknown to whoever asked for more. So is what `was_hidden`,
    what a late ask brought after its release (it is ended when it is listed, before its tombstone is over),
    and what the duplicate of a refused ask brought. Who takes no answer for a refusal could have known.
    """

    name = "limits"

    def __init__(self, view: View) -> None:
        self._view = view
        self._allowed: dict[str, float] = {}

    def look(self) -> Iterator[str]:
        view, policy, unknown = self._view, self._view.policy, self._view.witness.before_loss
        seen = [one for one in view.ours if one.instance_id not in unknown and not self._was_unknown(one)]
        there = {one.instance_id: one.node_type for one in seen}
        known = there | {one.instance_id: one.node_type for one in view.witness.intents.values()}
        counts, coming = Counter(there.values()), Counter(known.values())
        yield from self._judged("workers", policy.max_workers + policy.max_surge, len(there), len(known))
        for one in policy.node_types:
            most = one.max_workers + policy.max_surge
            yield from self._judged(f"of {one.name}", most, counts[one.name], coming[one.name])
        if policy.max_cost_usd_per_h is None:
            self._allowed.pop("$/h", None)
        else:
            prices = {one.name: one.price_usd_per_h for one in policy.node_types}
            usd, usd_known = (sum(prices.get(name, 0.0) for name in each.values()) for each in (there, known))
            yield from self._judged("$/h", policy.max_cost_usd_per_h, usd, usd_known)

    def _was_unknown(self, machine: Machine) -> bool:
        released = self._view.witness.releases.get(machine.instance_id)
        if released is None:
            return False
        if released.why == Why.FAILED.value:
            came_unseen = machine.instance_id in self._view.witness.denied
        else:
            came_unseen = machine.asked_s >= released.at_s
        return came_unseen or self._view.was_hidden(machine)

    def _judged(self, what: str, most: float, count: float, known: float) -> Iterator[str]:
        """What was there before a limit was lowered may stay until it goes; from then on the limit holds."""
        if known <= most + SLACK:
            self._allowed[what] = most
        allowed = self._allowed[what] = max(most, min(self._allowed.get(what, known), known))
        if count > allowed + SLACK:
            yield f"{count:g} {what}, at most {allowed:g}: {self._named()}"

    def _named(self) -> str:
        return ", ".join(f"{one} {one.phase.value}" for one in self._view.ours)
