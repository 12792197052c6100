"""Conformance: each error is told as what it is, and a listing that is behind leads to nothing wrong."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from heliostat.model.instance import BackendState, Change, LaunchRequest
from heliostat.ports.errors import (
    AuthenticationFailed,
    InsufficientCapacity,
    InvalidRequest,
    ProviderError,
    QuotaExceeded,
    Unavailable,
)
from heliostat.ports.provider import Outcome, Provider
from heliostat.testing.subject import OURS, OVER, Subject, on_a_loop, refused


class FaultTests(Subject):
    @on_a_loop
    async def test_a_backend_that_cant_be_reached_is_unavailable(self, tmp_path: Path) -> None:
        await self._is_told(tmp_path, Unavailable)

    @on_a_loop
    async def test_a_backend_without_room_has_no_capacity(self, tmp_path: Path) -> None:
        await self._is_told(tmp_path, InsufficientCapacity)

    @on_a_loop
    async def test_a_limit_is_a_quota(self, tmp_path: Path) -> None:
        await self._is_told(tmp_path, QuotaExceeded)

    @on_a_loop
    async def test_what_can_never_be_is_invalid(self, tmp_path: Path) -> None:
        await self._is_told(tmp_path, InvalidRequest)

    @on_a_loop
    async def test_a_backend_that_does_not_know_us_says_so(self, tmp_path: Path) -> None:
        await self._is_told(tmp_path, AuthenticationFailed)

    @on_a_loop
    async def test_a_listing_that_fails_is_no_empty_one(self, tmp_path: Path) -> None:
        provider, request = self.make(tmp_path, OURS), self.request()
        before = await self.launch(provider, request)
        async with self.failing(tmp_path, Unavailable):
            with pytest.raises(Unavailable) as found:
                await provider.instances()
            assert str(found.value)
        assert set(await self.listed(provider)) == set(before)
        await provider.aclose()

    async def _is_told(self, place: Path, error: type[ProviderError]) -> None:
        provider = self.make(place, OURS)
        async with self.failing(place, error) as node_type:
            request = replace(self.request("lrefused", count=2), node_type=node_type)
            found = await _errors(provider, request)
            assert found, "it was not refused"
            for one in found:
                assert type(one) is error or isinstance(one, error), repr(one)
                assert str(one), "a refusal says why"
                assert one.retry_after_s is None or one.retry_after_s > 0
        # Once it is over, nothing of it is left in the way.
        await self.ended(provider, *request.instance_ids)
        await self.launch(provider, self.request("lafter"))
        await provider.aclose()

    # A listing that is behind.

    @on_a_loop
    async def test_what_is_not_listed_yet_is_not_launched_again(self, tmp_path: Path) -> None:
        provider, request = self.make(tmp_path, OURS), self.request(count=2)
        async with self.lagging(tmp_path):
            for _ in range(2):
                assert await provider.apply(Change(launch=(request,))) == Outcome()
                assert await self.listed(provider) == {}
        await self.running(provider, *request.instance_ids)
        await self.one_of_each(provider, tmp_path, request.instance_ids)
        await provider.aclose()

    @on_a_loop
    async def test_what_a_new_controller_does_not_see_yet_is_soon_one(self, tmp_path: Path) -> None:
        provider, request = self.make(tmp_path, OURS), self.request(count=2)
        async with self.lagging(tmp_path):
            await provider.apply(Change(launch=(request,)))
            await provider.aclose()
            provider = self.make(tmp_path, OURS)
            assert await provider.apply(Change(launch=(request,))) == Outcome()
        await self.running(provider, *request.instance_ids)
        await self.one_of_each(provider, tmp_path, request.instance_ids)
        await provider.aclose()

    @on_a_loop
    async def test_what_is_not_listed_yet_can_be_terminated(self, tmp_path: Path) -> None:
        provider, request = self.make(tmp_path, OURS), self.request(count=2)
        async with self.lagging(tmp_path):
            await provider.apply(Change(launch=(request,)))
            assert await provider.apply(Change(terminate=request.instance_ids)) == Outcome()
        await self.ended(provider, *request.instance_ids)
        await self.one_of_each(provider, tmp_path, ())
        await provider.aclose()

    @on_a_loop
    async def test_what_is_still_listed_after_its_termination_never_looks_alive(self, tmp_path: Path) -> None:
        provider, request = self.make(tmp_path, OURS), self.request()
        await self.launch(provider, request)
        async with self.lagging(tmp_path):
            for _ in range(2):
                assert await provider.apply(Change(terminate=request.instance_ids)) == Outcome()
                states = {row.state for row in (await self.listed(provider)).values()}
                assert states <= OVER | {BackendState.STOPPING}
        await self.wait_until(provider, lambda rows: not rows)
        await provider.aclose()


async def _errors(provider: Provider, request: LaunchRequest) -> list[ProviderError]:
    """Return what a launch is refused with; a backend that can't be reached may fail as a whole."""
    try:
        return list(refused(await provider.apply(Change(launch=(request,))), request).values())
    except ProviderError as error:
        return [error]
