"""A controller on a stage: rounds are stepped by hand, on a clock that only the test moves."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from heliostat.control.loop import Controller
from heliostat.control.measures import Measures
from heliostat.control.operations import Operations
from heliostat.control.wiring import Identity, Ports, Timing
from heliostat.journal import SqliteJournal
from heliostat.journal.opening import connect_to_file
from heliostat.model.instance import BackendInstance, NodeStatus
from heliostat.model.node_type import ClusterSpec
from heliostat.testing.clock import ManualClock
from heliostat.testing.fake import FakeProvider
from tests.unit.control.world import FakeCluster, demand, node_type, spec

IDENTITY = Identity("test", "uid", "127.0.0.1:6379", "", "2.60.0", "3.11", 1)


class CountedIds:
    def __init__(self) -> None:
        self.made = 0

    def launch_id(self) -> str:
        self.made += 1
        return f"l{self.made}"


@dataclass
class GivenSpec:
    spec: ClusterSpec

    def load(self) -> ClusterSpec:
        return self.spec


@dataclass
class Stage:
    """Everything a controller sees; `restart()` is a crash: only journal and backend survive."""

    folder: Path
    spec: ClusterSpec = field(default_factory=spec)
    clock: ManualClock = field(default_factory=ManualClock)
    ray: FakeCluster = field(default_factory=FakeCluster)
    ids: CountedIds = field(default_factory=CountedIds)
    joins: Callable[[BackendInstance], None] | None = None
    idle_after_s: float | None = None

    def __post_init__(self) -> None:
        self.provider = FakeProvider(clock=self.clock, boot_s=2.0)
        self.provider.on_running = self._joined
        self.busy = False
        self._begin()

    def _joined(self, row: BackendInstance) -> None:
        kind = self.spec.policy.node_type(row.node_type) or node_type(row.node_type)
        self.ray.join(row.instance_id, kind, busy=self.busy)
        if self.busy:
            self.ray.place_one()

    def _begin(self) -> None:
        self.journal = SqliteJournal(self.folder / "journal.db", cluster_uid="uid", connect=self._connect)
        self.config = GivenSpec(self.spec)
        ports = Ports(
            cluster=self.ray,
            providers={"fake": self.provider},
            journal=self.journal,
            clock=self.clock,
            ids=self.ids,
            telemetry=Measures(),
            config_source=self.config,
        )
        self.controller = Controller(
            ports, spec=self.spec, identity=IDENTITY, timing=Timing(), idle_after_s=self.idle_after_s
        )
        self.operations = Operations(self.controller)

    def _connect(self, path: Path) -> sqlite3.Connection:
        self.connection = connect_to_file(path)
        return self.connection

    def disk_is_full(self, full: bool = True) -> None:
        """From now on no write of the journal's succeeds, or all do again."""
        self.connection.execute(f"PRAGMA query_only = {int(full)}")

    def restart(self) -> None:
        # Not `journal.close()`, which would write what a crash loses.
        self.connection.close()
        world, faults = self.provider.world, self.provider.faults
        self.provider = FakeProvider(clock=self.clock, boot_s=2.0, world=world, faults=faults)
        self.provider.on_running = self._joined
        self._begin()

    async def step(self, rounds: int = 1, *, seconds: float = 1.0) -> None:
        """Let `seconds` pass, list, and run a round with all it sets off; `rounds` times."""
        for _ in range(rounds):
            self.clock.advance(seconds)
            for watch in self.controller.watches.values():
                await watch.look()
            await self.controller.round()
            await self.settle()

    async def settle(self) -> None:
        for actor in self.controller.actors.values():
            await actor.settle()
        for _ in range(5):
            await asyncio.sleep(0)

    def states(self) -> dict[str, str]:
        return {one.instance_id: one.state.value for one in self.controller.memory.instances}

    def kinds(self) -> list[str]:
        return [one.kind for one in self.journal.events()]


async def up_with(stage: Stage, count: int) -> None:
    """Bring `count` busy workers up on demand."""
    stage.busy = True
    stage.ray.demands = (demand(count),)
    await stage.step(8)
    stage.ray.demands = ()
    assert list(stage.states().values()) == ["running"] * count


def let_idle(stage: Stage) -> None:
    for key, node in stage.ray.nodes.items():
        stage.ray.nodes[key] = replace(node, status=NodeStatus.IDLE, available=node.total)
