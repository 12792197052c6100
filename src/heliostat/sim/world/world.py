"""The whole world of a run: Ray, its work, the backends. It outlives every controller."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from heliostat.ports.cluster import Cluster
from heliostat.ports.provider import ClusterIdentity, Provider
from heliostat.sim.clock import Dates
from heliostat.sim.dice import Dice
from heliostat.sim.loop import VirtualLoop
from heliostat.sim.scenario import Scenario
from heliostat.sim.trace import Trace
from heliostat.sim.world.agenda import LoopAgenda
from heliostat.sim.world.backend import Ground
from heliostat.sim.world.batch import BatchBackend
from heliostat.sim.world.batch_provider import BatchProvider
from heliostat.sim.world.cloud import CloudBackend
from heliostat.sim.world.cloud_provider import CloudProvider
from heliostat.sim.world.ends import Cause
from heliostat.sim.world.link import Link
from heliostat.sim.world.machine import Machine, Phase
from heliostat.sim.world.ray import RaySim, SimCluster
from heliostat.sim.world.ray.node import Member
from heliostat.sim.world.work import Ledger, Work
from heliostat.sim.world.workload import Workload

HEALTH_S = (10.0, 25.0)
"""When the GCS gives up a node that it hears nothing from (its health checks)."""


class World:
    """The truth. `changes` grows with everything that happens in it, so that checks know when to look."""

    def __init__(self, scenario: Scenario, *, loop: VirtualLoop, dice: Dice, trace: Trace) -> None:
        self.scenario = scenario
        self.changes = 0
        self._trace = trace
        self._dice = dice
        self._agenda = LoopAgenda(loop)
        head = scenario.spec.head_type
        self.ray = RaySim(
            self._agenda,
            dice,
            scenario.ray,
            head=Member("", head.name, head.resources, head.labels),
            ledger=Ledger(self._work_changed),
            say=self._say,
        )
        self.workload = Workload(scenario.workload, agenda=self._agenda, ray=self.ray, dice=dice)
        ground = Ground(self._agenda, self.ray, dice, self._say)
        self.backends: Mapping[str, BatchBackend | CloudBackend] = {
            one.name: BatchBackend(one, ground) if one.kind == "batch" else CloudBackend(one, ground)
            for one in scenario.backends
        }
        self._stops: dict[tuple[str, str], set[str]] = {}

    def begin(self) -> None:
        """Let strangers' machines and the backends' weather be there, and work arrive."""
        for backend in self.backends.values():
            backend.open()
        self.workload.begin()

    def calm(self) -> None:
        """Let nothing go wrong by itself from now on, and no work arrive."""
        for backend in self.backends.values():
            backend.calm()
        self.workload.end()

    def now_s(self) -> float:
        return self._agenda.now_s()

    def machines(self) -> Sequence[Machine]:
        """Return all machines that ever were asked for here, and strangers'."""
        return [one for each in self.backends.values() for one in (*each.strangers, *each.machines)]

    def living(self) -> list[Machine]:
        """Return what was asked for here and is not over yet."""
        return [one for each in self.backends.values() for one in each.living.values()]

    def running(self) -> list[Machine]:
        """Return the machines whose Ray node is up."""
        return [one for one in self.living() if one.phase is Phase.UP]

    def hush(self, machine: Machine) -> None:
        """Cut a machine off from Ray. If it stays so Ray gives its node up, and it ends by itself."""
        if machine.node_id:
            notice_s = self._dice.stream("health").uniform(*HEALTH_S)
            self.ray.silence(machine.node_id, Cause.DIED, notice_s=notice_s)

    def wake(self, machine: Machine) -> None:
        """Let a machine be heard again, unless nothing runs on it any more."""
        if machine.node_id and self.backends[machine.backend].runs_on(machine):
            self.ray.wake(machine.node_id)

    # -- clients ------------------------------------------------------------------------

    def provider(
        self,
        backend: str,
        identity: ClusterIdentity,
        *,
        link: Link | None = None,
        now_s: Callable[[], float] | None = None,
        looks: bool = True,
    ) -> Provider:
        """Return a fresh client of a backend; without `looks` one that only repeats what was sent.

        `now_s` is the controller's clock, None: the right one.
        """
        truth = self.backends[backend]
        dates = Dates(self._agenda.now_s, now_s)
        way = link or Link(self._dice.stream(f"calls {backend}"), truth.scenario.call_s)
        if isinstance(truth, CloudBackend):
            return CloudProvider(truth, identity, way, dates=dates)
        stops = self._stops.setdefault((backend, identity.cluster_uid), set())
        return BatchProvider(truth, identity, way, stops=stops, dates=dates, looks=looks)

    def cluster(self, identity: ClusterIdentity, *, session: str | None = None) -> Cluster:
        """Return a fresh link to Ray, for a controller that knows this session (None: it learns it)."""
        chance = self._dice.stream("calls ray")
        return SimCluster(self.ray, chance, cluster_uid=identity.cluster_uid, session=session)

    # -- what happens -------------------------------------------------------------------

    def _say(self, what: str, *words: object) -> None:
        self.changes += 1
        self._trace.add(what, *words)

    def _work_changed(self, what: str, work: Work) -> None:
        self._say("work", work, what, work.instance_id)
