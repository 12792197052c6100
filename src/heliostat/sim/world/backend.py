"""What batch systems and clouds have in common: machines, their ends, the weather, and whose they are."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

from heliostat.model.resources import Resources
from heliostat.ports.provider import ClusterIdentity
from heliostat.sim.dice import Dice
from heliostat.sim.scenario import BackendScenario
from heliostat.sim.world.agenda import Agenda
from heliostat.sim.world.bootstrap import Bootstrap, Place
from heliostat.sim.world.ends import Cause
from heliostat.sim.world.machine import Machine, Phase
from heliostat.sim.world.ray.sim import RaySim

HOUR_S = 3600.0

NOTICED_S = (2.0, 15.0)
"""When the GCS gives up a node whose machine has vanished (its health checks)."""

SAME_NAME = ClusterIdentity("sim", "uid-of-another", "user@head")
SOMEONE_ELSE = ClusterIdentity("other", "uid-of-someone", "someone@else")
"""Whose strangers' machines are: our own user's other cluster with our cluster's name, and another user's."""

Say = Callable[..., None]


@dataclass(frozen=True)
class Ground:
    """What a backend stands on."""

    agenda: Agenda
    ray: RaySim
    dice: Dice
    say: Say = lambda *_: None


@dataclass(frozen=True)
class Trespass:
    """That someone tried to end what is not theirs."""

    at_s: float
    by: ClusterIdentity
    machine: Machine


class Backend(ABC):
    """The truth of one backend. `machines` are all that ever were, `living` those not over yet, by native id.

    `strangers` are other clusters' and other users', which run for ever and take no room. `trespasses` must
    stay empty. `stockouts` counts how often no machine was left. `calm()` ends the weather: preemptions,
    failures, stockouts, other users' new jobs.
    """

    def __init__(self, scenario: BackendScenario, ground: Ground) -> None:
        self.scenario = scenario
        self.name = scenario.name
        self.ground = ground
        self.agenda = ground.agenda
        self.chance = ground.dice.stream(f"backend {scenario.name}")
        self._weather = ground.dice.stream(f"weather {scenario.name}")
        self.machines: list[Machine] = []
        self.strangers: list[Machine] = []
        self.living: dict[str, Machine] = {}
        self.bootstraps: dict[str, Bootstrap] = {}
        self.trespasses: list[Trespass] = []
        self.is_calm = False
        self.stockouts = 0
        self._shut_until_s = 0.0
        self._made = 0

    def open(self) -> None:
        """Begin: strangers' machines run already, and the weather may change."""
        for number in range(self.scenario.strangers):
            self.strangers.append(self._stranger(number))
        self._plan_stockout()

    # -- machines -------------------------------------------------------------------

    def add(self, machine: Machine) -> None:
        """Take a machine on; nothing runs on it yet."""
        self.machines.append(machine)
        self.living[machine.native_id] = machine
        self.ground.say(self.name, "takes", machine.native_id, machine.instance_id, machine.node_type)

    def boot(self, machine: Machine, boot_s: tuple[float, float]) -> None:
        """Start a machine: its bootstrap runs from now on, and the weather may strike."""
        place = Place(self.agenda, self.ground.ray, self.chance, boot_s, self.scenario.dead_types)
        bootstrap = Bootstrap(machine, place, self.ended)
        self.bootstraps[machine.native_id] = bootstrap
        self.ground.say(self.name, "starts", machine.native_id, machine.instance_id)
        bootstrap.start()
        self._strike(machine, self.scenario.preempts_per_h, self.preempt)
        self._strike(machine, self.scenario.dies_per_h, self.die)

    def runs_on(self, machine: Machine) -> bool:
        """Say whether processes of ours live on a machine; what has died may still be listed."""
        bootstrap = self.bootstraps.get(machine.native_id)
        return bootstrap is not None and bootstrap.machine is machine and not bootstrap.has_ended

    def ended(self, machine: Machine, text: str) -> None:
        """Hear that a machine's processes have ended; the backend needs a moment to notice and tidy up."""
        machine.phase, machine.detail = Phase.STOPPING, machine.detail or text
        self.agenda.after(self.chance.uniform(*self.scenario.stop_s), self.over, machine)

    def over(self, machine: Machine) -> None:
        """Let a machine be over: it is given to others."""
        if machine.is_over:
            return
        machine.phase, machine.over_s = Phase.OVER, self.agenda.now_s()
        if self.living.get(machine.native_id) is machine:
            del self.living[machine.native_id]
            self.bootstraps.pop(machine.native_id, None)
        cause = machine.cause.value if machine.cause else ""
        self.ground.say(self.name, "over", machine.native_id, machine.instance_id, cause)

    def may_end(self, machine: Machine, by: ClusterIdentity) -> bool:
        """Say whether it is theirs to end, and note that they asked for it."""
        if machine.identity.cluster_uid != by.cluster_uid:
            self.trespasses.append(Trespass(self.agenda.now_s(), by, machine))
            return False
        if machine.released_s is None:
            machine.released_s = self.agenda.now_s()
            self.ground.say(self.name, "is to end", machine.native_id, machine.instance_id)
        return True

    def native_id(self) -> str:
        self._made += 1
        return f"{self.name}-{self._made}"

    def _stranger(self, number: int) -> Machine:
        """Return what runs for others: a cluster of the same name with launch ids like ours, another user."""
        same = number % 2 == 0
        return Machine(
            backend=self.name,
            native_id=f"{self.name}-foreign-{number}",
            instance_id=f"l{number // 2 + 1}.0" if same else "",
            identity=SAME_NAME if same else SOMEONE_ELSE,
            node_type="cpu",
            shape_id="",
            resources=Resources(),
            asked_s=self.agenda.now_s(),
            started_s=self.agenda.now_s(),
            phase=Phase.UP,
        )

    # -- the weather ------------------------------------------------------------------

    def calm(self) -> None:
        self.is_calm, self._shut_until_s = True, self.agenda.now_s()

    @property
    def is_shut(self) -> bool:
        """Say whether the backend gives no new machine for a while."""
        return self.agenda.now_s() < self._shut_until_s

    def shut(self, seconds: float) -> None:
        """Give no new machine for so long."""
        self.ground.say(self.name, "is shut", f"{seconds:.0f} s")
        self._shut_until_s = max(self._shut_until_s, self.agenda.now_s() + seconds)
        self.agenda.after(seconds, self.opened)

    @abstractmethod
    def opened(self) -> None:
        """Hear that new machines may start again."""

    @abstractmethod
    def preempt(self, machine: Machine) -> None:
        """Take a machine back, as sites and markets do."""

    def die(self, machine: Machine) -> None:
        """Let the hardware of a machine fail, without a word to anyone."""
        bootstrap = self.bootstraps.get(machine.native_id)
        if bootstrap is not None:
            self.ground.say(self.name, "dies", machine.native_id, machine.instance_id)
            notice_s = self._weather.uniform(*NOTICED_S)
            bootstrap.kill(Cause.DIED, notice_s=notice_s, text="the hardware has failed")

    def _strike(self, machine: Machine, per_h: float, do: Callable[[Machine], None]) -> None:
        def strike() -> None:
            if not self.is_calm and self.living.get(machine.native_id) is machine:
                do(machine)

        if per_h > 0:
            self.agenda.after(self._weather.expovariate(per_h / HOUR_S), strike)

    def _plan_stockout(self) -> None:
        def strike() -> None:
            if not self.is_calm:
                self.stockouts += 1
                self.shut(self._weather.uniform(*self.scenario.stockout_s))
                self._plan_stockout()

        if self.scenario.stockouts_per_h > 0:
            self.agenda.after(self._weather.expovariate(self.scenario.stockouts_per_h / HOUR_S), strike)
