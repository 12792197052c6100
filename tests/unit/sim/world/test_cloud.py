"""The cloud has a stock, a quota, a market, and listings that lag."""

from __future__ import annotations

import pytest

from heliostat.model.instance import BackendInstance, BackendState, Change
from heliostat.ports.errors import InsufficientCapacity, QuotaExceeded
from heliostat.sim.clock import Dates
from heliostat.sim.world.cloud import CloudBackend
from heliostat.sim.world.cloud_provider import CloudProvider
from heliostat.sim.world.ends import Cause
from heliostat.sim.world.link import Link
from tests.unit.sim.world.stage import OURS, Stage, request

STARTING, RUNNING = BackendState.STARTING, BackendState.RUNNING
ENDED, FAILED = BackendState.ENDED, BackendState.FAILED


@pytest.fixture
def stage() -> Stage:
    return Stage()


def client(stage: Stage, backend: CloudBackend) -> CloudProvider:
    return CloudProvider(
        backend, OURS, Link(stage.dice.stream("calls"), (0.0, 0.0)), dates=Dates(backend.agenda.now_s, None)
    )


async def rows(provider: CloudProvider) -> dict[str, BackendInstance]:
    return {one.instance_id: one for one in await provider.instances()}


async def test_a_machine_starts_and_then_its_bootstrap(stage: Stage) -> None:
    cloud = stage.cloud(boot_s=(10.0, 10.0))
    provider = client(stage, cloud)
    await provider.apply(Change(launch=(request(),)))
    seen = []
    for _ in range(3):
        stage.agenda.advance(4)
        seen.append(((await rows(provider))["l1.0"].state, bool(cloud.machines[0].node_id)))
    assert seen == [(STARTING, False), (RUNNING, False), (RUNNING, True)]


async def test_stock_and_quota_are_told_apart(stage: Stage) -> None:
    provider = client(stage, stage.cloud(machines=3))
    outcome = await provider.apply(Change(launch=(request(4),)))
    assert {key: type(one) for key, one in outcome.failed_instances.items()} == {"l1.3": InsufficientCapacity}
    limited = client(stage, stage.cloud(submitted_most=3))
    outcome = await limited.apply(Change(launch=(request(4),)))
    assert {key: type(one) for key, one in outcome.failed_instances.items()} == {"l1.3": QuotaExceeded}


async def test_a_gang_is_had_whole_or_not_at_all(stage: Stage) -> None:
    provider = client(stage, stage.cloud(machines=3))
    outcome = await provider.apply(Change(launch=(request(4, together=True),)))
    assert set(outcome.failed_launches) == {"l1"}
    assert not await rows(provider)


async def test_the_market_gives_notice_and_takes(stage: Stage) -> None:
    cloud = stage.cloud(reclaim_s=30.0)
    provider = client(stage, cloud)
    await provider.apply(Change(launch=(request(),)))
    stage.agenda.advance(5)
    assert (await rows(provider))["l1.0"].expires_at_s is None
    cloud.preempt(cloud.machines[0])
    assert (await rows(provider))["l1.0"].expires_at_s == 1_700_000_035.0
    stage.agenda.advance(32)
    assert (await rows(provider))["l1.0"].state is ENDED
    assert cloud.machines[0].cause is Cause.PREEMPTED


async def test_a_stockout_passes(stage: Stage) -> None:
    cloud = stage.cloud()
    cloud.shut(20.0)
    provider = client(stage, cloud)
    assert set((await provider.apply(Change(launch=(request(),)))).failed_launches) == {"l1"}
    stage.agenda.advance(21)
    assert not (await provider.apply(Change(launch=(request(),)))).failed_launches


async def test_a_member_that_was_ever_made_is_not_made_again(stage: Stage) -> None:
    cloud = stage.cloud()
    provider = client(stage, cloud)
    await provider.apply(Change(launch=(request(2),)))
    stage.agenda.advance(5)
    await provider.apply(Change(terminate=("l1.0",)))
    stage.agenda.advance(5)
    await client(stage, cloud).apply(Change(launch=(request(2),)))
    assert set(await rows(provider)) == {"l1.1"}
    assert len(cloud.machines) == 2


async def test_listings_lag_but_what_was_ended_never_looks_alive(stage: Stage) -> None:
    cloud = stage.cloud(lag_s=5.0)
    provider = client(stage, cloud)
    await provider.apply(Change(launch=(request(),)))
    stage.agenda.advance(0.5)
    counts = {len(await rows(provider)) for _ in range(30)}
    assert counts == {0, 1}
    stage.agenda.advance(10)
    await provider.apply(Change(terminate=("l1.0",)))
    assert {one.state for _ in range(20) for one in (await rows(provider)).values()} == {
        BackendState.STOPPING
    }
    stage.agenda.advance(20)
    assert not await rows(provider)


async def test_a_machine_that_ends_by_itself_stays_listed_with_its_words(stage: Stage) -> None:
    cloud = stage.cloud()
    provider = client(stage, cloud)
    await provider.apply(Change(launch=(request(),)))
    stage.agenda.advance(5)
    cloud.die(cloud.machines[0])
    stage.agenda.advance(200)
    row = (await rows(provider))["l1.0"]
    assert (row.state, row.detail) == (FAILED, "the hardware has failed")
    await provider.apply(Change(terminate=("l1.0",)))
    assert not await rows(provider)


async def test_strangers_are_in_the_listing_and_out_of_reach(stage: Stage) -> None:
    cloud = stage.cloud(strangers=3)
    assert len(cloud.listed()) == 3
    provider = client(stage, cloud)
    assert not await rows(provider)
    await provider.apply(Change(terminate=("l1.0",)))  # As one of theirs is called, too.
    assert not cloud.trespasses
    cloud.terminate([one.native_id for one in cloud.strangers], OURS)
    assert len(cloud.trespasses) == 3
