"""Conformance: what only some backends have: leases, gangs, throttled launches, logs, a look at the site."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from heliostat.model.instance import BackendState, Change, OfferQuery
from heliostat.ports.provider import Diagnose, Outcome, Probe
from heliostat.testing.subject import OURS, Subject, on_a_loop, refused


class OptionalTests(Subject):
    """Each is skipped where the backend lacks the thing."""

    @on_a_loop
    async def test_the_end_of_a_lease_is_listed_from_the_start_on(self, tmp_path: Path) -> None:
        provider, node_type = self.make(tmp_path, OURS), self.leased_type()
        if node_type is None:
            pytest.skip("this backend's instances have no end")
        node_type = provider.complete(node_type) if isinstance(provider, Probe) else node_type
        (offer,) = await provider.offers([OfferQuery(node_type, 1)])
        assert offer.lease_s is not None
        rows = await self.launch(provider, self.request_of(node_type))
        (row,) = rows.values()
        assert row.started_at_s is not None
        assert row.expires_at_s is not None
        assert row.started_at_s < row.expires_at_s <= row.started_at_s + offer.lease_s + 1
        assert row.notice_s is None or 0 < row.notice_s < offer.lease_s
        await provider.aclose()
        again = self.make(tmp_path, OURS)
        assert (await self.listed(again))[row.instance_id].expires_at_s == row.expires_at_s
        await again.aclose()

    @on_a_loop
    async def test_a_gang_comes_and_goes_as_one(self, tmp_path: Path) -> None:
        provider, gang = self.make(tmp_path, OURS), replace(self.request(count=2), together=True)
        rows = await self.launch(provider, gang)
        assert set(rows) == set(gang.instance_ids)
        assert len({row.allocation_id for row in rows.values()}) == 1
        assert len({row.native_id for row in rows.values()}) == 2
        assert await provider.apply(Change(launch=(gang,))) == Outcome()
        await self.one_of_each(provider, tmp_path, gang.instance_ids)
        await self.ended(provider, *gang.instance_ids)
        await self.one_of_each(provider, tmp_path, ())
        await provider.aclose()

    @on_a_loop
    async def test_of_a_gang_that_does_not_fit_nothing_is_launched(self, tmp_path: Path) -> None:
        most = self.largest_gang or self.capacity
        if most is None:
            pytest.skip("this backend has no limit that a test could reach")
        provider, gang = self.make(tmp_path, OURS), replace(self.request(count=most + 1), together=True)
        errors = refused(await provider.apply(Change(launch=(gang,))), gang)
        assert set(errors) in (set(), set(gang.instance_ids)), "it was launched in part"
        assert all(str(error) for error in errors.values())
        # A queue may take it; then it waits as a whole, or is told to be impossible.
        for _ in range(5):
            rows = await self.listed(provider)
            assert set(rows) == set(gang.instance_ids) - set(errors)
            assert {row.state for row in rows.values()} <= {BackendState.QUEUED, BackendState.FAILED}
            await self.pass_time()
        await self.ended(provider, *gang.instance_ids)
        await self.one_of_each(provider, tmp_path, ())
        await provider.aclose()

    @on_a_loop
    async def test_what_is_held_back_runs_once_it_is_let_go(self, tmp_path: Path) -> None:
        provider = self.make(tmp_path, OURS)
        node_type = self.throttled_type(provider)
        if node_type is None:
            pytest.skip("this backend holds nothing back")
        request = replace(self.request_of(node_type, count=3), at_once=1)
        await provider.apply(Change(launch=(request,)))
        first, *others = request.instance_ids
        rows = await self.running(provider, first)
        assert {key for key, row in rows.items() if row.throttled} == set(others)
        assert {rows[key].state for key in others} == {BackendState.QUEUED}
        await provider.aclose()
        again = self.make(tmp_path, OURS)
        assert {key for key, row in (await self.listed(again)).items() if row.throttled} == set(others)
        assert await again.apply(Change(unthrottle=("another",))) == Outcome()
        assert await again.apply(Change(unthrottle=(node_type.name,))) == Outcome()
        rows = await self.running(again, *request.instance_ids)
        assert not any(row.throttled for row in rows.values())
        await again.aclose()

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
