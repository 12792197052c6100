"""FakeProvider keeps the port's contract, and its faults strike as they say."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from heliostat.model.instance import BackendInstance, BackendState, Change, LaunchRequest, OfferQuery
from heliostat.model.node_type import NodeType
from heliostat.model.resources import Resources
from heliostat.ports.errors import InvalidRequest, ProviderError, QuotaExceeded, Unavailable
from heliostat.ports.provider import ClusterIdentity, Provider
from heliostat.testing.clock import ManualClock
from heliostat.testing.conformance import ProviderConformance
from heliostat.testing.fake import Call, FakeProvider, FakeWorld, Fault

CPU = NodeType("cpu", "fake", Resources.of({"CPU": 1}), shape_id="s1", max_workers=9)


class TestFakeConforms(ProviderConformance):
    capacity = 4
    machine_examples = 100
    machine_steps = 30

    def setup_method(self) -> None:
        self.clock = ManualClock()
        self.worlds: defaultdict[Path, FakeWorld] = defaultdict(FakeWorld)
        self.faults: list[Fault] = []

    def make(self, place: Path, identity: ClusterIdentity) -> Provider:
        provider = FakeProvider(clock=self.clock, boot_s=2.0, capacity=4, world=self.worlds[place])
        provider.owner, provider.stop_s, provider.lease_s = identity.cluster_uid, 3.0, 1e6
        provider.faults = self.faults
        self.provider = provider
        return provider

    def node_type(self) -> NodeType:
        return CPU

    def leased_type(self) -> NodeType:
        return CPU

    def throttled_type(self, provider: Provider) -> NodeType:
        return replace(CPU, throttles=True)

    async def living(self, place: Path) -> list[str]:
        return [one.instance_id for one in self.worlds[place].instances.values() if one.over is None]

    async def break_instance(self, place: Path, row: BackendInstance) -> None:
        self.provider.fail(row.instance_id, detail="exit code 7")

    @asynccontextmanager
    async def failing(self, place: Path, error: type[ProviderError]) -> AsyncIterator[NodeType]:
        calls: tuple[Call, ...] = ("apply", "instances") if error is Unavailable else ("launch",)
        self.faults += [Fault(call, error(f"no {call} today"), times=None) for call in calls]
        try:
            yield CPU
        finally:
            self.faults.clear()

    @asynccontextmanager
    async def lagging(self, place: Path) -> AsyncIterator[None]:
        self.worlds[place].lag()
        try:
            yield
        finally:
            self.worlds[place].catch_up()

    async def pass_time(self) -> None:
        self.clock.advance(1.0)
        await asyncio.sleep(0)


def request(count: int = 1, launch_id: str = "l1") -> LaunchRequest:
    return LaunchRequest(launch_id, CPU, count, {})


async def states(provider: FakeProvider) -> dict[str, BackendState]:
    return {row.instance_id: row.state for row in await provider.instances()}


async def test_instances_age_by_the_clock_alone() -> None:
    clock = ManualClock()
    provider = FakeProvider(clock=clock, boot_s=5)
    provider.queue_s = 10
    await provider.apply(Change(launch=(request(),)))
    seen = []
    for _ in range(4):
        seen.append((await states(provider))["l1.0"])
        clock.advance(5)
    assert seen == [BackendState.QUEUED, BackendState.QUEUED, BackendState.STARTING, BackendState.RUNNING]


async def test_join_makes_it_run_and_tells_once() -> None:
    clock = ManualClock()
    provider = FakeProvider(clock=clock, boot_s=1000)
    told: list[str] = []
    provider.on_running = lambda row: told.append(row.instance_id)
    await provider.apply(Change(launch=(request(),)))
    assert await states(provider) == {"l1.0": BackendState.STARTING}
    provider.join("l1.0")
    assert await states(provider) == {"l1.0": BackendState.RUNNING}
    await provider.instances()
    assert told == ["l1.0"]


async def test_lost_and_ended_instances() -> None:
    provider = FakeProvider(clock=ManualClock(), boot_s=0)
    await provider.apply(Change(launch=(request(2),)))
    provider.lose("l1.0")
    provider.end("l1.1")
    assert await states(provider) == {"l1.1": BackendState.ENDED}
    assert await provider.last_words("l1.1") == ("ended by itself",)


async def test_a_fault_strikes_so_many_times_after_so_many_calls() -> None:
    fault = Fault("instances", Unavailable("down"), times=2, skip=1)
    provider = FakeProvider(clock=ManualClock(), faults=[fault])
    await provider.instances()
    for _ in range(2):
        with pytest.raises(Unavailable, match="down"):
            await provider.instances()
    assert await provider.instances() == ()
    assert provider.listings == 2


async def test_a_lost_reply_has_acted_all_the_same() -> None:
    fault = Fault("apply", Unavailable("reply lost"), acted=True)
    provider = FakeProvider(clock=ManualClock(), faults=[fault])
    with pytest.raises(Unavailable):
        await provider.apply(Change(launch=(request(),)))
    assert set(await states(provider)) == {"l1.0"}


async def test_a_hanging_call_ends_only_by_cancellation() -> None:
    provider = FakeProvider(clock=ManualClock(), faults=[Fault("offers")])
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(provider.offers([OfferQuery(CPU, 1)]), 0.01)
    assert [one.count for one in await provider.offers([OfferQuery(CPU, 1)])] == [1]


async def test_single_asks_fail_whole_or_in_part() -> None:
    quota, never = QuotaExceeded("account is full"), InvalidRequest("no such machine")
    faults = [Fault("launch", quota, indexes=(0, 2)), Fault("launch", never), Fault("terminate", quota)]
    provider = FakeProvider(clock=ManualClock(), faults=faults)
    part = await provider.apply(Change(launch=(request(3),)))
    assert part.failed_instances == {"l1.0": quota, "l1.2": quota}
    whole = await provider.apply(Change(launch=(request(2, "l2"),)))
    assert whole.failed_launches == {"l2": never}
    refused = await provider.apply(Change(terminate=("l1.1",)))
    assert refused.failed_terminations == {"l1.1": quota}
    assert set(await states(provider)) == {"l1.1"}


async def test_a_fault_may_be_meant_for_one_node_type() -> None:
    provider = FakeProvider(
        clock=ManualClock(), faults=[Fault("launch", QuotaExceeded("no"), node_type="gpu", times=None)]
    )
    outcome = await provider.apply(Change(launch=(request(),)))
    assert not outcome.failed_launches


async def test_capacity_may_be_given_per_type() -> None:
    provider = FakeProvider(clock=ManualClock(), capacity={"cpu": 1, "gpu": 0})
    offers = await provider.offers([OfferQuery(CPU, 3)])
    assert [(one.count, one.why) for one in offers] == [(1, "fake has no machine left for cpu")]


async def test_a_manual_clock_wakes_sleepers_in_order() -> None:
    clock, woken = ManualClock(), []

    async def sleeper(seconds: float) -> None:
        await clock.sleep(seconds)
        woken.append(seconds)

    tasks = [asyncio.ensure_future(sleeper(seconds)) for seconds in (3.0, 1.0, 9.0)]
    await asyncio.sleep(0)
    clock.advance(5)
    await asyncio.gather(tasks[0], tasks[1])
    assert woken == [1.0, 3.0]
    clock.advance(5)
    await tasks[2]
    assert clock.monotonic_s() == 10
