"""A controller that died before its launch was answered: the next asks again, at once and by the same id."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from heliostat.control.memory import Memory
from heliostat.control.unanswered import AGAIN_AT_MOST
from heliostat.model.history import History
from heliostat.model.instance import Change, InstanceIntent, Intent, LaunchRequest
from heliostat.ports.errors import Unavailable
from heliostat.ports.journal import ANSWERED, Event, ProviderCall
from heliostat.testing.fake import Fault
from tests.unit.control.scenes import apart
from tests.unit.control.stage import Stage
from tests.unit.control.world import demand, node_type, spec


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    made = Stage(tmp_path, spec=spec(node_type(throttles=True)))
    yield made
    made.journal.close()


async def dies_before_asking(stage: Stage, count: int = 2) -> None:
    """Let a launch be written down, and the controller die before the backend is asked."""
    stage.ray.demands = (demand(count),)
    for actor in stage.controller.actors.values():
        actor.submit = lambda _: None  # type: ignore[method-assign]
    await stage.step(1)
    stage.controller.ports.journal.commit()
    stage.restart()


def launches(stage: Stage) -> list[LaunchRequest]:
    return [one for change in stage.provider.changes for one in change.launch]


async def test_what_was_never_sent_is_asked_for_at_once_and_nothing_has_failed(stage: Stage) -> None:
    await dies_before_asking(stage)
    assert launches(stage) == []
    await stage.step(1)
    (ask,) = launches(stage)
    assert (ask.launch_id, ask.count, ask.at_once) == ("l1", 2, 3)
    assert stage.kinds().count("again") == 1
    await stage.step(8)
    assert stage.states() == {"l1.0": "running", "l1.1": "running"}
    assert len(launches(stage)) == 1
    assert stage.controller.memory.history.failures == ()
    assert stage.ids.made == 1


async def test_it_is_asked_for_again_by_the_next_one_too_if_that_dies(stage: Stage) -> None:
    await dies_before_asking(stage)
    await dies_before_asking(stage)
    await stage.step(8)
    assert [one.launch_id for one in launches(stage)] == ["l1"]
    assert set(stage.states().values()) == {"running"}


async def test_one_of_which_each_controller_dies_is_given_up_after_a_few(stage: Stage) -> None:
    for _ in range(AGAIN_AT_MOST + 1):
        await dies_before_asking(stage)
    await stage.step(1)
    assert (launches(stage), stage.kinds().count("again")) == ([], AGAIN_AT_MOST)
    await stage.step(8, seconds=10.0)
    assert "l1.0" not in stage.states()
    assert [one.instance_id for one in stage.controller.memory.history.failures] == ["l1.0", "l1.1"]


async def test_time_without_a_controller_is_not_held_against_it(stage: Stage) -> None:
    await dies_before_asking(stage)
    await stage.operations.pause(True)
    await stage.step(8)
    assert stage.journal.history().absent_since.keys() == {"l1.0", "l1.1"}
    stage.restart()
    await stage.operations.pause(False)
    await stage.step(1, seconds=3600.0)
    assert [one.launch_id for one in launches(stage)] == ["l1"]
    await stage.step(8)
    assert set(stage.states().values()) == {"running"}
    assert stage.controller.memory.history.failures == ()


async def test_what_the_backend_has_is_taken_over_and_not_asked_for_again(stage: Stage) -> None:
    stage.ray.demands = (demand(2),)
    stage.provider.faults.append(Fault("apply", Unavailable("connection lost"), acted=True))
    await stage.step(1)
    assert stage.provider.world.made == 2
    stage.restart()
    assert stage.controller.memory.unanswered.keys() == {"l1"}
    await stage.step(8)
    assert launches(stage) == []
    assert set(stage.states().values()) == {"running"}


async def test_where_the_listing_lags_the_backend_knows_the_id(stage: Stage) -> None:
    await dies_before_asking(stage)
    launch = stage.controller.memory.unanswered["l1"]
    await stage.provider.instances()
    stage.provider.world.lag()
    await stage.provider.apply(Change(launch=(stage.controller._request("l1", launch),)))
    await stage.step(2)
    stage.provider.world.catch_up()
    await stage.step(6)
    assert [one.launch_id for one in launches(stage)] == ["l1", "l1"]
    assert stage.provider.world.made == 2
    assert set(stage.states().values()) == {"running"}


async def test_an_answered_launch_is_not_asked_for_again(stage: Stage) -> None:
    stage.provider.world.lag()
    stage.ray.demands = (demand(1),)
    await stage.step(2)
    stage.journal.commit()
    stage.restart()
    assert stage.controller.memory.unanswered == {}
    await stage.step(2)
    assert launches(stage) == []


@pytest.mark.parametrize("what", ["paused", "the head is silent", "the backend is silent"])
async def test_nothing_is_asked_for_on_missing_information(stage: Stage, what: str) -> None:
    await dies_before_asking(stage)
    if what == "paused":
        await stage.operations.pause(True)
    if what == "the head is silent":
        stage.ray.silent = True
    if what == "the backend is silent":
        stage.provider.faults.append(Fault("instances", Unavailable("no answer"), times=3))
    await stage.step(3)
    assert launches(stage) == []
    stage.ray.silent = False
    await stage.operations.pause(False)
    await stage.step(1)
    assert [one.launch_id for one in launches(stage)] == ["l1"]


async def test_what_is_not_wanted_any_more_or_in_another_shape_is_let_go(stage: Stage) -> None:
    await dies_before_asking(stage)
    changed = spec(replace(node_type(), shape_id="another"))
    stage.controller.use_spec(changed)
    await stage.step(1)
    assert "l1" not in [one.launch_id for one in launches(stage)]


async def test_when_the_cluster_goes_down_it_is_released(stage: Stage) -> None:
    await dies_before_asking(stage)
    stage.controller.go_down("asked by hand")
    await stage.step(1)
    assert launches(stage) == []
    assert stage.controller.memory.unanswered == {}


async def test_while_the_journal_can_not_be_written_it_waits(stage: Stage) -> None:
    await dies_before_asking(stage)
    stage.disk_is_full()
    await stage.step(2)
    assert launches(stage) == []
    stage.disk_is_full(False)
    await stage.step(2)
    assert [one.launch_id for one in launches(stage)] == ["l1"]


async def test_a_placement_group_is_asked_for_as_one(stage: Stage) -> None:
    stage.ray.gangs = (apart(demand(2)),)
    await dies_before_asking(stage, 0)
    await stage.step(1)
    (ask,) = launches(stage)
    assert ask.together


def wanted(instance_id: str = "l1.0") -> InstanceIntent:
    return InstanceIntent(instance_id, "l1", "cpu", "fake", "shape-cpu", Intent.WANTED, 100.0, "a demand")


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"why": "demand"},
        {"count": 1},
        {"count": None, "why": "demand"},
        {"count": "some", "why": "demand"},
        {"count": 1, "why": "what only a later version knows"},
    ],
)
def test_a_launch_that_can_not_be_read_is_left_to_be_found_or_lost(
    stage: Stage, data: dict[str, object]
) -> None:
    launch = Event(100.0, "launch", "1 × cpu", instance_id="l1.0", node_type="cpu", data=data)
    stage.journal.record_intents([wanted()], [launch])
    assert Memory.of(stage.journal, now_s=stage.clock.now_s()).unanswered == {}


@pytest.mark.parametrize(
    "asked",
    [
        {"launch": [{"node_type": "cpu", "count": 1}]},
        {"launch": [{"launch_id": None, "count": 1}]},
        {"launch": ["l1"]},
        {"launch": {"l1": 1}},
        {"launch": None},
        {},
    ],
)
def test_a_call_that_does_not_name_its_launches_says_nothing_of_them(
    stage: Stage, asked: dict[str, object]
) -> None:
    launch = Event(
        100.0, "launch", "1 × cpu", instance_id="l1.0", node_type="cpu", data={"count": 1, "why": "demand"}
    )
    calls = [
        ProviderCall(1, "fake", 100.0, asked, ended=ANSWERED),
        ProviderCall(2, "fake", 101.0, {"launch": [{"launch_id": "l2"}]}, ended=ANSWERED),
    ]
    two = replace(wanted("l2.0"), launch_id="l2")
    stage.journal.record_intents([wanted(), two], [launch], calls=calls)
    assert Memory.of(stage.journal, now_s=stage.clock.now_s()).unanswered.keys() == {"l1"}


def test_since_when_what_was_released_is_gone_is_not_forgotten(stage: Stage) -> None:
    launch = Event(
        100.0, "launch", "2 × cpu", instance_id="l1.0", node_type="cpu", data={"count": 2, "why": "demand"}
    )
    gone = replace(wanted("l1.1"), intent=Intent.RELEASED, released_at_s=105.0)
    stage.journal.record_intents([wanted(), gone], [launch])
    stage.journal.record_history(History(absent_since={"l1.0": 110.0, "l1.1": 110.0}))
    memory = Memory.of(stage.journal, now_s=stage.clock.now_s())
    assert memory.unanswered.keys() == {"l1"}
    assert memory.history.absent_since == {"l1.1": 110.0}
