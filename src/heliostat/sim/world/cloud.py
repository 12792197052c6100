"""A cloud: machines after a boot delay, a stock that runs out, a quota, and a market that takes back."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from heliostat.model.instance import BackendState, LaunchRequest
from heliostat.ports.errors import InsufficientCapacity, InvalidRequest, ProviderError, QuotaExceeded
from heliostat.ports.provider import ClusterIdentity
from heliostat.sim.scenario import BackendScenario
from heliostat.sim.world.backend import Backend, Ground
from heliostat.sim.world.ends import Cause
from heliostat.sim.world.machine import Machine, machine_for

LARGEST_CPUS = 1024
"""No machine has more."""

STOP_KILL_S = 45.0
"""From terminate, which is a TERM to the bootstrap, to the end for good."""

PROVISION_PART = 0.5
"""Which part of the start the machine takes; the bootstrap takes the rest."""

WELL = frozenset({Cause.RELEASED, Cause.DRAINED, Cause.ORPHANED, Cause.PREEMPTED})
"""Ends that are no failures of the machine."""


@dataclass(frozen=True)
class Look:
    """What the cloud's listing says of a machine from `at_s` on; `state` None: no longer anything."""

    at_s: float
    state: BackendState | None
    detail: str | None = None
    expires_s: float | None = None


class CloudBackend(Backend):
    """See the module. Idempotent by launch id: a member that was ever made is not made again."""

    def __init__(self, scenario: BackendScenario, ground: Ground) -> None:
        super().__init__(scenario, ground)
        self._made_for: dict[tuple[str, str], Machine] = {}
        self._looks: dict[str, tuple[Machine, list[Look]]] = {}
        self._eventual = ground.dice.stream(f"listing {scenario.name}")

    def open(self) -> None:
        super().open()
        for machine in self.strangers:
            self.look(machine, BackendState.RUNNING)

    # -- what users ask ---------------------------------------------------------------

    def run(self, request: LaunchRequest, identity: ClusterIdentity) -> dict[str, ProviderError]:
        """Make the members that were never made; return those that can't be: all of them if `together`."""
        if request.node_type.resources.units().get("CPU", 0) > LARGEST_CPUS:
            raise InvalidRequest("no such machine type")
        keys = [(identity.cluster_uid, one) for one in request.instance_ids]
        missing = [index for index, key in enumerate(keys) if key not in self._made_for]
        room = self.room(identity.owner)
        if request.together and len(missing) > room:
            room = 0
        for index in missing[:room]:
            native_id, now_s = self.native_id(), self.agenda.now_s()
            machine = machine_for(request, index, identity, native_id=native_id, now_s=now_s)
            self._made_for[keys[index]] = machine
            self.add(machine)
            self.look(machine, BackendState.STARTING)
            boot_s = self.chance.uniform(*self.scenario.boot_s)
            self.agenda.after(boot_s * PROVISION_PART, self._provisioned, machine, boot_s)
        error = self.refusal(identity.owner)
        return {request.instance_ids[index]: error for index in missing[room:]}

    def room(self, owner: str) -> int:
        """Return how many more machines this owner could have now."""
        stock = 0 if self.is_shut else self.scenario.machines - len(self.living)
        most = self.scenario.submitted_most
        return max(0, stock if most is None else min(stock, most - self._had_by(owner)))

    def refusal(self, owner: str) -> ProviderError:
        """Return the words for what there is no room for."""
        most = self.scenario.submitted_most
        if most is not None and self._had_by(owner) >= most:
            return QuotaExceeded(f"{self.name}: your quota is {most} machines", retry_after_s=10.0)
        return InsufficientCapacity(f"{self.name} has no machine left")

    def terminate(self, native_ids: Iterable[str], by: ClusterIdentity) -> None:
        """End machines: the bootstrap hears TERM, and is cut off when it takes too long."""
        for native_id in native_ids:
            known = self._looks.get(native_id)
            if known is None or not self.may_end(known[0], by):
                continue
            machine = known[0]
            if machine.is_over:
                self.look(machine, None)
                continue
            self.look(machine, BackendState.STOPPING)
            bootstrap = self.bootstraps.get(native_id)
            if bootstrap is None:
                machine.cause = machine.cause or Cause.RELEASED
                self.ended(machine, "")
            else:
                bootstrap.term(Cause.RELEASED)
                self.agenda.after(STOP_KILL_S, self._kill, machine, Cause.RELEASED)

    def _had_by(self, owner: str) -> int:
        return sum(one.identity.owner == owner for one in self.living.values())

    def listed(self) -> list[tuple[Machine, Look]]:
        """Return machines, whoever's, as a listing shows them: some late by up to `lag_s`."""
        now_s, lag_s, forgets_s = self.agenda.now_s(), self.scenario.lag_s, self.scenario.forgets_s
        found = []
        for native_id, (machine, looks) in list(self._looks.items()):
            keeps_s = lag_s if looks[-1].state is None else forgets_s
            if machine.over_s is not None and now_s > looks[-1].at_s + keeps_s:
                del self._looks[native_id]
                continue
            seen_s = now_s - self._eventual.uniform(0.0, lag_s)
            last = next((one for one in reversed(looks) if one.at_s <= seen_s), None)
            if last is not None and last.state is not None:
                found.append((machine, last))
        return found

    # -- machines -----------------------------------------------------------------------

    def look(self, machine: Machine, state: BackendState | None, detail: str | None = None) -> None:
        """Let listings say this of a machine from now on."""
        look = Look(self.agenda.now_s(), state, detail, machine.expires_s)
        self._looks.setdefault(machine.native_id, (machine, []))[1].append(look)

    def _provisioned(self, machine: Machine, boot_s: float) -> None:
        if machine.cause is None:
            rest_s = boot_s * (1 - PROVISION_PART)
            self.boot(machine, (rest_s, rest_s))
            self.look(machine, BackendState.RUNNING)

    def over(self, machine: Machine) -> None:
        super().over(machine)
        if machine.released_s is not None:
            self.look(machine, None)
        elif machine.cause in WELL:
            self.look(machine, BackendState.ENDED, machine.detail or machine.cause.value)
        else:
            self.look(machine, BackendState.FAILED, machine.detail or "failed")

    def _kill(self, machine: Machine, cause: Cause) -> None:
        bootstrap = self.bootstraps.get(machine.native_id)
        if bootstrap is not None:
            bootstrap.kill(cause, notice_s=self.chance.uniform(0.5, 3.0))

    # -- the weather ----------------------------------------------------------------------

    def opened(self) -> None:
        """Nothing has waited here: who asked meanwhile was refused."""

    def preempt(self, machine: Machine) -> None:
        """Give notice that the market takes a machine back, and then take it."""
        if machine.expires_s is None and machine.cause is None:
            machine.expires_s = self.agenda.now_s() + self.scenario.reclaim_s
            self.ground.say(self.name, "reclaims", machine.native_id, machine.instance_id)
            state = BackendState.RUNNING if machine.released_s is None else BackendState.STOPPING
            self.look(machine, state)
            self.agenda.after(self.scenario.reclaim_s, self._kill, machine, Cause.PREEMPTED)
