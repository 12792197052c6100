"""A backend that refuses launches: when it is asked again, how many at a time, and what people are told."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from heliostat.cli import view
from heliostat.planner.limits import FIRST_TRY, PERMANENT_FIRST_S
from heliostat.ports.errors import InvalidRequest, QuotaExceeded
from heliostat.testing.fake import Fault
from tests.unit.control.stage import Stage
from tests.unit.control.world import demand, node_type, spec

LIMIT = QuotaExceeded("AssocMaxSubmitJobLimit", retry_after_s=60.0)


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    made = Stage(tmp_path, spec=spec(node_type(max_workers=200), max_workers=200, upscaling_speed=0.0))
    made.busy = True
    yield made
    made.journal.close()


def asked(stage: Stage) -> list[int]:
    return [one.count for change in stage.provider.changes for one in change.launch]


async def test_a_limit_is_asked_again_when_the_backend_said_and_no_sooner(stage: Stage) -> None:
    stage.provider.faults.append(Fault("launch", LIMIT, times=1))
    stage.ray.demands = (demand(1),)
    await stage.step(60)
    assert asked(stage) == [1]
    await stage.step(40)
    assert asked(stage) == [1, 1]


async def test_status_and_explain_say_so_in_the_backends_own_words(stage: Stage) -> None:
    stage.provider.faults.append(Fault("launch", LIMIT, times=1))
    stage.ray.demands = (demand(1),)
    await stage.step(3)
    text = view.plain(await stage.operations.status())
    assert "was refused once, asked again in " in text
    assert "as the backend asks" in text
    assert "AssocMaxSubmitJobLimit" in text
    lines = (await stage.operations.explain("cpu"))["lines"]
    assert "last failure: AssocMaxSubmitJobLimit" in lines
    assert any(line.startswith("it was refused once, asked again in ") for line in lines)


async def test_where_10_of_100_are_let_in_the_others_are_not_asked_for_again_at_their_joins(
    stage: Stage,
) -> None:
    """Each of the ten joins in a round of its own; what comes then is a few at a time, ever more seldom."""
    stage.ray.demands = (demand(FIRST_TRY),)
    await stage.step(8)
    stage.provider.faults.append(Fault("launch", LIMIT, times=None, indexes=tuple(range(10, 100))))
    stage.provider.boot_s = 1e6
    stage.ray.demands = (demand(100),)
    await stage.step(2)
    assert asked(stage) == [FIRST_TRY, 100]
    stage.provider.faults[:] = [Fault("launch", LIMIT, times=None)]
    for one in list(stage.provider.world.instances):
        stage.provider.join(one)
        await stage.step(3)
    assert asked(stage)[2:] in ([], [FIRST_TRY])
    await stage.step(600)
    assert set(asked(stage)[2:]) == {FIRST_TRY}
    assert len(asked(stage)[2:]) < 10


async def test_what_is_wrong_for_good_is_asked_rarely_and_at_once_after_apply(stage: Stage) -> None:
    stage.provider.faults.append(Fault("launch", InvalidRequest("no such account"), times=None))
    stage.ray.demands = (demand(1),)
    await stage.step(int(PERMANENT_FIRST_S) - 10)
    assert asked(stage) == [1]
    assert "refused for good" in view.plain(await stage.operations.status())
    stage.provider.faults.clear()
    stage.config.spec = spec(replace(stage.spec.policy.node_types[0], shape_id="mended"))
    await stage.operations.apply()
    await stage.step(2)
    assert asked(stage) == [1, 1]


async def test_a_round_that_fails_forgets_no_answer(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    stage.ray.demands = (demand(1),)
    await stage.step(1)
    assert [one.accepted for one in stage.controller.memory.answers["fake"]] == [{"cpu"}]
    with monkeypatch.context() as broken:
        broken.setattr(stage.controller, "_decide", _fails)
        with pytest.raises(RuntimeError):
            await stage.controller.round()
    assert stage.controller.memory.answers
    await stage.controller.round()
    assert stage.controller.memory.answers == {}


def _fails(*_: object) -> None:
    raise RuntimeError("a test breaks this round")
