"""The contract of `ports.provider.Provider` as tests that every provider runs.

A provider's test module subclasses `ProviderConformance`, says how one is made and which
node type it can hold, and inherits the rest. The kit needs pytest, and no plug-in of it:
each test runs on an event loop of its own and has `deadline_s` to end. One test needs
Hypothesis as well, and is skipped where that is not installed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from heliostat.model.instance import BackendState, Change, Offer, OfferQuery
from heliostat.ports.errors import InsufficientCapacity, QuotaExceeded
from heliostat.ports.provider import Outcome, Provider
from heliostat.testing.crashes import CrashTests
from heliostat.testing.faults import FaultTests
from heliostat.testing.optional import OptionalTests
from heliostat.testing.subject import OURS, OVER, THEIRS, bindings, is_over, on_a_loop, refused


class ProviderConformance(CrashTests, FaultTests, OptionalTests):
    """Subclass it with a name that starts with `Test`; override what is abstract in `Subject`, at least."""

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
        assert bindings(again) == bindings(first)
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
        out = set(refused(outcome, request))
        assert out, "one more than fits was accepted"
        assert all(error.transient and str(error) for error in outcome.failed_instances.values())
        rows = await self.running(provider, *(set(request.instance_ids) - out))
        assert set(rows) == set(request.instance_ids) - out
        await provider.aclose()

    @on_a_loop
    async def test_a_full_backend_refuses_in_words(self, tmp_path: Path) -> None:
        provider = self.make(tmp_path, OURS)
        before = await self.launch(provider, self.request(count=self._needed_capacity()))
        late = self.request("l000002")
        outcome = await provider.apply(Change(launch=(late,)))
        assert set(refused(outcome, late)) == set(late.instance_ids)
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
        assert set(refused(outcome, request)) == set(request.instance_ids)
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
        rows = await self.wait_until(provider, lambda rows: is_over(rows, broken))
        assert rows[broken].detail, "a failure says why"
        await self.pass_time()
        assert is_over(await self.listed(provider), broken)
        assert await provider.apply(Change(terminate=(broken,))) == Outcome()
        rows = await self.wait_until(provider, lambda rows: broken not in rows)
        assert rows[well].state is BackendState.RUNNING
        await provider.aclose()

    # Restart of the controller, other clusters.

    @on_a_loop
    async def test_closing_ends_nothing_and_a_new_provider_sees_the_same(self, tmp_path: Path) -> None:
        provider, request = self.make(tmp_path, OURS), self.request(count=2)
        before = await self.launch(provider, request)
        await provider.aclose()
        await provider.aclose()
        again = self.make(tmp_path, OURS)
        assert await self.listed(again) == before
        assert await again.apply(Change(launch=(request,))) == Outcome()
        assert bindings(await self.listed(again)) == bindings(before)
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
        rows = await self.wait_until(again, lambda rows: is_over(rows, request.instance_ids[0]))
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

    # Anything, in any order.

    def test_random_calls_do_what_a_dictionary_says(self, tmp_path: Path) -> None:
        pytest.importorskip("hypothesis", reason="it takes Hypothesis: pip install 'heliostat[testing]'")
        from heliostat.testing.random_calls import try_random_calls

        try_random_calls(self, tmp_path)

    async def offer(self, provider: Provider, count: int) -> Offer:
        offers = await provider.offers([OfferQuery(self.node_type(), count)])
        assert [one.node_type for one in offers] == [self.node_type().name]
        return offers[0]

    def _needed_capacity(self) -> int:
        if self.capacity is None:
            pytest.skip("this backend has no limit that a test could reach")
        return self.capacity


__all__: Sequence[str] = ("OURS", "THEIRS", "ProviderConformance")
