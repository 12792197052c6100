"""What is drained because it could go: not what floors need, and not more at a time than `max_draining`."""

from __future__ import annotations

from collections.abc import Iterator

from heliostat.model.instance import DrainReason, Intent
from heliostat.planner.limits import DRAIN_COUNTS_S
from heliostat.sim.checks.view import View
from heliostat.sim.world.machine import Machine

JUST_S = 15.0
"""What left so shortly before a drain was there for whoever decided it: a round, a report, Ray's answer."""

UNSEEN = 3
"""So many nodes more than there are may be up in the eyes of a controller, which learns of ends later."""


class Drains:
    """Looks at each node of endless time that Ray agreed to let go as idle."""

    name = "drains"

    def __init__(self, view: View) -> None:
        self._view = view
        self._looked = 0
        self._drained_s: dict[str, float] = {}
        leased = {one.name for one in view.scenario.backends if one.lease_s is not None}
        types = view.scenario.policy.node_types
        self._unleased = {one.name for one in types if one.backend not in leased}

    def look(self) -> Iterator[str]:
        answered = self._view.witness.answered
        new, self._looked = answered[self._looked :], len(answered)
        for node_id, drain in new:
            if drain.accepted and drain.reason is DrainReason.IDLE:
                yield from self._judged(node_id, drain.at_s)

    def _judged(self, node_id: str, at_s: float) -> Iterator[str]:
        machine = next((one for one in self._view.world.machines() if one.node_id == node_id), None)
        if machine is None or machine.expires_s is not None or machine.node_type not in self._unleased:
            return
        if machine.instance_id in self._view.witness.removed:
            return
        known = node_id in self._drained_s
        self._drained_s[node_id] = at_s
        if not known:
            yield from self._below_floor(machine, at_s)
            yield from self._too_many(machine, at_s)

    def _below_floor(self, machine: Machine, at_s: float) -> Iterator[str]:
        """What counts is what the controller knows as wanted."""
        view, node_type = self._view, self._view.policy.node_type(machine.node_type)
        assert node_type is not None, "files keep their types"
        if at_s - view.witness.applied_s < JUST_S or machine.shape_id != node_type.shape_id:
            return
        let_go = {one.instance_id for one in view.world.machines() if one.node_id in self._drained_s}
        kept = [
            one
            for one in view.witness.intents.values()
            if one.node_type == machine.node_type and one.instance_id not in let_go
        ]
        just = [
            one
            for one in kept
            if one.intent is not Intent.WANTED and self._is_just_released(one.instance_id, at_s)
        ]
        left = sum(one.intent is Intent.WANTED for one in kept) + len(just)
        if left < node_type.min_workers:
            yield f"{machine} is drained as idle, and leaves {left} of {node_type.min_workers} (min_workers)"

    def _is_just_released(self, instance_id: str, at_s: float) -> bool:
        release = self._view.witness.releases.get(instance_id)
        return release is not None and at_s - release.at_s < JUST_S

    def _too_many(self, machine: Machine, at_s: float) -> Iterator[str]:
        view, before_s = self._view, at_s - DRAIN_COUNTS_S
        others = (one for one in view.ours if one is not machine)
        going = [one for one in others if self._drained_s.get(one.node_id, before_s) > before_s]
        up = len(view.ours) + UNSEEN
        most = min((one.most(up) for one in view.scenario.policy.max_draining), default=len(going) + 1)
        knows = view.witness.untroubled_s(view.now_s, "controller") > DRAIN_COUNTS_S
        if knows and len(going) >= most:
            names = ", ".join(map(str, going))
            yield f"{machine} is drained as idle while {names} go, at most {most} at a time (max_draining)"
