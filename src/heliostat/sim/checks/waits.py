"""Rule 6: who refused is let wait, and who waits behind the first few of its type is let go in the end."""

from __future__ import annotations

from collections.abc import Iterator

from heliostat.control.wiring import Timing
from heliostat.model.instance import DrainReason
from heliostat.sim.checks.view import View
from heliostat.sim.witness import Drained
from heliostat.sim.world.batch import BatchBackend
from heliostat.sim.world.machine import Phase

HEARD_S = 5.0
"""By then an answer has been heard and decided with: a slow answer of Ray's may lie between."""

LET_GO_S = 100.0
"""A listing that moves nothing is 60 s old; a call that fails is made again."""

SOONER_S = 4.0
"""Two drains that are asked for `ask_again_s` apart may reach Ray so much nearer to each other."""


class LeftAlone:
    """A type, or a backend, that is to be left alone is not launched before that time is over."""

    name = "alone"

    def __init__(self, view: View) -> None:
        self._view = view
        self._seen = 0
        self._looked = 0
        self._backends = {one.name: one.backend for one in view.policy.node_types}

    def look(self) -> Iterator[str]:
        witness, now_s = self._view.witness, self._view.now_s
        new, self._seen = witness.recorded[self._seen :], len(witness.recorded)
        for one in new if witness.quiet else ():
            for name in (one.node_type, self._backends[one.node_type]) if one.is_launch else ():
                quiet = witness.quiet.get(name)
                since_s = now_s if quiet is None else now_s - quiet.since_s
                if quiet is not None and since_s > HEARD_S and now_s < quiet.until_s:
                    left_s = quiet.until_s - now_s
                    yield f"{name} is to be left alone for {left_s:.1f} s more, and is launched ({one.text})"
        yield from self._drains()

    def _drains(self) -> Iterator[str]:
        witness = self._view.witness
        new, self._looked = witness.answered[self._looked :], len(witness.answered)
        for node_id, last in new:
            before = next((one for one in reversed(witness.drains[node_id]) if one.at_s < last.at_s), last)
            if self._is_too_soon(before, last):
                waited_s = last.at_s - before.at_s
                yield f"Ray refused to drain {node_id[:8]}, and was asked again after {waited_s:.1f} s"

    def _is_too_soon(self, before: Drained, last: Drained) -> bool:
        same = before is not last and before.reason is last.reason is DrainReason.IDLE and not before.accepted
        waited_s = last.at_s - before.at_s
        knows = self._view.witness.untroubled_s(last.at_s, "controller") > waited_s
        return same and knows and waited_s < Timing().ask_again_s - SOONER_S


class LetGo:
    """What waits behind the first few of its type is let go when one of these has come up."""

    name = "freed"

    def __init__(self, view: View) -> None:
        self._view = view
        batch = [one for one in view.world.backends.values() if isinstance(one, BatchBackend)]
        self._batch = [one for one in batch if one.scenario.throttles]
        self._held_since_s: dict[str, float] = {}

    def look(self) -> Iterator[str]:
        view = self._view
        up = {(one.node_type, one.shape_id) for one in view.ours if self._batch and view.is_member(one)}
        ours = {
            one.native_id: one
            for one in view.ours
            if one.phase is Phase.QUEUED and (one.node_type, one.shape_id) in up
        }
        held = [
            ours[one.native_id]
            for backend in self._batch
            for job in (backend.jobs.values() if ours else ())
            for one in job.members
            if job.is_throttled and one.native_id in ours and one.instance_id not in view.witness.releases
        ]
        since_s = self._held_since_s
        self._held_since_s = {str(one): since_s.get(str(one), view.now_s) for one in held}
        for one in held:
            held_s = view.lasted_s(self._held_since_s[str(one)], one.backend)
            if held_s > LET_GO_S:
                yield f"{one} is held back for {held_s:.0f} s, though {one.node_type} has come up"
