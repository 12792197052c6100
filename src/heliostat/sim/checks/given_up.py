"""What is over, hangs, or is needed by nothing is given up; and nothing ends by itself that is led."""

from __future__ import annotations

from collections.abc import Iterator

from heliostat.model.instance import Intent
from heliostat.planner.limits import LOST_AFTER_S
from heliostat.sim.checks.view import View
from heliostat.sim.witness import lies_of
from heliostat.sim.world.ends import Cause
from heliostat.sim.world.machine import Machine, Phase
from heliostat.sim.world.work import WorkState

LISTED_S = 75.0
"""A backend where nothing moves is listed every 60 s (`Timing.listing_slow_s`); a round and a call follow."""

NEEDLESS_S = 30.0
"""What nothing needs is given back after `VANISHED_S`; a report of Ray's, a round and a call come on top, and
calls that are merged behind a slow one."""

LED_S = 30.0
"""A heartbeat may fail a few times in a row before it counts as not heard."""


class GivenUp:
    """What is wanted and nowhere there any more, or starts for longer than its type may, is released."""

    name = "given"

    def __init__(self, view: View) -> None:
        self._view = view
        self._gone_since_s: dict[str, float] = {}
        self._slow_s = {one.name: LOST_AFTER_S + one.lag_s + 2 * LISTED_S for one in view.scenario.backends}
        self._start_s = {one.name: one.start_timeout_s for one in view.scenario.policy.node_types}

    def look(self) -> Iterator[str]:
        view, since_s = self._view, self._gone_since_s
        there = {one.instance_id for one in view.ours}
        wanted = [one for one in view.witness.intents.values() if one.intent is Intent.WANTED]
        gone = [one for one in wanted if one.instance_id not in there]
        self._gone_since_s = {one.instance_id: since_s.get(one.instance_id, view.now_s) for one in gone}
        for one in gone:
            gone_s = view.lasted_s(self._gone_since_s[one.instance_id], one.backend, lies_of(one.backend))
            if gone_s > self._slow_s[one.backend]:
                yield f"{one.instance_id} is wanted still, and gone for {gone_s:.0f} s"
        yield from self._hanging()

    def _hanging(self) -> Iterator[str]:
        view = self._view
        for one in view.ours:
            if one.phase is not Phase.BOOTING or one.started_s is None or not self._is_wanted(one):
                continue
            if one.instance_id in view.witness.before_loss:
                # Whoever found it again took it for just started.
                continue
            start_s = self._start_s[one.node_type]
            late_s = view.now_s - one.started_s - start_s
            # It counts from the listing that first shows that it starts.
            known_s = view.lasted_s(one.started_s, one.backend, lies_of(one.backend))
            if known_s > start_s + LISTED_S:
                yield f"{one} should have been up {late_s:.0f} s ago (start_timeout_s)"

    def _is_wanted(self, machine: Machine) -> bool:
        found = self._view.witness.intents.get(machine.instance_id)
        return found is not None and found.intent is Intent.WANTED


class Needless:
    """No more is on its way than all work, constraints, floors and people's words could ever use.

    What somebody protects stays, on its way or not. What queues at a type that may be late (`patience_s`)
    stays there while another one is on its way.
    """

    name = "needless"

    def __init__(self, view: View) -> None:
        self._view = view
        self._late = {one.name for one in view.scenario.policy.node_types if one.patience_s > 0}
        self._too_many_since_s: float | None = None

    def look(self) -> Iterator[str]:
        view = self._view
        coming = [one for one in view.ours if self._is_coming(one) and self._is_wanted(one)]
        uses = self._uses() if coming else 0
        if len(coming) <= uses:
            self._too_many_since_s = None
            return
        if self._too_many_since_s is None:
            self._too_many_since_s = view.now_s
        backends = {one.backend for one in coming}
        names = (*sorted(backends), *map(lies_of, sorted(backends)))
        lasted_s = view.lasted_s(self._too_many_since_s, *names)
        if lasted_s > NEEDLESS_S:
            yield f"{len(coming)} are on their way for {lasted_s:.0f} s, and {uses} could be used"

    def _is_coming(self, machine: Machine) -> bool:
        queued = machine.phase is Phase.QUEUED and machine.node_type not in self._late
        return queued or machine.phase is Phase.BOOTING

    def _is_wanted(self, machine: Machine) -> bool:
        found = self._view.witness.intents.get(machine.instance_id)
        protected = machine.instance_id in self._view.witness.protected
        return found is not None and found.intent is Intent.WANTED and not protected

    def _uses(self) -> int:
        """Count all that could use a node of its own: also what runs, since its node may be at its end.

        So does a gang's member that is done while others are not: Ray keeps its place, and looks for
        another one when that node ends.
        """
        ray, policy, added = self._view.world.ray, self._view.policy, self._view.witness.added
        kept = sum(one.count for one in ray.constraint.demands) if ray.constraint else 0
        members = (one for group in ray.scheduler.groups.values() for one in group.members)
        places = sum(one.state is WorkState.DONE for one in members)
        floors = sum(one.min_workers for one in policy.node_types)
        return len(ray.ledger.unfinished) + places + kept + added + floors


class Led:
    """A worker ends for want of a controller only where none was heard for as long as it waits.

    What is released may end in any way.
    """

    name = "led"

    def __init__(self, view: View) -> None:
        self._view = view
        self._seen: set[str] = set()

    def look(self) -> Iterator[str]:
        view = self._view
        for one in view.ours:
            if one.cause is Cause.ORPHANED and str(one) not in self._seen:
                self._seen.add(str(one))
                led_s = view.lasted_s(0.0, "controller")
                released = one.instance_id in view.witness.releases
                if not released and led_s > view.scenario.spec.orphan_timeout_s + LED_S:
                    yield f"{one} ended as an orphan, and its controller is there for {led_s:.0f} s"
