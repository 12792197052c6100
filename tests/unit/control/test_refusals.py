"""A backend that refuses launches: when it is asked again, how many at a time, and what people are told."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from heliostat.cli import view
from heliostat.planner.limits import (
    BREAKER_FAILURES,
    BREAKER_FIRST_S,
    FIRST_TRY,
    JITTER,
    PERMANENT_FIRST_S,
    PROBATION_S,
)
from heliostat.ports.errors import AuthenticationFailed, InvalidRequest, QuotaExceeded, Unavailable
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


async def test_an_unchanged_file_asks_at_once_for_what_waits(stage: Stage) -> None:
    stage.provider.faults.append(Fault("launch", InvalidRequest("no such account"), times=1))
    stage.ray.demands = (demand(1),)
    await stage.step(10)
    assert asked(stage) == [1]
    answer = await stage.operations.apply()
    again = "cpu is asked for again now, last failure: no such account"
    assert answer == {"changes": [], "again": [again]}
    await stage.settle()
    assert asked(stage) == [1, 1]
    assert [one.text for one in stage.journal.events() if one.kind == "apply"] == [again]
    await stage.step(5)
    assert (await stage.operations.apply())["again"] == []


@pytest.mark.parametrize("changed", [{"name": "other"}, {"shape_id": "mended"}])
async def test_of_what_the_file_no_longer_has_in_this_shape_nothing_is_told(
    stage: Stage, changed: Mapping[str, str]
) -> None:
    stage.provider.faults.append(Fault("launch", InvalidRequest("no such account"), times=1))
    stage.ray.demands = (demand(1),)
    await stage.step(10)
    stage.config.spec = spec(node_type(**changed))
    answer = await stage.operations.apply()
    assert answer["changes"]
    assert answer["again"] == []


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


class TestBreaker:
    @pytest.fixture
    def stage(self, tmp_path: Path) -> Iterator[Stage]:
        kinds = [node_type(name) for name in "abcd"]
        made = Stage(tmp_path, spec=spec(*kinds, max_workers=20, upscaling_speed=0.0))
        yield made
        made.journal.close()

    async def test_it_opens_with_an_event_lets_one_through_and_closes_with_another(
        self, stage: Stage
    ) -> None:
        stage.busy = True
        stage.provider.faults.append(
            Fault("launch", AuthenticationFailed("the token has expired"), times=BREAKER_FAILURES)
        )
        stage.ray.demands = (demand(3),)
        await stage.step(8)
        (told,) = events(stage)
        assert told.startswith(
            "the breaker of fake opens: fake refused 3 calls in a row, it is asked again in "
        )
        assert told.endswith(" s: the token has expired")
        assert "breaker    fake refused" in view.plain(await stage.operations.status())
        for subject in (None, "d"):
            lines = (await stage.operations.explain(subject))["lines"]
            assert any(line.startswith("breaker: fake refused") for line in lines)
        await stage.step(int(BREAKER_FIRST_S * (1 + JITTER)))
        assert events(stage)[1:] == ["the breaker of fake closes: a launch was accepted"]
        assert asked(stage) == [3, 3, 3, 1, 2]

    async def test_one_that_nobody_needs_closes_by_itself(self, stage: Stage) -> None:
        stage.provider.faults.append(Fault("launch", Unavailable("down", retry_after_s=20.0)))
        stage.ray.demands = (demand(1),)
        await stage.step(3)
        stage.ray.demands = ()
        await stage.step(int(20 * (1 + JITTER) + PROBATION_S))
        assert [text.partition(":")[0] for text in events(stage)] == [
            "the breaker of fake opens",
            "the breaker of fake closes",
        ]

    async def test_apply_closes_it(self, stage: Stage) -> None:
        stage.provider.faults.append(Fault("launch", Unavailable("down", retry_after_s=500.0), times=1))
        stage.ray.demands = (demand(3),)
        await stage.step(50)
        assert asked(stage) == [3]
        assert (await stage.operations.apply())["again"] == ["fake is asked again now, last refusal: down"]
        await stage.settle()
        assert asked(stage) == [3, 3]

    async def test_what_is_to_end_is_asked_for_as_ever(self, stage: Stage) -> None:
        stage.ray.demands = (demand(1),)
        await stage.step(6)
        assert list(stage.states().values()) == ["running"]
        stage.provider.faults.append(Fault("launch", Unavailable("down", retry_after_s=500.0), times=None))
        stage.ray.demands = (demand(3),)
        await stage.step(3)
        assert stage.controller.memory.history.breakers["fake"].is_open(stage.clock.now_s())
        stage.ray.demands = ()
        await stage.step(20)
        assert stage.provider.world.instances == {}


def events(stage: Stage) -> list[str]:
    return [one.text for one in stage.journal.events() if one.kind == "breaker"]


def _fails(*_: object) -> None:
    raise RuntimeError("a test breaks this round")
