"""What is written down of a round, and what the loop does while nothing can be."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from heliostat.control.ledger import NAMED_AT_MOST, asked, refusals
from heliostat.model.instance import Change, DrainReason, Intent, LaunchRequest, NodeStatus
from heliostat.ports.errors import (
    HeliostatError,
    InsufficientCapacity,
    InvalidRequest,
    JournalError,
    Unavailable,
)
from heliostat.ports.provider import Outcome
from heliostat.testing.fake import Fault
from tests.unit.control.stage import Stage, let_idle, up_with
from tests.unit.control.world import demand, node_type


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return Stage(tmp_path)


class TestAFullDisk:
    async def test_nothing_is_launched_until_there_is_space_again(self, stage: Stage) -> None:
        await stage.step(2)
        stage.disk_is_full()
        stage.ray.demands = (demand(2),)
        await stage.step(20)
        assert stage.provider.world.made == 0
        status = await stage.operations.status()
        assert "can't be written" in status.journal
        assert not any(line.startswith("launching") for line in status.next)
        assert stage.kinds().count("journal") == 1

        stage.disk_is_full(False)
        await stage.step(5)
        assert stage.provider.world.made == 2
        assert (await stage.operations.status()).journal == ""
        told = [one.text for one in stage.journal.events() if one.kind == "journal"]
        assert "nothing is launched until the journal can be written" in told[0]
        assert told[1:] == ["the journal can be written again: launches go on"]

    async def test_what_is_idle_leaves_all_the_same_and_is_written_later(self, stage: Stage) -> None:
        await up_with(stage, 3)
        stage.disk_is_full()
        let_idle(stage)
        await stage.step(20)
        assert {reason for _, reason in stage.ray.drains} == {DrainReason.IDLE}
        assert stage.provider.world.instances == {}
        stage.disk_is_full(False)
        await stage.step(20)
        assert stage.journal.intents() == ()
        assert stage.kinds().count("release") == 3

    async def test_work_goes_on(self, stage: Stage) -> None:
        await up_with(stage, 3)
        stage.disk_is_full()
        await stage.step(60)
        assert list(stage.states().values()) == ["running"] * 3
        assert stage.ray.drains == []

    async def test_a_crash_meanwhile_launches_nothing_twice_and_ends_no_work(self, stage: Stage) -> None:
        await up_with(stage, 3)
        stage.disk_is_full()
        (gone, *stay) = sorted(stage.states())
        stage.ray.nodes[f"node-{gone}"] = replace(
            stage.ray.nodes[f"node-{gone}"], status=NodeStatus.IDLE, available=node_type().resources
        )
        await stage.step(10)
        assert sorted(stage.provider.world.instances) == stay
        # What the dead controller knew of the release is lost: the journal still wants it.
        stage.restart()
        assert [one.intent for one in stage.journal.intents()] == [Intent.WANTED] * 3
        await stage.step(60)
        assert sorted(stage.provider.world.instances) == stay
        assert [one for one, state in stage.states().items() if state == "running"] == stay
        assert stage.provider.world.made == 3

    async def test_a_controller_that_starts_then_does_the_same(self, stage: Stage, tmp_path: Path) -> None:
        await up_with(stage, 2)
        stage.restart()
        stage.disk_is_full()
        await stage.step(10)
        assert list(stage.states().values()) == ["running"] * 2

    async def test_what_people_ask_for_is_refused_rather_than_forgotten(self, stage: Stage) -> None:
        await stage.step(2)
        stage.disk_is_full()
        with pytest.raises(JournalError, match="can't be written"):
            await stage.operations.add("cpu", 1)
        stage.disk_is_full(False)
        await stage.step(5)
        assert stage.provider.world.made == 0

    async def test_what_people_asked_for_workers_that_are_no_more_goes_all_the_same(
        self, stage: Stage
    ) -> None:
        await up_with(stage, 2)
        (gone, stays) = sorted(stage.states())
        for one in (gone, stays):
            await stage.operations.protect(one, True)
        stage.disk_is_full()
        stage.provider.world.instances.pop(gone)
        stage.ray.nodes[f"node-{gone}"] = replace(stage.ray.nodes[f"node-{gone}"], status=NodeStatus.DEAD)
        await stage.step(60)
        assert stage.controller.memory.operator.protected == {stays}
        stage.disk_is_full(False)
        await stage.step(1)
        stage.restart()
        assert stage.journal.operator().protected == {stays}

    async def test_down_is_not_refused(self, stage: Stage) -> None:
        await up_with(stage, 2)
        stage.disk_is_full()
        await stage.operations.down()
        await stage.step(4)
        assert stage.provider.world.instances == {}
        assert stage.controller._finished()

    async def test_running_ends_without_an_error(self, stage: Stage) -> None:
        stage.controller.timing = replace(stage.controller.timing, round_s=0.01)
        stage.disk_is_full()
        stage.controller.go_down("asked by hand")
        await asyncio.wait_for(stage.controller.run(), 5)


class TestCalls:
    async def test_an_answer_has_what_was_asked_and_how_long_it_took(self, stage: Stage) -> None:
        await up_with(stage, 2)
        (call,) = stage.journal.calls()
        (launch,) = {one.launch_id for one in stage.journal.intents()}
        assert call.asked == {"launch": [{"launch_id": launch, "node_type": "cpu", "count": 2}]}
        assert (call.backend, call.ended, call.error, call.took_s) == ("fake", "answer", "", 0.0)

    async def test_what_an_answer_refuses_is_in_it(self, stage: Stage) -> None:
        stage.provider.faults.append(Fault("launch", InsufficientCapacity("no GPU is left")))
        stage.ray.demands = (demand(2),)
        await stage.step(1)
        (call,) = stage.journal.calls()
        assert (call.ended, call.error) == ("answer", "1 launches: no GPU is left")

    async def test_an_error_has_the_backends_words(self, stage: Stage) -> None:
        stage.provider.faults.append(Fault("apply", Unavailable("slurmctld does not answer")))
        stage.ray.demands = (demand(1),)
        await stage.step(1)
        (call,) = stage.journal.calls()
        assert (call.ended, call.error) == ("error", "slurmctld does not answer")

    async def test_one_that_is_not_answered_in_time(self, stage: Stage) -> None:
        actor = stage.controller.actors["fake"]
        actor._timing = replace(actor._timing, apply_deadline_s=0.01)
        stage.provider.faults.append(Fault("apply", None))
        stage.ray.demands = (demand(1),)
        await stage.step(1)
        assert stage.journal.calls()[0].ended == "no answer"

    async def test_it_is_on_disk_before_it_is_made(self, stage: Stage) -> None:
        stage.provider.faults.append(Fault("apply", None))  # The controller dies while the call hangs.
        stage.ray.demands = (demand(1),)
        stage.clock.advance(1)
        await stage.controller.watches["fake"].look()
        await stage.controller.round()
        stage.restart()
        (call,) = stage.journal.calls()
        assert (call.ended, call.error) == ("no answer", "the controller ended before it heard an answer")
        await stage.step(30)
        assert [one.seq for one in stage.journal.calls()] == list(range(1, len(stage.journal.calls()) + 1))

    def test_what_is_written_of_a_large_one_is_bounded(self) -> None:
        request = LaunchRequest("l1", node_type(), 500, {})
        found = asked(Change((request,), tuple(f"x.{n}" for n in range(5000)), ("cpu",)))
        assert found["launch"] == [{"launch_id": "l1", "node_type": "cpu", "count": 500}]
        assert len(found["terminate"]) == NAMED_AT_MOST  # type: ignore[arg-type]
        assert (found["terminated"], found["unthrottle"]) == (5000, ["cpu"])
        failed: dict[str, HeliostatError] = {f"x.{n}": InvalidRequest(f"reason {n % 5}") for n in range(100)}
        said = refusals(Outcome(failed_instances=failed))  # type: ignore[arg-type]
        assert said == "100 instances: reason 0; reason 1; reason 2 and 2 more"


async def test_a_round_costs_one_transaction_at_most(stage: Stage) -> None:
    commits: list[int] = []

    def heard(statement: str) -> None:
        if statement == "COMMIT":
            commits[-1] += 1

    stage.connection.set_trace_callback(heard)

    async def rounds(count: int) -> None:
        for _ in range(count):
            commits.append(0)
            await stage.step()

    stage.busy = True
    stage.ray.demands = (demand(4),)
    await rounds(8)
    stage.ray.demands = ()
    let_idle(stage)
    await rounds(30)
    assert stage.provider.world.made == 4
    assert stage.states() == {}
    assert max(commits) == 1


async def test_every_change_of_state_has_its_reason(stage: Stage) -> None:
    await up_with(stage, 1)
    stage.provider.faults.append(Fault("instances", Unavailable("the disk hangs"), times=3))
    let_idle(stage)
    stage.ray.silent = True
    await stage.step(3)
    stage.ray.silent = False
    await stage.step(20)
    told = [one.data for one in stage.journal.events() if one.kind == "state"]
    assert [(one["was"], one["state"]) for one in told] == [
        ("", "starting"),
        ("starting", "running"),
        ("running", "unknown"),
        ("unknown", "running"),
        ("running", "stopping"),
        ("stopping", "gone"),
    ]
    whys = [str(one["why"]) for one in told]
    assert whys[1] == "Ray shows its node"
    assert whys[2] == "fake has not been listed since: the disk hangs"
    assert whys[4] == "Ray calls its node dead"
    assert "left after its drain" in whys[5]


async def test_when_it_was_asked_for_started_joined_and_ended(stage: Stage) -> None:
    stage.provider.queue_s = 3.0
    asked_s = stage.clock.now_s() + 1
    await stage.step(0)
    stage.busy = True
    stage.ray.demands = (demand(1),)
    await stage.step(10)
    (found,) = stage.journal.lifetimes()
    assert found.requested_at_s == asked_s
    assert (found.queue_s, found.start_s) == (3.0, 5.0)
    assert found.ended_at_s is None
    let_idle(stage)
    stage.ray.demands = ()
    await stage.step(30)
    (found,) = stage.journal.lifetimes()
    assert found.ended_at_s is not None
    assert "left after its drain" in found.end
