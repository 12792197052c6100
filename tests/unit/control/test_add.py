"""A controller that dies in the midst of `heliostat add` leaves all of it to the next one, or nothing."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.unit.control.stage import Stage
from tests.unit.control.world import demand


class Killed(BaseException):
    """The controller's end at a named place."""


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return Stage(tmp_path)


def dies_at(stage: Stage, patch: pytest.MonkeyPatch, *, write: int, after: bool) -> None:
    """Let the controller die at the journal's next write but so many, before or after it is on the disk."""
    writes, left = stage.journal._write, [write]

    def dying(fresh: object) -> None:
        left[0] -= 1
        if left[0] >= 0 or after:
            writes(fresh)  # type: ignore[arg-type]
        if left[0] < 0:
            raise Killed

    patch.setattr(stage.journal, "_write", dying)


@pytest.mark.parametrize("write", [0, 1, 2])
@pytest.mark.parametrize("after", [False, True])
async def test_what_was_launched_stays_and_nothing_more_is(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, write: int, after: bool
) -> None:
    await stage.step(2)
    dies_at(stage, monkeypatch, write=write, after=after)
    try:
        added = (await stage.operations.add("cpu", 2))["instance_ids"]
        await stage.settle()
    except Killed:
        added = []
    stage.restart()
    written = {one.instance_id for one in stage.journal.intents()}
    assert len(written) in (0, 2)
    assert written >= set(added)
    left = stage.journal.operator()
    assert left.added == left.protected == written
    assert not any(left.floors.values())
    await stage.step(40)
    assert list(stage.states().values()) == ["running"] * len(written)


async def test_what_waiting_work_brings_meanwhile_is_not_added_by_hand(stage: Stage) -> None:
    await stage.step(2)
    stage.ray.demands = (demand(3),)
    added = (await stage.operations.add("cpu", 1))["instance_ids"]
    assert added == ["l1.0"]
    assert len(stage.journal.intents()) == 3
    left = stage.journal.operator()
    assert left.added == left.protected == {"l1.0"}


async def test_no_floor_is_left_when_the_one_who_asked_has_gone(stage: Stage) -> None:
    await stage.step(2)
    held = asyncio.Event()
    state = stage.ray.state
    stage.ray.state = held.wait  # type: ignore[assignment,method-assign]
    asking = asyncio.create_task(stage.operations.add("cpu", 2))
    await stage.settle()
    asking.cancel()
    await asyncio.wait([asking])
    stage.ray.state = state  # type: ignore[method-assign]
    await stage.step(10)
    assert stage.provider.world.made == 0
    assert stage.controller.memory.settings() == stage.journal.operator()
