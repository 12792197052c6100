"""Rule 1: what a controller wrote down and died before it asked for is asked for by the next one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from heliostat.control.unanswered import AGAIN_AT_MOST
from heliostat.model.instance import InstanceIntent, Intent
from heliostat.sim.checks.view import View
from heliostat.sim.witness import lies_of

AGAIN_S = 10.0
"""The head's greeting, the first listing, a round and a call. What is not asked for so soon would be given up
as lost, after `LOST_AFTER_S`."""


class AskedAgain:
    """A launch that no backend ever got, and to which nobody heard an answer, is soon asked for again.

    Only time counts in which nothing stood between the new controller, Ray and the backend. Left out are
    those of which a member was given up, or whose type the file has changed since.
    """

    name = "again"

    def __init__(self, view: View) -> None:
        self._view = view

    def look(self) -> Iterator[str]:
        view, witness = self._view, self._view.witness
        if not witness.inherited or witness.paused_s is not None:
            return
        if view.controller is None or view.controller.going_down is not None:
            return
        for launch_id, members in witness.inherited.items():
            backend = members[0].backend
            waited_s = view.lasted_s(witness.began_s, backend, lies_of(backend))
            # An earlier controller's request may have arrived late.
            arrived = launch_id in witness.launches
            if waited_s > AGAIN_S and not arrived and self._is_due(members):
                yield f"{launch_id} was written down and never asked for, and is not for {waited_s:.0f} s"

    def _is_due(self, members: Sequence[InstanceIntent]) -> bool:
        witness, first = self._view.witness, members[0]
        node_type = self._view.policy.node_type(first.node_type)
        same = node_type is not None and node_type.shape_id == first.shape_id
        tried = witness.agains[first.launch_id] >= AGAIN_AT_MOST
        # One that was given up may have been forgotten since, and be no member any more.
        whole = not any(one.startswith(f"{first.launch_id}.") for one in witness.releases)
        return same and whole and not tried and all(map(self._is_wanted, members))

    def _is_wanted(self, one: InstanceIntent) -> bool:
        found = self._view.witness.intents.get(one.instance_id)
        return found is not None and found.intent is Intent.WANTED
