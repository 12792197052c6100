"""The simulator's model of Ray against a real one: what runs, what waits, and which nodes stay idle.

One head without CPUs and three workers of different shapes; each case asks the same of both.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import pytest

from heliostat.model.demand import Bundle, Demand, Gang, GangStrategy
from heliostat.model.instance import DrainReason, NodeStatus
from heliostat.model.resources import Resources
from heliostat.model.snapshot import RayState
from heliostat.raylink.gcs import GcsCluster
from heliostat.sim.world.work import Group, Work
from tests.integration.raylink.conftest import Driver, Head, until
from tests.integration.real_head import real_head
from tests.integration.sim.asks import DRIVER, FOR_EVER_S, IN, NOT_IN, Ask, actors, group, tasks
from tests.unit.sim.world.stage import Stage

pytestmark = [pytest.mark.integration, pytest.mark.timeout(180)]

SETTLED_S = 1.1
"""Ray's GCS hears of demand once a second: what it says so much later it goes on saying."""

WORKERS = {
    "two": ("a", {"CPU": 2.0, "x": 1.0}),
    "four": ("b", {"CPU": 4.0}),
    "gpus": ("c", {"CPU": 2.0, "GPU": 2.0}),
}
"""The workers' instance ids, zones and resources."""


@dataclass(frozen=True)
class Case:
    """Asks, one after another. `idle` are the nodes that stay idle; None: chance decides that."""

    name: str
    asks: tuple[Ask, ...]
    idle: tuple[str, ...] | None = None


def case(name: str, *asks: Ask, idle: Sequence[str] | None = None) -> Case:
    return Case(name, asks, None if idle is None else tuple(idle))


A, B, C = (IN, ("a",)), (IN, ("b",)), (IN, ("c",))

CASES = (
    case("what fits runs, the rest waits", tasks(10, CPU=1), idle=()),
    case(
        "tasks without GPUs leave the GPUs' node alone",
        tasks(2, CPU=1, x=0.5),
        tasks(1, CPU=4),
        idle=["gpus"],
    ),
    case("no node is large enough", tasks(2, CPU=5), idle=["two", "four", "gpus"]),
    case("a custom resource decides", tasks(3, x=0.5), idle=["four", "gpus"]),
    case("a resource that nobody has", tasks(1, CPU=1, y=1), idle=["two", "four", "gpus"]),
    case("GPUs are shared one by one", tasks(3, GPU=0.6), tasks(1, GPU=0.4), idle=["two", "four"]),
    case("a whole GPU needs a quite free one", tasks(2, GPU=0.5), tasks(2, GPU=1), idle=["two", "four"]),
    case("two GPUs at once", tasks(1, GPU=0.1), tasks(1, GPU=2), idle=["two", "four"]),
    case("labels decide", Ask("task", {"CPU": 1}, 3, zones=(A,)), idle=["four", "gpus"]),
    case("not in", Ask("task", {"CPU": 2}, 2, zones=((NOT_IN, ("a", "b")),)), idle=["two", "four"]),
    case("the fallback takes over", Ask("task", {"CPU": 2}, 3, zones=(A, C)), idle=["four"]),
    case("the preferred label comes first", Ask("task", {"CPU": 1}, 1, zones=(B, A)), idle=["two", "gpus"]),
    case("actors hold what they ask for", actors(2, CPU=2), tasks(3, CPU=2), idle=()),
    case("an actor without resources keeps its node", Ask("actor", {}, zones=(A,)), idle=["four", "gpus"]),
    case("a group on one node", group("STRICT_PACK", *[{"CPU": 1}] * 4), idle=["two", "gpus"]),
    case(
        "a group too large for one node",
        group("STRICT_PACK", *[{"CPU": 1}] * 5),
        idle=["two", "four", "gpus"],
    ),
    case("a group on nodes of their own", group("STRICT_SPREAD", *[{"CPU": 1}] * 3), idle=()),
    case("more bundles than nodes", group("STRICT_SPREAD", *[{"CPU": 1}] * 4), idle=["two", "four", "gpus"]),
    case("packed over several nodes", group("PACK", *[{"CPU": 2}] * 4), idle=()),
    case(
        "packed where it fits on one",
        group("PACK", {"CPU": 1, "GPU": 1}, {"CPU": 1, "GPU": 1}),
        idle=["two", "four"],
    ),
    case(
        "all or none beside tasks",
        tasks(1, CPU=4),
        group("PACK", {"CPU": 3}, {"CPU": 1}),
        idle=["two", "gpus"],
    ),
    case("GPUs in a group", group("PACK", *[{"GPU": 0.6}] * 2), tasks(1, GPU=0.6), idle=["two", "four"]),
    case(
        "labels of bundles",
        Ask("group", {"CPU": 1}, 2, strategy=GangStrategy.STRICT_SPREAD, zones=((NOT_IN, ("b",)),)),
        idle=["four"],
    ),
    case(
        "a group holds what tasks then lack",
        group("STRICT_PACK", *[{"CPU": 2}] * 2),
        tasks(1, CPU=3),
        idle=["two", "gpus"],
    ),
)


# -- the real one


@pytest.fixture(scope="module")
def head() -> Iterator[Head]:
    with real_head("hsi-", resources={"object_store_memory": 100 * 2**20}) as found:
        yield Head(found.ready, found.token, found.environment, found.folder, found.process)


@pytest.fixture(scope="module")
def driver(head: Head) -> Iterator[Driver]:
    with ExitStack() as stack:
        for instance_id, (zone, units) in WORKERS.items():
            custom = {name: amount for name, amount in units.items() if name not in ("CPU", "GPU")}
            worker = head.worker(
                instance_id,
                f"--num-cpus={units['CPU']:g}",
                f"--num-gpus={units.get('GPU', 0):g}",
                f"--resources={json.dumps(custom)}",
                f"--labels=zone={zone}",
                "--object-store-memory=80000000",
                "--include-log-monitor=false",
            )
            stack.enter_context(worker)
            asyncio.run(_joined(head, instance_id))
        gate = str(head.folder / "gate")
        found = stack.enter_context(head.driver(f"import sys; sys.argv = ['', {gate!r}]\n{DRIVER}"))
        found.wait_for("ready")
        yield found


async def _joined(head: Head, instance_id: str) -> None:
    link = head.cluster()
    await link.connect()
    await until(
        link.state, lambda state: any(one.instance_id == instance_id for one in state.nodes), timeout_s=40
    )
    await link.aclose()


@pytest.fixture
async def ray(head: Head, driver: Driver) -> AsyncIterator[GcsCluster]:
    link = head.cluster()
    await link.connect()
    yield link
    tell(driver, {"do": "end"})
    await until(link.state, is_empty)
    await link.aclose()


def tell(driver: Driver, command: dict[str, object]) -> None:
    """Send one command, and wait until the driver has carried it out."""
    number = driver.output().count("did ")
    assert driver.process.stdin is not None
    driver.process.stdin.write(json.dumps(command).encode() + b"\n")
    driver.process.stdin.flush()
    driver.wait_for(f"did {number}.")


def is_empty(state: RayState) -> bool:
    busy = [one for one in state.nodes if one.status not in (NodeStatus.IDLE, NodeStatus.DEAD)]
    return not (state.demands or state.gangs or busy)


# -- the model


def model_of() -> Stage:
    stage = Stage()
    for instance_id, (zone, units) in WORKERS.items():
        stage.node(instance_id, labels={"zone": zone}, **units)
    return stage


def ask_model(stage: Stage, ask: Ask) -> None:
    if ask.kind == "group":
        bundles = tuple(ask.bundle(one) for one in ask.group_bundles())
        stage.works += 1
        stage.ray.scheduler.submit_group(Group(f"{stage.works:036x}", ask.strategy, bundles))
    else:
        for _ in range(ask.count):
            stage.works += 1
            bundle = ask.bundle(ask.units)
            stage.ray.scheduler.submit(Work(stage.works, bundle, FOR_EVER_S, is_actor=ask.kind == "actor"))
    stage.agenda.advance(1.0)


# -- both


Picture = dict[str, object]


def picture(state: RayState, *, with_idle: bool) -> Picture:
    """Return what both must agree on: what waits, what is free in all, and which workers are idle."""
    workers = [one for one in state.nodes if one.instance_id in WORKERS and one.status is not NodeStatus.DEAD]
    free: Counter[str] = Counter()
    for one in workers:
        free.update({name: amount for name, amount in one.available if name in ("CPU", "GPU", "x")})
    idle = sorted(one.instance_id for one in workers if one.status is NodeStatus.IDLE)
    return {
        "waits": sorted(map(_demand, state.demands)),
        "groups wait": sorted(map(_gang, state.gangs)),
        "free": {name: amount for name, amount in sorted(free.items()) if amount},
        "idle": idle if with_idle else None,
    }


def _demand(demand: Demand) -> str:
    return str(Demand(_plain(demand.bundle), demand.count))


def _gang(gang: Gang) -> str:
    parts = sorted(str(Demand(_plain(one.bundle), one.count)) for one in gang.demands)
    return f"{gang.strategy.value}: {', '.join(parts)}"


def _plain(bundle: Bundle) -> Bundle:
    return Bundle(Resources(bundle.resources.amounts), bundle.selectors)


@pytest.mark.parametrize("asked", CASES, ids=lambda one: one.name)
async def test_both_run_and_keep_waiting_the_same(asked: Case, driver: Driver, ray: GcsCluster) -> None:
    stage = model_of()
    for ask in asked.asks:
        ask_model(stage, ask)
        tell(driver, ask.command())
        expected = picture(stage.ray.state(), with_idle=False)
        # The next ask must find what this one left, not overtake it.
        await _agrees(ray, expected, with_idle=False)
    expected = picture(stage.ray.state(), with_idle=asked.idle is not None)
    if asked.idle is not None:
        assert expected["idle"] == sorted(asked.idle)
    await _agrees(ray, expected, with_idle=asked.idle is not None, for_s=SETTLED_S)


async def _agrees(ray: GcsCluster, expected: Picture, *, with_idle: bool, for_s: float = 0.0) -> None:
    """Wait until Ray shows the same, and goes on showing it."""

    async def look() -> Picture:
        return picture(await ray.state(), with_idle=with_idle)

    await until(look, lambda found: found == expected)
    until_s = time.monotonic() + for_s
    while time.monotonic() < until_s:
        assert await look() == expected
        await asyncio.sleep(0.1)


async def test_both_answer_drains_the_same(driver: Driver, ray: GcsCluster) -> None:
    """The last test: its node is gone afterwards."""
    stage, asks = model_of(), (Ask("actor", {}, zones=(A,)), Ask("task", {"CPU": 1}, zones=(B,)))
    for ask in asks:
        ask_model(stage, ask)
        tell(driver, ask.command())
    await _agrees(ray, picture(stage.ray.state(), with_idle=True), with_idle=True)
    real = {one.instance_id: one.node_id for one in (await ray.state()).nodes}
    model = {one.instance_id: one.node_id for one in stage.ray.state().nodes}
    for instance_id in WORKERS:
        theirs = await ray.drain(real[instance_id], reason=DrainReason.IDLE, message="test", deadline_s=None)
        ours = stage.ray.drain(model[instance_id], DrainReason.IDLE, None)
        assert theirs.accepted is ours.accepted is (instance_id == "gpus")
    stage.agenda.advance(1.0)
    await _agrees(ray, picture(stage.ray.state(), with_idle=True), with_idle=True)
