"""Conformance: a controller that dies, or gives up waiting, at any await of a call."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from heliostat.model.instance import BackendState, Change, LaunchRequest
from heliostat.ports.provider import Outcome, Provider
from heliostat.testing.subject import OURS, Rows, Subject, on_a_loop, spread


class CrashTests(Subject):
    """Each test cuts a call short after no step of it, after one, and so on to its last (`crashes`)."""

    @on_a_loop
    async def test_a_launch_cut_short_by_a_crash_may_be_asked_again(self, tmp_path: Path) -> None:
        for steps in await self._steps_of_a_launch(tmp_path):
            request = self.request(f"lcrash{steps}", count=2)
            await self._crash(tmp_path, Change(launch=(request,)), after=steps)
            async with self._ending(tmp_path, request) as provider:
                assert set(await self.listed(provider)) <= set(request.instance_ids)
                await self.launch(provider, request)
                await self.one_of_each(provider, tmp_path, request.instance_ids)

    @on_a_loop
    async def test_a_launch_cut_short_by_a_crash_may_be_given_up(self, tmp_path: Path) -> None:
        for steps in await self._steps_of_a_launch(tmp_path):
            request = self.request(f"lcrash{steps}", count=2)
            await self._crash(tmp_path, Change(launch=(request,)), after=steps)
            async with self._ending(tmp_path, request) as provider:
                assert await provider.apply(Change(terminate=request.instance_ids)) == Outcome()
        await self._nothing_comes_late(tmp_path)

    @on_a_loop
    async def test_a_termination_cut_short_by_a_crash_may_be_asked_again(self, tmp_path: Path) -> None:
        for steps in await self._steps_of_a_termination(tmp_path):
            request = self.request(f"lcrash{steps}")
            ending = Change(terminate=request.instance_ids)
            await self._launched(tmp_path, request)
            await self._crash(tmp_path, ending, after=steps)
            async with self._ending(tmp_path, request) as provider:
                assert await provider.apply(ending) == Outcome()
                await self.wait_until(provider, lambda rows: not rows)

    @on_a_loop
    async def test_a_crash_while_listing_harms_nothing(self, tmp_path: Path) -> None:
        request = self.request(count=2)
        before, (kept, gone) = await self._launched(tmp_path, request), request.instance_ids
        life = self.life()
        await life.run(_listing(self.make(tmp_path, OURS)))
        for steps in spread(life.taken, self.crashes):
            await self.life().crash(_listing(self.make(tmp_path, OURS)), after=steps)
        async with self._ending(tmp_path, request) as provider:
            assert await self.listed(provider) == before
            await provider.apply(Change(terminate=(gone,)))
            rows = await self.wait_until(provider, lambda rows: gone not in rows)
            assert rows[kept].state is BackendState.RUNNING

    @on_a_loop
    async def test_a_cancelled_launch_may_be_asked_again(self, tmp_path: Path) -> None:
        for steps in await self._steps_of_a_launch(tmp_path):
            request = self.request(f"lcancel{steps}", count=2)
            async with self._ending(tmp_path, request) as provider:
                await self.life().cancel(provider.apply(Change(launch=(request,))), after=steps)
                assert set(await self.listed(provider)) <= set(request.instance_ids)
                await self.launch(provider, request)
                await self.one_of_each(provider, tmp_path, request.instance_ids)

    @on_a_loop
    async def test_a_cancelled_termination_may_be_asked_again(self, tmp_path: Path) -> None:
        for steps in await self._steps_of_a_termination(tmp_path):
            request = self.request(f"lcancel{steps}")
            ending = Change(terminate=request.instance_ids)
            async with self._ending(tmp_path, request) as provider:
                await self.launch(provider, request)
                await self.life().cancel(provider.apply(ending), after=steps)
                assert set(await self.listed(provider)) <= set(request.instance_ids)
                assert await provider.apply(ending) == Outcome()
                await self.wait_until(provider, lambda rows: not rows)

    @on_a_loop
    async def test_a_cancelled_listing_harms_nothing(self, tmp_path: Path) -> None:
        request = self.request()
        async with self._ending(tmp_path, request) as provider:
            before = await self.launch(provider, request)
            life = self.life()
            await life.run(_listing(provider))
            for steps in spread(life.taken, self.crashes):
                await self.life().cancel(_listing(provider), after=steps)
            assert await self.listed(provider) == before

    # How a call is cut short.

    async def _crash(self, place: Path, change: Change, *, after: int) -> None:
        """Let a controller die while it applies a change."""
        await self.life().crash(self.make(place, OURS).apply(change), after=after)

    async def _steps_of_a_launch(self, place: Path) -> list[int]:
        """Return after how many steps a launch of two is cut short; one is made for it, to the end."""
        request = self.request(count=2)
        async with self._ending(place, request) as provider:
            life = self.life()
            await life.run(provider.apply(Change(launch=(request,))))
            await self.running(provider, *request.instance_ids)
            return spread(life.taken, self.crashes)

    async def _steps_of_a_termination(self, place: Path) -> list[int]:
        request = self.request()
        await self._launched(place, request)
        async with self._ending(place, request) as provider:
            life = self.life()
            await life.run(provider.apply(Change(terminate=request.instance_ids)))
            return spread(life.taken, self.crashes)

    async def _launched(self, place: Path, request: LaunchRequest) -> Rows:
        """Launch, and let go of the provider."""
        provider = self.make(place, OURS)
        rows = await self.launch(provider, request)
        await provider.aclose()
        return rows

    @asynccontextmanager
    async def _ending(self, place: Path, request: LaunchRequest) -> AsyncIterator[Provider]:
        """Give the block a new provider; afterwards end what there is of the launch."""
        provider = self.make(place, OURS)
        yield provider
        await self.ended(provider, *request.instance_ids)
        await provider.aclose()

    async def _nothing_comes_late(self, place: Path) -> None:
        """Wait for as long as two may live for one id; what comes is ended, as the loop does it."""
        provider, until_s = self.make(place, OURS), self.now_s() + self.doubles_gone_s
        while self.now_s() < until_s:
            await self.ended(provider, *await self.listed(provider))
            await self.pass_time()
        await self.one_of_each(provider, place, ())
        await provider.aclose()


async def _listing(provider: Provider) -> None:
    await provider.instances()
