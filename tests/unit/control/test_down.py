"""`down` is over when nothing of ours is left anywhere, or when it has waited long enough."""

from __future__ import annotations

from pathlib import Path

import pytest

from heliostat.ports.errors import Unavailable
from heliostat.testing.fake import Fault
from tests.unit.control.stage import Stage, up_with


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return Stage(tmp_path)


async def test_down_releases_everything_and_ends(stage: Stage) -> None:
    await up_with(stage, 2)
    await stage.operations.down()
    await stage.step(4)
    assert stage.provider.world.instances == {}
    assert stage.controller._finished()


async def test_down_waits_for_a_backend_of_which_only_a_lost_journal_knew(stage: Stage) -> None:
    await up_with(stage, 2)
    stage.connection.close()
    (stage.folder / "journal.db").unlink()
    stage.restart()
    stage.provider.faults.append(Fault("instances", Unavailable("no answer"), times=None))
    await stage.operations.down()
    await stage.step(2)
    assert not stage.controller._finished()
    stage.provider.faults.clear()
    await stage.step(4)
    assert stage.provider.world.instances == {}
    assert stage.controller._finished()


async def test_down_waits_so_long_for_a_backend_that_stays_away(stage: Stage) -> None:
    stage.provider.faults.append(Fault("instances", Unavailable("no answer"), times=None))
    await stage.operations.down()
    await stage.step(1)
    assert not stage.controller._finished()
    stage.clock.advance(stage.controller.timing.wind_down_s)
    assert stage.controller._finished()


@pytest.mark.parametrize("another", [False, True])
async def test_down_waits_for_a_launch_that_may_still_be_on_its_way(stage: Stage, another: bool) -> None:
    """Also for an earlier controller's that no listing had."""
    stage.provider.faults.append(Fault("apply", Unavailable("no answer"), times=1))
    await stage.operations.add("cpu", 1)
    await stage.step(2)
    await stage.operations.down()
    await stage.step(2)
    if another:
        stage.restart()
        await stage.operations.down()
    await stage.step(4)
    assert not stage.controller._finished()
    stage.clock.advance(2 * stage.controller.timing.message_timeout_s)
    await stage.step(4)
    assert stage.controller._finished()
