"""The head's wrapper: starts a controller on the simulated world, and another one when it has died.

The controller is wired as `heliostat.cli.controller` does it, with the simulation's ports, and is
otherwise the production class, its times included.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from heliostat.control.loop import Controller
from heliostat.control.measures import Measures
from heliostat.control.steady_clock import SteadyClock
from heliostat.control.wiring import Identity, Ports, Timing
from heliostat.model.node_type import ClusterSpec
from heliostat.ports.cluster import Cluster
from heliostat.ports.errors import ClusterError, HeliostatError, StrangerCluster
from heliostat.ports.provider import ClusterIdentity, Provider
from heliostat.sim.clock import SimClock, SimIds
from heliostat.sim.faults import Mischief
from heliostat.sim.journal import Disk
from heliostat.sim.loop import VirtualLoop
from heliostat.sim.membranes import ClusterMembrane, ProviderMembrane, Surroundings
from heliostat.sim.process import Killed, Process
from heliostat.sim.trace import Trace
from heliostat.sim.witness import Witness
from heliostat.sim.written import JournalMembrane

OURS = ClusterIdentity("sim", "uid-of-ours", "user@head")
"""The simulated cluster: what its machines are tagged with."""

RESTART_S = (0.1, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
"""As `cli.wrapper.RESTART_S`: pauses before a dead controller is started again."""

STABLE_S = 60.0
HEAD_START_S = 90.0
"""As in `cli.controller`: how long a controller waits for the head before its loop begins without it."""

HEAD_RETRY_S = 1.0


@dataclass
class ConfigFile:
    """`ports.config_source.ConfigSource`: the cluster file, as it is now."""

    spec: ClusterSpec

    def load(self) -> ClusterSpec:
        return self.spec


@dataclass(frozen=True)
class Host:
    """The head's host: what outlives its controllers.

    `provider` and `cluster` make fresh clients, `echo` one that only carries what another has sent. Those of
    backends get the controller's clock, `cluster` the session that the cluster's record holds, None before
    the first contact. `arrive` lets drivers submit more work.
    """

    loop: VirtualLoop
    file: ConfigFile
    timing: Timing
    disk: Disk
    clock: SimClock
    ids: SimIds
    provider: Callable[[str, Callable[[], float]], Provider]
    echo: Callable[[str, Callable[[], float]], Provider]
    cluster: Callable[[str | None], Cluster]
    mischief: Mischief
    witness: Witness
    trace: Trace
    away: set[str]
    arrive: Callable[[], None]

    @property
    def spec(self) -> ClusterSpec:
        """What the cluster file says now."""
        return self.file.spec


class Wrapper:
    """Keeps one controller alive until the cluster is down.

    `controller` is the living one, None while there is none. `is_down`: it said that the cluster is
    down, `took_down_s` after it began to go, and none is started any more. `surprises` are errors that
    nobody words for people.
    """

    def __init__(self, host: Host) -> None:
        self.host = host
        self.controller: Controller | None = None
        self.process: Process | None = None
        self.is_down = False
        self.took_down_s = 0.0
        self.surprises: list[str] = []
        self.lives = 0
        self._dead: list[Process] = []
        self._pauses = 0
        self._born_s = 0.0
        self._session: str | None = None

    def start(self) -> None:
        """Start a controller now."""
        self.lives += 1
        self._born_s = self.host.loop.time()
        self.host.trace.add("wrapper", "starts controller", self.lives)
        process = self.process = Process(self.host.loop, f"controller-{self.lives}")
        process.on_kill = self._died
        task = process.start(self._run(process))
        task.add_done_callback(self._ended)

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()

    def go_down(self, why: str) -> None:
        """Tell the living controller to take the cluster down."""
        if self.controller is not None:
            self.controller.go_down(why)

    def bury(self) -> None:
        """Close what is left of all controllers, when the run is over."""
        for process in (*self._dead, *([self.process] if self.process else [])):
            process.bury()

    # -- a controller's life -----------------------------------------------------------

    async def _run(self, process: Process) -> None:
        host = self.host
        around = Surroundings(
            host.loop, process, host.mischief, host.witness, host.trace, host.away, host.arrive
        )
        cluster = ClusterMembrane(host.cluster(self._session), around)
        why = await self._greeted(cluster)
        journal = JournalMembrane(host.disk.open(OURS.cluster_uid), around)
        clock = SteadyClock.after(journal, host.clock)
        ports = Ports(
            cluster=cluster,
            providers={
                name: self._provider(name, around, clock.now_s) for name in sorted(host.spec.backends)
            },
            journal=journal,
            clock=clock,
            ids=host.ids,
            telemetry=Measures(),
            config_source=host.file,
        )
        identity = Identity(OURS.cluster_name, OURS.cluster_uid, "10.0.0.1:6379", "", "2.60.0", "3.11", 1)
        controller = Controller(ports, spec=host.spec, identity=identity, timing=host.timing)
        self.controller = controller
        if why:
            controller.go_down(why)
        await controller.run()

    def _provider(self, name: str, around: Surroundings, now_s: Callable[[], float]) -> ProviderMembrane:
        host = self.host
        return ProviderMembrane(host.provider(name, now_s), around, lambda: host.echo(name, now_s))

    async def _greeted(self, cluster: ClusterMembrane) -> str:
        """Wait for the head, as the controller's process does first; return why the cluster must go down."""
        until_s = self.host.loop.time() + HEAD_START_S
        while self.host.loop.time() < until_s:
            try:
                await cluster.connect()
                self._session = (await cluster.state()).session_name
                return ""
            except StrangerCluster as error:
                return str(error)
            except ClusterError:
                await asyncio.sleep(HEAD_RETRY_S)
        return "" if self._session else "the head did not come up"

    def _ended(self, task: asyncio.Task[None]) -> None:
        """Hear that a controller's last line is reached; a killed one has been heard of already."""
        error, process = task.exception(), self.process
        if isinstance(error, Killed) or process is None or process.dead:
            return
        self.host.trace.add("wrapper", "controller ended", error or "the cluster is down")
        self.is_down = error is None
        self.took_down_s = self.host.loop.time() - self.host.witness.down_s
        if error is not None and not isinstance(error, HeliostatError):
            self.surprises.append(f"the controller ended with {error!r}")
        process.kill()

    def _died(self) -> None:
        loop, process = self.host.loop, self.process
        assert process is not None
        self._dead.append(process)
        self.process = self.controller = None
        self.host.witness.died(loop.time())
        self.host.trace.add("wrapper", "controller is dead")
        if not self.is_down:
            stable = loop.time() - self._born_s >= STABLE_S
            self._pauses = 0 if stable else min(self._pauses + 1, len(RESTART_S) - 1)
            loop.apart(RESTART_S[self._pauses], self.start)
