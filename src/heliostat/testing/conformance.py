"""The contract of `ports.provider.Provider` as tests that every provider runs.

A provider's test module subclasses `ProviderConformance`, says how one is made and which
node type it can hold, and inherits the rest. The kit needs pytest, and no plug-in of it:
each test runs on an event loop of its own and has `deadline_s` to end.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import pytest

from heliostat.model.instance import (
    BackendInstance,
    BackendState,
    Change,
    LaunchRequest,
    Offer,
    OfferQuery,
)
from heliostat.model.node_type import NodeType
from heliostat.ports.errors import InsufficientCapacity, QuotaExceeded
from heliostat.ports.provider import ClusterIdentity, Diagnose, Outcome, Probe, Provider

OURS = ClusterIdentity("conformance", "uid-of-ours", "somebody")
THEIRS = ClusterIdentity("conformance", "uid-of-theirs", "somebody")
OVER = frozenset({BackendState.ENDED, BackendState.FAILED})
CANCELLED_AFTER = (0, 1, 2, 3, 5, 8)
"""After how many turns of the event loop a call is cancelled."""

Rows = dict[str, BackendInstance]
Kit = TypeVar("Kit", bound="ProviderConformance")


def on_a_loop(test: Callable[[Kit, Path], Awaitable[None]]) -> Callable[[Kit, Path], None]:
    """Make a plain test of an asynchronous one; what it launched is terminated afterwards."""

    def run(self: Kit, tmp_path: Path) -> None:
        async def bounded() -> None:
            async with asyncio.timeout(self.deadline_s):
                try:
                    await test(self, tmp_path)
                finally:
                    await self.clean_up(tmp_path)

        asyncio.run(bounded())

    run.__name__ = run.__qualname__ = getattr(test, "__name__", "test")
    run.__doc__ = test.__doc__
    return run


class ProviderConformance(ABC):
    """Subclass it with a name that starts with `Test`; override what is abstract, at least.

    `capacity` is how many instances of `node_type()` fit at once, 3 at least; None where
    the backend has no limit that a test could reach. `deadline_s` bounds each test.
    """

    capacity: int | None = None
    deadline_s: float = 60.0

    @abstractmethod
    def make(self, place: Path, identity: ClusterIdentity) -> Provider:
        """Return a provider. With the same `place` it speaks to the same backend as before."""

    @abstractmethod
    def node_type(self) -> NodeType:
        """Return a type of which at least three instances fit."""

    def impossible_type(self) -> NodeType | None:
        """Return a type that the backend must refuse for good; None if there is none."""
        return None

    def start_document(self) -> Mapping[str, object]:
        """Return the start document of a launch, without `instance_id`."""
        return {}

    async def break_instance(self, place: Path, row: BackendInstance) -> None:
        """Make a running instance fail by itself; the test is skipped where that can't be done."""
        pytest.skip("this backend can't make an instance fail")

    async def pass_time(self) -> None:
        """Let a little time pass between two listings."""
        await asyncio.sleep(0.05)

    # Tools of the tests.

    def request(self, launch_id: str = "l000001", count: int = 1) -> LaunchRequest:
        return LaunchRequest(launch_id, self.node_type(), count, self.start_document())

    async def listed(self, provider: Provider) -> Rows:
        rows = await provider.instances()
        by_id = {row.instance_id: row for row in rows}
        assert len(by_id) == len(rows), "an instance is listed twice"
        return by_id

    async def wait_until(self, provider: Provider, condition: Callable[[Rows], bool]) -> Rows:
        """List until `condition` holds; the deadline of the test is the limit."""
        while True:
            rows = await self.listed(provider)
            if condition(rows):
                return rows
            await self.pass_time()

    async def running(self, provider: Provider, *instance_ids: str) -> Rows:
        def all_run(rows: Rows) -> bool:
            return all(one in rows and rows[one].state is BackendState.RUNNING for one in instance_ids)

        return await self.wait_until(provider, all_run)

    async def launch(self, provider: Provider, request: LaunchRequest) -> Rows:
        outcome = await provider.apply(Change(launch=(request,)))
        assert outcome == Outcome(), f"refused: {outcome}"
        return await self.running(provider, *request.instance_ids)

    async def clean_up(self, place: Path) -> None:
        for identity in (OURS, THEIRS):
            provider = self.make(place, identity)
            left = tuple(await self.listed(provider))
            if left:
                await provider.apply(Change(terminate=left))
                await self.wait_until(provider, lambda rows: not rows)
            await provider.aclose()

    async def offer(self, provider: Provider, count: int) -> Offer:
        offers = await provider.offers([OfferQuery(self.node_type(), count)])
        assert [one.node_type for one in offers] == [self.node_type().name]
        return offers[0]

    # Launching.

    def test_it_is_a_provider(self, tmp_path: Path) -> None:
        provider = self.make(tmp_path, OURS)
        assert isinstance(provider, Provider)
        assert provider.name

    @on_a_loop
    async def test_nothing_is_listed_before_a_launch(self, tmp_path: Path) -> None:
        provider = self.make(tmp_path, OURS)
        assert await self.listed(provider) == {}
        assert await provider.apply(Change()) == Outcome()
        await provider.aclose()

    @on_a_loop
    async def test_a_launch_brings_its_members(self, tmp_path: Path) -> None:
        provider, request = self.make(tmp_path, OURS), self.request(count=2)
        rows = await self.launch(provider, request)
        assert set(rows) == set(request.instance_ids)
        assert {row.node_type for row in rows.values()} == {request.node_type.name}
        assert {row.shape_id for row in rows.values()} == {request.node_type.shape_id}
        assert len({row.native_id for row in rows.values()}) == 2
        assert all(row.native_id for row in rows.values())
        await provider.aclose()

    @on_a_loop
    async def test_an_accepted_instance_is_listed_at_once_or_soon(self, tmp_path: Path) -> None:
        provider, request = self.make(tmp_path, OURS), self.request()
        await provider.apply(Change(launch=(request,)))
        rows = await self.wait_until(provider, lambda rows: request.instance_ids[0] in rows)
        assert rows[request.instance_ids[0]].state not in OVER | {BackendState.STOPPING}
        await provider.aclose()

    @on_a_loop
    async def test_the_same_launch_twice_is_one(self, tmp_path: Path) -> None:
        provider, request = self.make(tmp_path, OURS), self.request(count=2)
        first = await self.launch(provider, request)
        assert await provider.apply(Change(launch=(request,))) == Outcome()
        again = await self.running(provider, *request.instance_ids)
        assert _bindings(again) == _bindings(first)
        await provider.aclose()

    @on_a_loop
    async def test_the_same_launch_twice_in_one_change_is_one(self, tmp_path: Path) -> None:
        provider, request = self.make(tmp_path, OURS), self.request()
        await provider.apply(Change(launch=(request, request)))
        rows = await self.running(provider, *request.instance_ids)
        assert set(rows) == set(request.instance_ids)
        await provider.aclose()

    @on_a_loop
    async def test_a_launch_that_fits_in_part_reports_the_rest(self, tmp_path: Path) -> None:
        capacity = self._needed_capacity()
        provider, request = self.make(tmp_path, OURS), self.request(count=capacity + 1)
        outcome = await provider.apply(Change(launch=(request,)))
        refused = _refused(outcome, request)
        assert refused, "one more than fits was accepted"
        assert all(error.transient and str(error) for error in outcome.failed_instances.values())
        rows = await self.running(provider, *(set(request.instance_ids) - refused))
        assert set(rows) == set(request.instance_ids) - refused
        await provider.aclose()

    @on_a_loop
    async def test_a_full_backend_refuses_in_words(self, tmp_path: Path) -> None:
        provider = self.make(tmp_path, OURS)
        before = await self.launch(provider, self.request(count=self._needed_capacity()))
        late = self.request("l000002")
        outcome = await provider.apply(Change(launch=(late,)))
        assert _refused(outcome, late) == set(late.instance_ids)
        errors = [*outcome.failed_launches.values(), *outcome.failed_instances.values()]
        assert all(isinstance(one, InsufficientCapacity | QuotaExceeded) for one in errors)
        assert all(str(one) for one in errors)
        assert set(await self.listed(provider)) == set(before)
        await provider.aclose()

    @on_a_loop
    async def test_an_impossible_type_is_refused_for_good(self, tmp_path: Path) -> None:
        node_type = self.impossible_type()
        if node_type is None:
            pytest.skip("this backend takes every type")
        provider, request = self.make(tmp_path, OURS), self.request()
        request = replace(request, node_type=node_type)
        outcome = await provider.apply(Change(launch=(request,)))
        assert _refused(outcome, request) == set(request.instance_ids)
        errors = [*outcome.failed_launches.values(), *outcome.failed_instances.values()]
        assert errors
        assert not any(one.transient for one in errors)
        assert await self.listed(provider) == {}
        offers = await provider.offers([OfferQuery(node_type, 1)])
        assert all(one.count == 0 and one.why for one in offers)
        await provider.aclose()

    # Offers.

    @on_a_loop
    async def test_offers_shrink_as_instances_are_launched(self, tmp_path: Path) -> None:
        capacity = self._needed_capacity()
        provider = self.make(tmp_path, OURS)
        assert (await self.offer(provider, capacity + 5)).count == capacity
        await self.launch(provider, self.request(count=2))
        fewer = await self.offer(provider, capacity + 5)
        assert fewer.count == capacity - 2
        assert fewer.why, "an offer below what was asked says why"
        await provider.aclose()

    @on_a_loop
    async def test_offers_come_back_when_instances_go(self, tmp_path: Path) -> None:
        capacity = self._needed_capacity()
        provider, request = self.make(tmp_path, OURS), self.request(count=2)
        await self.launch(provider, request)
        await provider.apply(Change(terminate=request.instance_ids))
        await self.wait_until(provider, lambda rows: not rows)
        assert (await self.offer(provider, capacity + 5)).count == capacity
        await provider.aclose()

    # Ending.

    @on_a_loop
    async def test_a_terminated_instance_goes_and_others_stay(self, tmp_path: Path) -> None:
        provider, request = self.make(tmp_path, OURS), self.request(count=2)
        await self.launch(provider, request)
        gone, kept = request.instance_ids
        assert await provider.apply(Change(terminate=(gone,))) == Outcome()
        rows = await self.wait_until(provider, lambda rows: gone not in rows)
        assert rows[kept].state is BackendState.RUNNING
        await provider.aclose()

    @on_a_loop
    async def test_terminate_is_idempotent(self, tmp_path: Path) -> None:
        provider, request = self.make(tmp_path, OURS), self.request()
        await self.launch(provider, request)
        ids = request.instance_ids
        assert await provider.apply(Change(terminate=ids)) == Outcome()
        assert await provider.apply(Change(terminate=ids)) == Outcome()
        await self.wait_until(provider, lambda rows: not rows)
        assert await provider.apply(Change(terminate=ids)) == Outcome()
        assert await self.listed(provider) == {}
        await provider.aclose()

    @on_a_loop
    async def test_terminating_an_unknown_id_is_no_error(self, tmp_path: Path) -> None:
        provider = self.make(tmp_path, OURS)
        await self.launch(provider, self.request())
        change = Change(terminate=("lnever1.0", "l000001.7", "", "../../etc"))
        assert await provider.apply(change) == Outcome()
        assert set(await self.listed(provider)) == {"l000001.0"}
        await provider.aclose()

    @on_a_loop
    async def test_an_instance_may_be_terminated_before_it_runs(self, tmp_path: Path) -> None:
        provider, request = self.make(tmp_path, OURS), self.request(count=2)
        await provider.apply(Change(launch=(request,)))
        assert await provider.apply(Change(terminate=request.instance_ids)) == Outcome()
        await self.wait_until(provider, lambda rows: not rows)
        await provider.aclose()

    @on_a_loop
    async def test_a_terminating_instance_never_looks_alive(self, tmp_path: Path) -> None:
        provider, request = self.make(tmp_path, OURS), self.request()
        await self.launch(provider, request)
        await provider.apply(Change(terminate=request.instance_ids))
        while rows := await self.listed(provider):
            assert {row.state for row in rows.values()} <= OVER | {BackendState.STOPPING}
            await self.pass_time()
        await provider.aclose()

    @on_a_loop
    async def test_a_failed_instance_stays_listed_until_terminated(self, tmp_path: Path) -> None:
        provider, request = self.make(tmp_path, OURS), self.request(count=2)
        rows = await self.launch(provider, request)
        broken, well = request.instance_ids
        await self.break_instance(tmp_path, rows[broken])
        rows = await self.wait_until(provider, lambda rows: rows[broken].state in OVER)
        assert rows[broken].detail, "a failure says why"
        await self.pass_time()
        assert (await self.listed(provider))[broken].state in OVER
        assert await provider.apply(Change(terminate=(broken,))) == Outcome()
        rows = await self.wait_until(provider, lambda rows: broken not in rows)
        assert rows[well].state is BackendState.RUNNING
        await provider.aclose()

    # Restart of the controller, other clusters, cancelled calls.

    @on_a_loop
    async def test_closing_ends_nothing_and_a_new_provider_sees_the_same(self, tmp_path: Path) -> None:
        provider, request = self.make(tmp_path, OURS), self.request(count=2)
        before = await self.launch(provider, request)
        await provider.aclose()
        await provider.aclose()
        again = self.make(tmp_path, OURS)
        assert await self.listed(again) == before
        assert await again.apply(Change(launch=(request,))) == Outcome()
        assert _bindings(await self.listed(again)) == _bindings(before)
        await again.apply(Change(terminate=request.instance_ids))
        await self.wait_until(again, lambda rows: not rows)
        await again.aclose()

    @on_a_loop
    async def test_a_termination_goes_on_after_a_restart(self, tmp_path: Path) -> None:
        provider, request = self.make(tmp_path, OURS), self.request()
        await self.launch(provider, request)
        await provider.apply(Change(terminate=request.instance_ids))
        await provider.aclose()
        again = self.make(tmp_path, OURS)
        await self.wait_until(again, lambda rows: not rows)
        await again.aclose()

    @on_a_loop
    async def test_a_failure_is_still_listed_after_a_restart(self, tmp_path: Path) -> None:
        provider, request = self.make(tmp_path, OURS), self.request()
        rows = await self.launch(provider, request)
        await provider.aclose()
        await self.break_instance(tmp_path, rows[request.instance_ids[0]])
        again = self.make(tmp_path, OURS)
        rows = await self.wait_until(again, lambda rows: rows[request.instance_ids[0]].state in OVER)
        assert rows[request.instance_ids[0]].native_id
        await again.aclose()

    @on_a_loop
    async def test_another_clusters_instances_are_neither_seen_nor_touched(self, tmp_path: Path) -> None:
        ours, theirs = self.make(tmp_path, OURS), self.make(tmp_path, THEIRS)
        request = self.request()
        await self.launch(theirs, request)
        assert await self.listed(ours) == {}
        assert await ours.apply(Change(terminate=request.instance_ids)) == Outcome()
        for _ in range(5):
            await self.pass_time()
        assert (await self.listed(theirs))[request.instance_ids[0]].state is BackendState.RUNNING
        await ours.aclose()
        await theirs.aclose()

    @on_a_loop
    async def test_a_cancelled_launch_may_be_asked_again(self, tmp_path: Path) -> None:
        for turns in CANCELLED_AFTER:
            provider, request = self.make(tmp_path, OURS), self.request(f"lcancel{turns}", count=2)
            await _cancelled(provider.apply(Change(launch=(request,))), turns)
            assert set(await self.listed(provider)) <= set(request.instance_ids)
            await self.launch(provider, request)
            assert set(await self.listed(provider)) == set(request.instance_ids)
            await provider.apply(Change(terminate=request.instance_ids))
            await self.wait_until(provider, lambda rows: not rows)
            await provider.aclose()

    @on_a_loop
    async def test_a_cancelled_termination_may_be_asked_again(self, tmp_path: Path) -> None:
        for turns in CANCELLED_AFTER:
            provider, request = self.make(tmp_path, OURS), self.request(f"lcancel{turns}")
            await self.launch(provider, request)
            await _cancelled(provider.apply(Change(terminate=request.instance_ids)), turns)
            assert set(await self.listed(provider)) <= set(request.instance_ids)
            await provider.apply(Change(terminate=request.instance_ids))
            await self.wait_until(provider, lambda rows: not rows)
            await provider.aclose()

    @on_a_loop
    async def test_a_cancelled_listing_harms_nothing(self, tmp_path: Path) -> None:
        provider, request = self.make(tmp_path, OURS), self.request()
        before = await self.launch(provider, request)
        for turns in CANCELLED_AFTER:
            await _cancelled(provider.instances(), turns)
        assert await self.listed(provider) == before
        await provider.aclose()

    # What is optional.

    @on_a_loop
    async def test_last_words_are_bounded_and_empty_for_a_stranger(self, tmp_path: Path) -> None:
        provider, request = self.make(tmp_path, OURS), self.request()
        if not isinstance(provider, Diagnose):
            pytest.skip("this provider has no Diagnose")
        await self.launch(provider, request)
        assert len(await provider.last_words(request.instance_ids[0], lines=1)) <= 1
        assert list(await provider.last_words("lnever1.0")) == []
        assert list(await provider.last_words("../../../etc/passwd")) == []
        await provider.aclose()

    @on_a_loop
    async def test_completing_a_type_keeps_what_it_says(self, tmp_path: Path) -> None:
        provider, node_type = self.make(tmp_path, OURS), self.node_type()
        if not isinstance(provider, Probe):
            pytest.skip("this provider has no Probe")
        whole = provider.complete(node_type)
        assert whole.name == node_type.name
        assert node_type.resources.fits_in(whole.resources)
        assert provider.complete(whole) == whole
        assert list(await provider.check([whole])) == []
        impossible = self.impossible_type()
        if impossible is not None:
            assert await provider.check([impossible])
        await provider.aclose()

    def _needed_capacity(self) -> int:
        if self.capacity is None:
            pytest.skip("this backend has no limit that a test could reach")
        return self.capacity


def _bindings(rows: Rows) -> dict[str, tuple[str, str | None]]:
    return {row.instance_id: (row.native_id, row.slot) for row in rows.values()}


def _refused(outcome: Outcome, request: LaunchRequest) -> set[str]:
    if request.launch_id in outcome.failed_launches:
        return set(request.instance_ids)
    return set(outcome.failed_instances)


async def _cancelled(call: Awaitable[object], turns: int) -> None:
    """Start `call`, let the loop turn `turns` times, cancel it, and wait for it to be over."""
    task = asyncio.ensure_future(call)
    for _ in range(turns):
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


__all__: Sequence[str] = ("OURS", "THEIRS", "ProviderConformance")
