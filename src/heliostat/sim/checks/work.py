"""Rules 3 and 4: work is not killed to save money, and is told when a lease ends."""

from __future__ import annotations

from collections.abc import Iterator

from heliostat.model.instance import DrainReason
from heliostat.model.plan import Why
from heliostat.planner.limits import LEASE_NOTICE_S
from heliostat.sim.checks.view import View
from heliostat.sim.world.machine import Machine

RACE_S = 10.0
"""Who joined so shortly before the release was written may have been unknown to whoever wrote it: a round,
a listing, a report of Ray's and the slowest of its answers lie between."""

TOLD_S = 15.0
"""So long after the time at which work is to be told it has been told."""


class Gentle:
    """Every terminate of a Ray node follows an accepted drain; none hits work, but for a lease's end."""

    name = "gentle"

    def __init__(self, view: View) -> None:
        self._view = view
        self._breaches: list[str] = []
        view.witness.on_terminate = self._terminated

    def look(self) -> Iterator[str]:
        breaches, self._breaches = self._breaches, []
        yield from breaches

    def _terminated(self, backend: str, instance_id: str) -> None:
        view = self._view
        release = view.witness.releases.get(instance_id)
        if release is not None and self._is_asked_for(instance_id, release.why):
            return
        # What nobody wrote is no race: it is judged however new the node is.
        before_s = view.now_s if release is None else release.at_s - RACE_S
        why, text = ("no release", "nothing is written") if release is None else (release.why, release.text)
        for one in view.world.living():
            # What has a cause ends already: preempted, reclaimed, dead. To end it once more is no harm.
            its = one.instance_id == instance_id and one.backend == backend and one.cause is None
            if its and view.is_member(one) and (one.up_s or 0.0) < before_s:
                self._judge(one, why, text)

    def _is_asked_for(self, instance_id: str, why: str) -> bool:
        """Say whether a person asked that it ends whatever runs there: by `down`, or by a time of its own."""
        timed = why == Why.REMOVED_BY_HAND.value and instance_id in self._view.witness.timed
        return timed or why == Why.DOWN.value

    def _judge(self, machine: Machine, why: str, text: str) -> None:
        view = self._view
        drains = [one for one in view.witness.drains.get(machine.node_id, ()) if one.accepted]
        node = view.world.ray.node(machine.node_id)
        assert node is not None
        told = node.draining is not None and node.draining.reason is DrainReason.PREEMPTION
        if view.is_busy(machine) and not (why == Why.LEASE_ENDS.value and told):
            self._breaches.append(f"{machine} is terminated while it works ({why}: {text})")
        elif not drains and not told and node.draining is None and not node.silent:
            self._breaches.append(f"{machine} is terminated without a drain ({why}: {text})")


class Told:
    """A busy node that is not cut off hears of its lease's end `notice_s` ahead, or once a market's notice is
    listed."""

    name = "told"

    def __init__(self, view: View) -> None:
        self._view = view
        self._backends = {one.name: one for one in view.scenario.backends}
        self._busy_since_s: dict[str, float] = {}

    def look(self) -> Iterator[str]:
        view = self._view
        for one in view.ours:
            node = view.world.ray.node(one.node_id)
            # What is cut off can't be told: Ray refuses, and is asked again once it may be heard.
            if node is None or node.silent or one.expires_s is None or one.cause is not None or node.is_idle:
                self._busy_since_s.pop(one.node_id, None)
                continue
            busy_since_s = self._busy_since_s.setdefault(one.node_id, view.now_s)
            due_s = max(self._due_s(one), busy_since_s) + TOLD_S
            troubled = view.witness.untroubled_s(view.now_s, one.backend, "ray", "controller") < TOLD_S
            if view.now_s < due_s or troubled or not view.world.ray.alive:
                continue
            if node.draining is None:
                yield f"{one} works, its lease ends in {one.expires_s - view.now_s:.0f} s, and nobody told it"

    def _heard_s(self, machine: Machine) -> float:
        """Return since when the controller takes it for up. That is later than it was up where the
        controller was paused then, or lost its journal since: half a lease is half of what is left then."""
        controller = self._view.controller
        if controller is None:
            return self._view.now_s
        now_s = controller.ports.clock.now_s()
        joined_s = controller.memory.history.joined_at.get(machine.instance_id, now_s)
        return self._view.now_s - (now_s - joined_s)

    def _due_s(self, machine: Machine) -> float:
        view, backend = self._view, self._backends[machine.backend]
        assert machine.expires_s is not None
        if backend.lease_s is None:
            known_s = view.witness.known_s(
                machine.backend, machine.expires_s - backend.reclaim_s + backend.lag_s
            )
            half_s = (machine.expires_s - max(machine.up_s or 0.0, self._heard_s(machine))) / 2
            return max(known_s, machine.expires_s - min(LEASE_NOTICE_S, half_s))
        # As much as a batch system gives (a tenth of the lease), and less where the scenario says so.
        notice_s = LEASE_NOTICE_S if backend.notice_s is None else backend.notice_s
        return machine.expires_s - min(notice_s, backend.lease_s * 0.1)
