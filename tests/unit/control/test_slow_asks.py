"""A backend that takes long to answer: what it is being asked for is not lost for being in no listing yet."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from heliostat.model.instance import Change
from heliostat.planner.limits import LOST_AFTER_S
from heliostat.ports.provider import Outcome
from tests.unit.control.stage import Stage
from tests.unit.control.world import demand


class Slow:
    """Holds back what a backend does at each call, until the call is let go."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._applies = stage.provider.apply
        self.calls: list[asyncio.Event] = []
        stage.provider.apply = self._apply  # type: ignore[method-assign]

    async def _apply(self, change: Change) -> Outcome:
        self.calls.append(asyncio.Event())
        await self.calls[-1].wait()
        return await self._applies(change)

    async def rounds(self, count: int, *, lists: bool = True) -> None:
        """Let so many rounds pass, a second each, whatever is under way."""
        for _ in range(count):
            self._stage.clock.advance(1.0)
            if lists:
                await self._stage.controller.watches["fake"].look()
            await self._stage.controller.round()
            await self.breath()

    async def breath(self) -> None:
        for _ in range(5):
            await asyncio.sleep(0)


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    made = Stage(tmp_path)
    await made.step(2)
    yield made
    made.journal.close()


async def test_a_launch_is_not_lost_by_a_listing_from_before_its_answer(stage: Stage) -> None:
    slow = Slow(stage)
    stage.ray.demands = (demand(1),)
    await slow.rounds(int(LOST_AFTER_S) + 10)
    slow.calls[0].set()
    await slow.breath()
    # The round that the answer wakes has the listing that began before it.
    await slow.rounds(1, lists=False)
    assert stage.controller.memory.history.failures == ()
    assert stage.states() == {"l1.0": "requested"}
    await slow.rounds(6)
    assert stage.states() == {"l1.0": "running"}


async def test_nor_by_one_that_is_long_ago_where_the_next_lacks_it_still(stage: Stage) -> None:
    slow = Slow(stage)
    stage.ray.demands = (demand(1),)
    await slow.rounds(8)
    await slow.rounds(int(LOST_AFTER_S) + 5, lists=False)
    stage.provider.world.lag()
    slow.calls[0].set()
    await slow.breath()
    await slow.rounds(1, lists=False)
    await slow.rounds(3)
    assert stage.controller.memory.history.failures == ()
    assert stage.states() == {"l1.0": "requested"}


async def test_one_that_was_answered_and_never_shows_up_is_lost_all_the_same(stage: Stage) -> None:
    slow = Slow(stage)
    stage.ray.demands = (demand(1),)
    await slow.rounds(10)
    stage.provider.world.lag()
    slow.calls[0].set()
    await slow.rounds(int(LOST_AFTER_S) + 3)
    (failure,) = stage.controller.memory.history.failures
    assert failure.instance_id == "l1.0"
    assert "never seen in a listing" in failure.error
