"""The whole world on a virtual loop: fresh clients find everything, work arrives, a seed is one world."""

from __future__ import annotations

import asyncio

import pytest

from heliostat.model.demand import Bundle
from heliostat.model.instance import BackendState, Change, DrainReason, NodeStatus
from heliostat.model.node_type import ClusterSpec, NodeType, Policy
from heliostat.model.resources import Resources
from heliostat.ports.cluster import Cluster
from heliostat.ports.errors import ClusterUnreachable, StrangerCluster
from heliostat.sim.dice import Dice
from heliostat.sim.loop import VirtualLoop
from heliostat.sim.scenario import BackendScenario, Scenario, WorkloadScenario, WorkShape
from heliostat.sim.trace import Trace
from heliostat.sim.world.ends import Cause
from heliostat.sim.world.machine import Phase
from heliostat.sim.world.world import World
from tests.unit.sim.world.stage import CPU, OURS, request

ONE = Bundle(Resources.of({"CPU": 1}))
TYPES = (CPU,)
HEAD = NodeType("head", "b", Resources(), "shape-head")


class Universe:
    def __init__(self, *shapes: WorkShape, seed: int = 1, **backend: object) -> None:
        spec = ClusterSpec("sim", Policy(TYPES, max_workers=9, idle_timeout_s=5.0), HEAD, {"b": {}})
        options = {"kind": "batch", "boot_s": (2.0, 2.0), "queue_s": (0.0, 0.0), **backend}
        scenario = Scenario(
            seed,
            spec,
            (BackendScenario("b", **options),),  # type: ignore[arg-type]
            WorkloadScenario(shapes, every_s=(1.0, 5.0)),
        )
        self.loop = VirtualLoop()
        self.trace = Trace(self.loop.time, keep=True)
        self.world = World(scenario, loop=self.loop, dice=Dice(seed), trace=self.trace)
        self.world.ray.kv["cluster_uid"] = OURS.cluster_uid
        self.world.begin()

    async def cluster(self) -> Cluster:
        link = self.world.cluster(OURS)
        await link.connect()
        return link


def test_a_fresh_client_finds_everything_by_its_tags() -> None:
    universe = Universe(strangers=3)

    async def story() -> None:
        first = universe.world.provider("b", OURS)
        await first.apply(Change(launch=(request(2),)))
        await asyncio.sleep(5)
        second = universe.world.provider("b", OURS)
        assert await second.instances() == await first.instances()
        assert {one.state for one in await second.instances()} == {BackendState.RUNNING}
        await first.apply(Change(terminate=("l1.0",)))
        # What the first was told is on the head's disk, and the second goes on with it.
        await asyncio.sleep(30)
        assert [one.instance_id for one in await second.instances()] == ["l1.1"]

    universe.loop.run_until_complete(story())
    ours = [one for one in universe.world.machines() if one.identity == OURS]
    assert [one.phase for one in ours] == [Phase.OVER, Phase.UP]
    assert universe.world.running() == ours[1:]


def test_work_arrives_and_is_done_where_there_are_nodes() -> None:
    universe = Universe(WorkShape("task", ONE), WorkShape("actor", ONE), WorkShape("gang", ONE, count=(2, 3)))

    async def story() -> None:
        await universe.world.provider("b", OURS).apply(Change(launch=(request(8),)))
        await asyncio.sleep(120)
        universe.world.calm()
        arrived = len(universe.world.workload.ledger.works)
        assert arrived > 20
        await asyncio.sleep(200)
        assert len(universe.world.workload.ledger.works) == arrived
        link = await universe.cluster()
        state = await link.state()
        assert (state.demands, state.gangs, await link.drivers()) == ((), (), 0)

    universe.loop.run_until_complete(story())
    assert not universe.world.workload.ledger.unfinished


def test_what_is_requested_stands_for_a_while_and_the_last_one_counts() -> None:
    universe = Universe()
    workload, ray = universe.world.workload, universe.world.ray

    async def story() -> None:
        workload.submit(WorkShape("constraint", ONE, count=(3, 3), work_s=(20.0, 20.0)))
        await asyncio.sleep(10)
        workload.submit(WorkShape("constraint", ONE, count=(5, 5), work_s=(20.0, 20.0)))
        await asyncio.sleep(15)
        assert ray.constraint is not None
        assert [one.count for one in ray.constraint.demands] == [5]
        await asyncio.sleep(10)
        assert ray.constraint is None

    universe.loop.run_until_complete(story())


def test_a_head_that_is_away_and_another_one_are_told_apart() -> None:
    universe = Universe()

    async def story() -> None:
        with pytest.raises(ClusterUnreachable, match="not connected"):
            await universe.world.cluster(OURS).state()
        link = await universe.cluster()
        universe.world.ray.die()
        with pytest.raises(ClusterUnreachable):
            await link.state()
        universe.world.ray.come_back(with_state=True)
        await link.state()
        universe.world.ray.die()
        universe.world.ray.come_back(with_state=False)
        with pytest.raises(StrangerCluster, match="session"):
            await link.state()
        with pytest.raises(StrangerCluster):
            await universe.world.cluster(OURS, session="session_0").connect()

    universe.loop.run_until_complete(story())


def test_a_machine_that_died_while_it_was_cut_off_is_not_heard_again() -> None:
    universe = Universe()

    async def story() -> None:
        await universe.world.provider("b", OURS).apply(Change(launch=(request(1),)))
        await asyncio.sleep(5)
        (machine,) = universe.world.running()
        universe.world.hush(machine)
        universe.world.backends["b"].die(machine)
        universe.world.wake(machine)
        node = universe.world.ray.node(machine.node_id)
        assert node is not None
        assert node.silent
        await asyncio.sleep(40)
        assert universe.world.ray.node(machine.node_id) is None
        assert (machine.phase, machine.cause) == (Phase.OVER, Cause.DIED)

    universe.loop.run_until_complete(story())


def test_a_machine_that_is_cut_off_for_long_ends_by_itself() -> None:
    universe = Universe()

    async def story() -> None:
        await universe.world.provider("b", OURS).apply(Change(launch=(request(2),)))
        await asyncio.sleep(5)
        short, long = universe.world.running()
        universe.world.hush(short)
        universe.world.hush(long)
        await asyncio.sleep(8)
        universe.world.wake(short)
        await asyncio.sleep(30)
        universe.world.wake(long)
        await asyncio.sleep(10)
        assert (short.phase, long.phase) == (Phase.UP, Phase.OVER)
        assert (long.cause, long.detail) == (Cause.DIED, "exit code 18: the raylet has gone")
        link = await universe.cluster()
        statuses = {one.instance_id: one.status for one in (await link.state()).nodes}
        assert statuses[short.instance_id] is NodeStatus.IDLE
        assert statuses[long.instance_id] is NodeStatus.DEAD

    universe.loop.run_until_complete(story())


def test_a_deadline_is_a_wall_clocks_time() -> None:
    universe = Universe()

    async def story() -> None:
        await universe.world.provider("b", OURS).apply(Change(launch=(request(),)))
        universe.world.workload.submit(WorkShape("task", ONE, count=(1, 1), work_s=(90.0, 90.0)))
        await asyncio.sleep(5)
        link, (machine,) = await universe.cluster(), universe.world.running()
        deadline_s = 1_700_000_000.0 + universe.world.now_s() + 40.0
        await link.drain(machine.node_id, reason=DrainReason.PREEMPTION, message="", deadline_s=deadline_s)
        node = universe.world.ray.node(machine.node_id)
        assert node is not None
        assert node.draining is not None
        assert node.draining.deadline_s == pytest.approx(universe.world.now_s() + 40.0, abs=1.0)

    universe.loop.run_until_complete(story())


@pytest.mark.parametrize("kind", ["batch", "cloud"])
def test_the_same_seed_is_the_same_world(kind: str) -> None:
    def digest(seed: int) -> str:
        shapes = (WorkShape("task", ONE), WorkShape("gang", ONE))
        weather = {"preempts_per_h": 60.0, "dies_per_h": 60.0, "stockouts_per_h": 60.0, "others": 0.3}
        universe = Universe(*shapes, seed=seed, kind=kind, **weather)

        async def story() -> None:
            await universe.world.provider("b", OURS).apply(Change(launch=(request(8),)))
            await asyncio.sleep(300)

        universe.loop.run_until_complete(story())
        assert any("preempts" in one or "reclaims" in one for one in universe.trace.lines or ())
        assert any("dies" in one for one in universe.trace.lines or ())
        return universe.trace.digest()

    assert digest(3) == digest(3) != digest(4)
