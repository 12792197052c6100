"""Rule 8: what is gone for good is forgotten, in the journal and in the head's store."""

from __future__ import annotations

from collections.abc import Iterator

from heliostat.control.wiring import Timing
from heliostat.model.instance import Intent
from heliostat.sim.checks.given_up import LISTED_S
from heliostat.sim.checks.view import View
from heliostat.sim.witness import lies_of

LATE_S = 2 * Timing().message_timeout_s
"""So long a tombstone stays after the first listing that lacks the instance (`control.tombstones`)."""

CLAIM_S = 15.0
"""The head's store is told right after the journal, in the same round; a call of Ray's takes 3 s at most."""


class Forgotten:
    """A released instance that is over leaves the journal, and its claim the head's store with it.

    Only time counts in which nothing stood between the controller, Ray and the backend.
    """

    name = "forgotten"

    def __init__(self, view: View) -> None:
        self._view = view
        self._buried = 0
        self._claims: dict[str, float] = {}
        self._slow_s = {one.name: LATE_S + one.lag_s + 2 * LISTED_S for one in view.scenario.backends}

    def look(self) -> Iterator[str]:
        yield from self._tombstones()
        yield from self._claims_left()

    def _tombstones(self) -> Iterator[str]:
        view = self._view
        old = {
            one.instance_id: view.witness.releases[one.instance_id].at_s
            for one in view.witness.intents.values()
            if one.intent is Intent.RELEASED
            and self._is_written(one.instance_id)
            and view.lasted_s(view.witness.releases[one.instance_id].at_s, one.backend)
            > self._slow_s[one.backend]
        }
        if not old:
            return
        for machine in view.world.machines():
            if machine.instance_id in old:
                over_s = view.now_s if machine.over_s is None else machine.over_s
                old[machine.instance_id] = max(old[machine.instance_id], over_s)
        for instance_id, since_s in old.items():
            backend = view.witness.intents[instance_id].backend
            gone_s = view.lasted_s(since_s, backend, lies_of(backend))
            if gone_s > self._slow_s[backend]:
                yield f"{instance_id} is released and gone for {gone_s:.0f} s, and in the journal still"

    def _is_written(self, instance_id: str) -> bool:
        """Say whether it is in the journal: what a controller only notes, on a full disk, dies with it."""
        witness = self._view.witness
        by_this = witness.releases[instance_id].at_s >= witness.began_s
        return by_this or witness.durable.get(instance_id) is Intent.RELEASED

    def _claims_left(self) -> Iterator[str]:
        """Look at each claim once, when it has to be gone: one that Ray did not hear of may stay."""
        view, buried = self._view, self._view.witness.buried
        new, self._buried = buried[self._buried :], len(buried)
        self._claims.update(dict.fromkeys(new, view.now_s))
        due = [key for key, at_s in self._claims.items() if view.now_s - at_s > CLAIM_S]
        for instance_id in due:
            forgotten_s = view.now_s - self._claims.pop(instance_id)
            heard = view.witness.untroubled_s(view.now_s, "ray", "controller") > forgotten_s
            if heard and f"claim:{instance_id}" in view.world.ray.kv and not self._is_there(instance_id):
                yield f"{instance_id} is forgotten, and claimed in the head's store still"

    def _is_there(self, instance_id: str) -> bool:
        """What starts after all claims its id anew."""
        return any(one.instance_id == instance_id for one in self._view.ours)
