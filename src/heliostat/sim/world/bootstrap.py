"""What runs on a machine of ours: the bootstrap (docs/bootstrap.md) and the raylet, as far as they matter.

It joins only its own cluster and session, only once for each instance id; announces its lease's end;
drains on TERM for up to `GRACE_S`; ends when Ray has let its node go, and when nobody is heard for long.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from heliostat.model.instance import DrainReason
from heliostat.sim.dice import Stream
from heliostat.sim.world.agenda import Agenda
from heliostat.sim.world.ends import Cause
from heliostat.sim.world.machine import Machine, Phase
from heliostat.sim.world.ray.node import Member
from heliostat.sim.world.ray.sim import RaySim

GRACE_S = 30.0
REACH_S = 60.0
REACH_AGAIN_S = 1.0
ORPHAN_S = 300.0
ORPHAN_AGAIN_S = 5.0
WARNING_S = 120.0
FAREWELL_S = 1.0
CHECKED_PART = 0.4
"""Which part of the start goes by until the cluster is looked at and the id is claimed."""

NOTICED_S = (0.5, 3.0)
"""When the GCS notices a raylet that was killed on a machine that lives."""

Done = Callable[[Machine, str], None]
"""Called once when a machine's processes have ended; the text is "" for an end as planned."""


@dataclass(frozen=True)
class Place:
    """Where a bootstrap runs: `dead` types start and never join."""

    agenda: Agenda
    ray: RaySim
    chance: Stream
    boot_s: tuple[float, float]
    dead: frozenset[str] = frozenset()


class Bootstrap:
    """The processes on one machine. Its backend starts it, sends it TERM, kills it, and hears of its end."""

    def __init__(self, machine: Machine, place: Place, done: Done) -> None:
        self.machine = machine
        self._place = place
        self._ray, self._agenda = place.ray, place.agenda
        self._done = done
        self._began_s = 0.0
        self._name = ""
        self._ended = self._stopping = False

    def start(self) -> None:
        """Begin; the machine has just started."""
        machine, now_s = self.machine, self._agenda.now_s()
        machine.phase, machine.started_s = Phase.BOOTING, now_s
        self._began_s, self._name = now_s, f"{machine.native_id} of {now_s}"
        boot_s = self._place.chance.uniform(*self._place.boot_s)
        if machine.expires_s is not None:
            self._after(machine.expires_s - now_s, self._lease_over)
        if machine.node_type not in self._place.dead:
            self._after(boot_s * CHECKED_PART, self._check, boot_s * (1 - CHECKED_PART))
        elif self._place.chance.random() < 0.5:
            self._after(boot_s, self.end, Cause.EXITED, "exit code 14: ray start ended")
        # The other half of what is broken hangs.

    # -- the start ------------------------------------------------------------------

    def _check(self, ray_s: float) -> None:
        """Look who answers, and claim the id; wait for a head that does not answer."""
        if not self._ray.alive:
            if self._agenda.now_s() - self._began_s > REACH_S:
                self.end(Cause.HEAD, "exit code 15: no head answers")
            else:
                self._after(REACH_AGAIN_S, self._check, ray_s)
            return
        if not self._is_ours():
            self.end(Cause.STRANGER, "exit code 10: another cluster or session answers")
        elif not self._ray.claim(self.machine.instance_id, self._name):
            self.end(Cause.TWIN, f"exit code 11: instance {self.machine.instance_id} has joined already")
        else:
            self._after(ray_s, self._join)

    def _is_ours(self) -> bool:
        start, session = self.machine.start, self.machine.start.get("session_name")
        ours = self._ray.kv.get("cluster_uid") == start.get("cluster_uid")
        return ours and (not session or session == self._ray.session)

    def _join(self) -> None:
        machine = self.machine
        if not self._ray.alive:
            self.end(Cause.EXITED, "exit code 14: ray start ended")
            return
        member = Member(
            machine.instance_id, machine.node_type, machine.resources, machine.labels, self._node_gone
        )
        machine.phase, machine.up_s = Phase.UP, self._agenda.now_s()
        machine.node_id = self._ray.join(member)
        if machine.expires_s is not None:
            self._after(max(0.0, machine.expires_s - self._agenda.now_s() - self._warning_s()), self.warn)
        self._after(self._orphan_s(), self._look_for_controller)

    # -- while it runs ----------------------------------------------------------------

    def warn(self) -> None:
        """Tell Ray that the lease ends: an idle node leaves now, a busy one is told its deadline."""
        machine = self.machine
        if self._ray.alive and not self._ray.drain(machine.node_id, DrainReason.IDLE, None).accepted:
            self._ray.drain(machine.node_id, DrainReason.PREEMPTION, machine.expires_s)

    def _warning_s(self) -> float:
        return self._number("lease_warning_s", WARNING_S)

    def _orphan_s(self) -> float:
        return self._number("orphan_timeout_s", ORPHAN_S)

    def _number(self, key: str, default: float) -> float:
        found = self.machine.start.get(key, default)
        assert isinstance(found, int | float), f"{key} of the start document is {found!r}"
        return float(found)

    def _look_for_controller(self) -> None:
        """Ask to be let go where no controller has been heard for long; Ray refuses while there is work."""
        heard_s = max(self._ray.beat_s, self.machine.up_s or 0.0)
        left_s = heard_s + self._orphan_s() - self._agenda.now_s()
        if left_s > 0:
            self._after(left_s, self._look_for_controller)
            return
        if self._ray.alive and self._ray.drain(self.machine.node_id, DrainReason.IDLE, None).accepted:
            self._blame(Cause.ORPHANED)
        self._after(ORPHAN_AGAIN_S, self._look_for_controller)

    def _node_gone(self, cause: Cause) -> None:
        """Hear that Ray has let the node go, or given it up: everything ends within a moment."""
        if not (self._stopping or self._ended):
            self._stopping = True
            self.machine.phase = Phase.STOPPING
            text = "" if cause is Cause.DRAINED else "exit code 18: the raylet has gone"
            self._after(self._place.chance.uniform(0.1, FAREWELL_S), self.end, cause, text)

    # -- the end --------------------------------------------------------------------

    def term(self, cause: Cause) -> None:
        """Be told to end, gently. Before Ray runs there is nothing to be gentle with."""
        self._blame(cause)
        if self._stopping or self._ended:
            return
        self._stopping = True
        machine = self.machine
        if machine.phase is not Phase.UP:
            machine.phase = Phase.STOPPING
            self._after(0.1, self.end, cause, "")
            return
        machine.phase = Phase.STOPPING
        end_s = self._agenda.now_s() + GRACE_S
        told = self._ray.alive and self._ray.drain(machine.node_id, DrainReason.PREEMPTION, end_s).accepted
        # A raylet that goes earlier, idle, ends it earlier.
        self._after(GRACE_S if told else FAREWELL_S, self.end, cause, "")
        self._wait_for_node(cause)

    def _wait_for_node(self, cause: Cause) -> None:
        if self._ray.node(self.machine.node_id) is None:
            self.end(cause, "")
        else:
            self._after(FAREWELL_S, self._wait_for_node, cause)

    def _lease_over(self) -> None:
        self._blame(Cause.LEASE)
        self.kill(Cause.LEASE, notice_s=self._place.chance.uniform(*NOTICED_S))

    def end(self, cause: Cause, text: str) -> None:
        """Let the processes end as they mean to: the raylet takes its leave of the head."""
        if not self._ended:
            self._blame(cause)
            if self.machine.node_id:
                self._ray.leave(self.machine.node_id, self.machine.cause or cause)
            self._over(text)

    def kill(self, cause: Cause, *, notice_s: float, text: str = "") -> None:
        """Let everything stop this instant; Ray notices `notice_s` later."""
        if not self._ended:
            self._blame(cause)
            if self.machine.node_id:
                self._ray.silence(self.machine.node_id, self.machine.cause or cause, notice_s=notice_s)
            self._over(text)

    @property
    def has_ended(self) -> bool:
        return self._ended

    def _over(self, text: str) -> None:
        self._ended = True
        self._done(self.machine, text)

    def _blame(self, cause: Cause) -> None:
        if self.machine.cause is None:
            self.machine.cause = cause

    def _after(self, delay_s: float, do: Callable[..., object], *args: object) -> None:
        def run() -> None:
            if not self._ended:
                do(*args)

        self._agenda.after(delay_s, run)
