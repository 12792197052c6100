"""A group on a real Ray: it grows, loses, hands over, gives back, and leaves nothing.

The tests follow one another on one cluster and with one group, as a training would.
"""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from pathlib import Path

import pytest

from heliostat.model.instance import DrainReason
from heliostat.raylink.gcs import GcsCluster
from tests.integration.raylink.conftest import until
from tests.integration.train.conftest import Driver, Grounds

pytestmark = [pytest.mark.integration, pytest.mark.timeout(180)]

BUNDLE = {"slot": 1, "CPU": 1}
MAX_SIZE = 3
QUIET_SYNC_MS = 5.0
"""The most that a sync may take in which nothing changed (median)."""
DRAIN_S = 60.0

OPEN = """
group = ElasticGroup(
    Trainer, bundle={bundle}, min_size=1, max_size={max_size}, args=({journal!r},), max_restarts={restarts}
).__enter__()
"""

NEVER = """
never = ElasticGroup(
    Trainer, bundle={'CPU': 1}, min_size=1, max_size=1, args=('',), name='never', max_restarts=1,
    timeout_s=60, actor_options={'runtime_env': {'py_modules': ['file:///no/such/folder.zip']}},
)
try:
    never.__enter__()
except TooManyRestarts as error:
    said = str(error)
said
"""

KEEP = """
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy as On
there = On({node!r}, soft=False)
keeper = ray.remote(num_cpus=1)(Trainer).options(scheduling_strategy=there).remote('')
ray.get(keeper.pid.remote())
"""


def opened(grounds: Grounds, journal: str, *, restarts: int = 5) -> str:
    path = str(grounds.head.folder / journal)
    return OPEN.format(bundle=BUNDLE, max_size=MAX_SIZE, journal=path, restarts=restarts)


async def test_it_takes_what_there_is_and_asks_for_the_rest(
    grounds: Grounds, driver: Driver, link: GcsCluster
) -> None:
    await grounds.node(link, "t0")
    # It comes while the first two train.
    grounds.worker("t1", slots=1)
    driver.tell(opened(grounds, "journal"))
    driver.tell("sync_until(group, 2)")
    assert driver.tell("[one.rank for one in group]") == [0, 1]
    assert driver.tell("group.call('train', 1)") == [1, 1]
    state = await until(link.state, lambda state: len(state.gangs) == 1)
    units = state.gangs[0].demands[0].bundle.resources.units()
    assert {name: units[name] for name in BUNDLE} == BUNDLE


async def test_it_grows_when_a_node_joins(grounds: Grounds, driver: Driver, link: GcsCluster) -> None:
    node = await grounds.node(link, "t1")
    driver.tell("sync_until(group, 3)")
    assert driver.tell("group.members[2].node_id") == node.node_id
    await until(link.state, lambda state: not state.gangs)
    assert driver.tell("group.map('work', [(n, 0) for n in range(7)])") == [10 * n for n in range(7)]


def test_a_quiet_sync_costs_little(driver: Driver) -> None:
    assert driver.tell("median_sync_ms(group)") <= QUIET_SYNC_MS


def test_each_item_counts_once_when_a_member_is_killed(grounds: Grounds, driver: Driver) -> None:
    victim = driver.tell("victim = group.call('pid')[1]; kill_later(victim, 0.5); victim")
    results = driver.tell("group.map('work', [(n, 0.2) for n in range(100, 118)])")
    assert results == [10 * n for n in range(100, 118)]
    lines = [line.split() for line in Path(grounds.head.folder / "journal").read_text().splitlines()]
    done = Counter(int(number) for number, _ in lines if int(number) >= 100)
    # What the member had in hand may have been written before it was killed: once more, at most.
    assert set(done) == set(range(100, 118))
    assert sum(done.values()) - len(done) <= 1
    left = driver.tell("sync_until(group, 2)")
    assert [reason for _, reason, _, _ in left] == ["died"]
    driver.tell("sync_until(group, 3)")
    assert victim not in driver.tell("group.call('pid')")


async def test_demand_is_withdrawn_at_once(driver: Driver, link: GcsCluster) -> None:
    driver.tell(
        "other = ElasticGroup(Trainer, bundle={'slot': 9}, min_size=0, max_size=2, args=('',), name='o')"
    )
    driver.tell("other.__enter__(); other.sync()")
    await until(link.state, lambda state: len(state.gangs) == 2)
    assert driver.tell("other.waiting") == 2
    driver.tell("other.target = 1; other.sync()")
    await until(link.state, lambda state: len(state.gangs) == 1)
    driver.tell("other.__exit__(None, None, None)")
    await until(link.state, lambda state: not state.gangs)


def test_what_can_never_start_is_a_crash_loop_that_ends(driver: Driver) -> None:
    said = driver.tell(NEVER)
    assert "more than 1 failures" in said
    assert "runtime" in said


async def test_a_drained_node_s_member_hands_over(grounds: Grounds, driver: Driver, link: GcsCluster) -> None:
    node = await grounds.node(link, "t1")
    driver.tell("group.call('train', 41)")
    # Something else keeps the node, so that it has a free slot while it drains.
    driver.tell(KEEP.format(node=node.node_id))
    reply = await link.drain(
        node.node_id, reason=DrainReason.PREEMPTION, message="lease ends", deadline_s=time.time() + DRAIN_S
    )
    assert reply.accepted
    grounds.worker("t2", slots=1)
    left = driver.tell("sync_until(group, 2)")
    (_, reason, detail, state) = left[0]
    assert (reason, len(left)) == ("drained", 1)
    assert "its node drains" in detail
    assert state["epoch"] >= 41
    assert 0 < state["deadline_s"] <= 30
    assert driver.tell("[group.sync() and 0 for _ in range(20)]; group.waiting") == 1
    other = await grounds.node(link, "t2")
    driver.tell("sync_until(group, 3)")
    assert driver.tell("group.members[2].node_id") == other.node_id
    assert driver.tell("group.call('train', 0)")[2] == state["epoch"]
    driver.tell("ray.kill(keeper)")


def test_prometheus_gets_the_figures(driver: Driver) -> None:
    until_s = time.monotonic() + 30
    wanted = {
        "ray_heliostat_train_size",
        "ray_heliostat_train_joins_total",
        "ray_heliostat_train_leaves_total",
    }
    while not wanted <= set(found := driver.tell("exported('ray_heliostat_train')")):
        assert time.monotonic() < until_s, found
        time.sleep(0.5)
    assert found["ray_heliostat_train_joins_total"] >= 3


async def test_nothing_is_left_behind(grounds: Grounds, driver: Driver, link: GcsCluster) -> None:
    driver.tell("group.__exit__(None, None, None)")
    left = await until(
        lambda: _living(driver), lambda found: found == {"actors": 0, "groups": 0}, timeout_s=20
    )
    assert left == {"actors": 0, "groups": 0}
    with grounds.driver() as doomed:
        doomed.tell(opened(grounds, "doomed"))
        doomed.tell("sync_until(group, 3)")
        os.kill(doomed.process.pid, signal.SIGKILL)
        await until(lambda: _living(driver), lambda found: found == {"actors": 0, "groups": 0}, timeout_s=30)


@pytest.mark.nightly
@pytest.mark.timeout(600)
def test_no_step_is_lost_in_fifty_kills(grounds: Grounds, driver: Driver) -> None:
    # Whatever the tests before this one have left: it may run without them.
    grounds.worker("t3", slots=3)
    driver.tell(opened(grounds, "fifty", restarts=50))
    driver.tell("sync_until(group, 3)")
    assert driver.tell("kill_in_steps(group, 50)", timeout_s=500) == {"lost": 0, "left": 50}
    driver.tell("group.__exit__(None, None, None)")


async def _living(driver: Driver) -> dict[str, int]:
    found: dict[str, int] = driver.tell("living()")
    return found
