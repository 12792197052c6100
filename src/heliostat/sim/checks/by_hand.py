"""What people asked for by hand counts: a pause, a protection, a removal by a time."""

from __future__ import annotations

from collections.abc import Iterator

from heliostat.model.instance import DrainReason, Intent
from heliostat.model.plan import Why
from heliostat.sim.checks.view import View
from heliostat.sim.witness import Drained, Recorded

HEARD_S = 5.0
"""What was decided before a person was answered has been done by then."""

REMOVED_S = 20.0
"""So long after its time a removal is written: a round and Ray's slowest answers lie between."""

VOLUNTARY = frozenset(one.value for one in (Why.IDLE, Why.NOT_NEEDED, Why.OVER_MAX, Why.DRIFT))
"""Why what could stay is released."""


class ByHand:
    """Nothing is launched, nor drained as idle, while deciding is paused; nor drained while it is protected.

    What is to be gone by a time is released then, or when deciding goes on.
    """

    name = "hand"

    def __init__(self, view: View) -> None:
        self._view = view
        self._seen = self._looked = 0

    def look(self) -> Iterator[str]:
        witness = self._view.witness
        new, self._seen = witness.recorded[self._seen :], len(witness.recorded)
        drains, self._looked = witness.answered[self._looked :], len(witness.answered)
        for one in new:
            yield from self._recorded(one)
        for node_id, drain in drains:
            if drain.reason is DrainReason.IDLE and drain.accepted:
                yield from self._drained(node_id, drain)
        yield from self._removals()

    def _recorded(self, one: Recorded) -> Iterator[str]:
        if one.is_launch and self._is_paused(one.at_s):
            yield f"{one.instance_id} is launched, and the cluster is paused ({one.text})"
        if not one.is_launch and one.why in VOLUNTARY and self._is_protected(one.instance_id, one.at_s):
            yield f"{one.instance_id} is protected, and released ({one.text})"

    def _drained(self, node_id: str, drain: Drained) -> Iterator[str]:
        if self._is_paused(drain.at_s):
            yield f"{node_id[:8]} is drained as idle, and the cluster is paused"
        protected = self._view.witness.protected
        names = [one.instance_id for one in self._view.ours if protected and one.node_id == node_id]
        for instance_id in names:
            if self._is_protected(instance_id, drain.at_s):
                yield f"{instance_id} is protected, and drained as idle"

    def _removals(self) -> Iterator[str]:
        view = self._view
        if view.witness.paused_s is not None:
            return
        for instance_id, until_s in view.witness.due_s.items():
            known = view.witness.intents.get(instance_id)
            if known is not None and known.intent is Intent.WANTED and view.now_s > until_s:
                late_s = view.lasted_s(until_s, known.backend)
                if late_s > REMOVED_S:
                    yield f"{instance_id} was to be gone {late_s:.0f} s ago (removed by hand)"

    def _is_paused(self, at_s: float) -> bool:
        since_s = self._view.witness.paused_s
        return since_s is not None and at_s - since_s > HEARD_S

    def _is_protected(self, instance_id: str, at_s: float) -> bool:
        since_s = self._view.witness.protected.get(instance_id)
        return since_s is not None and at_s - since_s > HEARD_S
