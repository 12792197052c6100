"""The loop with the real planner and journal, a fake Ray and a fake backend, on a manual clock."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from heliostat.model.instance import (
    BackendInstance,
    Change,
    DrainReason,
    InstanceIntent,
    Intent,
)
from heliostat.ports.errors import (
    InsufficientCapacity,
    Refused,
    StrangerCluster,
    TokenRefused,
    Unavailable,
)
from heliostat.ports.provider import Outcome
from heliostat.sim.loop import VirtualLoop
from heliostat.testing.fake import Fault
from tests.unit.control.stage import Stage, let_idle, up_with
from tests.unit.control.world import FakeCluster, demand, node_type, spec


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return Stage(tmp_path)


async def test_from_zero_and_back_to_zero(stage: Stage) -> None:
    await up_with(stage, 3)
    assert len(stage.provider.world.instances) == 3
    let_idle(stage)
    await stage.step(20)
    assert {reason for _, reason in stage.ray.drains} == {DrainReason.IDLE}
    assert stage.provider.world.instances == {}
    await stage.step(20)
    assert stage.states() == {}
    assert len(stage.ray.forgotten) == 3
    assert stage.journal.intents() == ()


async def test_a_slow_backend_is_no_news_of_each_instance(stage: Stage) -> None:
    """What is listed stays what it is while a request is under way, and what is asked for is just that."""
    stage.provider.queue_s = 1e6
    stage.ray.demands = (demand(2),)
    await stage.step(2)
    stage.provider.faults.append(Fault("apply", None))
    stage.ray.demands = (demand(3),)
    for _ in range(20):
        stage.clock.advance(1)
        for watch in stage.controller.watches.values():
            await watch.look()
        await stage.controller.round()
    assert stage.controller.actors["fake"].busy
    assert list(stage.states().values()) == ["queued", "queued", "requested"]
    texts = [one.text for one in stage.journal.events()]
    assert [text for text in texts if "unknown" in text] == []
    (report,) = (await stage.operations.status()).backends
    assert (report.fresh, report.error) == (False, "the last request to this backend is still under way")


async def test_a_launch_is_in_the_journal_before_the_provider_hears_of_it(stage: Stage) -> None:
    stage.provider.faults.append(Fault("apply", Unavailable("no answer"), times=None))
    stage.ray.demands = (demand(1),)
    await stage.step(2)
    assert stage.provider.changes
    journalled = {one.instance_id for one in stage.journal.intents()}
    asked = {i for change in stage.provider.changes for one in change.launch for i in one.instance_ids}
    assert asked
    assert asked <= journalled


async def test_a_lost_reply_launches_nothing_twice(stage: Stage) -> None:
    stage.provider.faults.append(Fault("apply", Unavailable("connection lost"), acted=True))
    stage.ray.demands = (demand(2),)
    await stage.step(10)
    assert stage.provider.world.made == 2


async def test_demand_that_stays_is_not_asked_for_again_while_it_comes(stage: Stage) -> None:
    stage.provider.boot_s = 20.0
    stage.ray.demands = (demand(2),)
    await stage.step(15)
    assert stage.provider.world.made == 2


async def test_after_a_crash_between_journal_and_call_nothing_is_launched_twice(stage: Stage) -> None:
    stage.ray.demands = (demand(1),)
    stage.provider.faults.append(Fault("apply", None))  # The controller dies while the call hangs.
    stage.clock.advance(1)
    await stage.controller.watches["fake"].look()
    await stage.controller.round()
    assert len(stage.journal.intents()) == 1
    stage.restart()
    await stage.step(60)
    running = [one for one in stage.states().values() if one == "running"]
    assert running == ["running"]
    assert len(stage.provider.world.instances) == 1


async def test_a_restart_finds_running_workers_and_keeps_them(stage: Stage) -> None:
    await up_with(stage, 2)
    made = stage.provider.world.made
    stage.restart()
    await stage.step(10)
    assert list(stage.states().values()) == ["running"] * 2
    assert stage.provider.world.made == made


async def test_without_a_journal_running_workers_are_adopted_by_their_tags(stage: Stage) -> None:
    await up_with(stage, 2)
    stage.journal.forget_intents(list(stage.states()))
    stage.journal.commit()
    stage.restart()
    await stage.step(3)
    assert sorted(stage.states().values()) == ["running"] * 2
    assert all(one.adopted for one in stage.journal.intents())


async def test_a_release_cut_off_by_a_crash_is_finished(stage: Stage) -> None:
    await up_with(stage, 1)
    (intent,) = stage.journal.intents()
    gone = replace(intent, intent=Intent.RELEASED, released_at_s=stage.clock.now_s(), release_reason="idle")
    stage.journal.record_intents([gone], [])
    stage.restart()
    await stage.step(3)
    assert stage.provider.world.instances == {}


async def test_rays_refusal_stands(stage: Stage) -> None:
    await up_with(stage, 1)
    let_idle(stage)
    stage.ray.refuses = "object_store_memory currently in use"
    await stage.step(40)
    assert list(stage.states().values()) == ["running"]
    assert stage.kinds().count("refused") == 1
    # Asked again at times, not in every round.
    assert 2 <= len(stage.ray.drains) <= 5
    assert stage.controller.memory.snapshot is not None
    assert stage.controller.memory.snapshot.refused == set(stage.states())
    status = await stage.operations.status()
    assert "object_store_memory" in status.instances[0].stays


async def test_an_unknown_backend_is_not_an_empty_one(stage: Stage) -> None:
    await up_with(stage, 2)
    stage.provider.faults.append(Fault("instances", Unavailable("slow"), times=None))
    await stage.step(60)
    assert len(stage.provider.world.instances) == 2
    assert stage.provider.world.made == 2
    assert not (await stage.operations.status()).backends[0].fresh


async def test_a_refused_launch_backs_off_and_shows_the_backends_words(stage: Stage) -> None:
    words = "no GPU is left: 0 is taken by head"
    stage.provider.faults.append(Fault("launch", InsufficientCapacity(words), times=None))
    stage.ray.demands = (demand(1),)
    await stage.step(30)
    asked = sum(bool(change.launch) for change in stage.provider.changes)
    assert 1 <= asked <= 6
    status = await stage.operations.status()
    assert status.failures[-1].error == words
    assert status.node_types[0].last_error == words


async def test_a_worker_that_dies_at_start_is_replaced_without_a_storm(stage: Stage) -> None:
    stage.provider.boot_s = 100.0
    stage.ray.demands = (demand(1),)
    for _ in range(60):
        await stage.step()
        for one in list(stage.provider.world.instances.values()):
            if one.over is None:
                stage.provider.fail(one.instance_id, detail="exit code 14: no module named ray")
    assert 2 <= stage.provider.world.made <= 6
    status = await stage.operations.status()
    assert status.failures[-1].error == "exit code 14: no module named ray"


async def test_a_start_that_hangs_is_given_up(tmp_path: Path) -> None:
    stage = Stage(tmp_path, spec=spec(node_type(start_timeout_s=30.0)))
    stage.provider.boot_s = 1e6
    stage.ray.demands = (demand(1),)
    await stage.step(34)
    assert any(e.kind == "release" and e.data.get("why") == "start timeout" for e in stage.journal.events())


async def test_a_silent_head_is_waited_for_then_everything_is_released(stage: Stage) -> None:
    await up_with(stage, 2)
    stage.ray.silent = True
    await stage.step(15)
    assert stage.controller.phase == "head lost"
    assert len(stage.provider.world.instances) == 2
    await stage.step(15)
    assert stage.controller.going_down == "the head is lost"
    assert stage.provider.world.instances == {}


async def test_a_head_that_comes_back_in_time_loses_nothing(stage: Stage) -> None:
    await up_with(stage, 2)
    stage.ray.silent = True
    await stage.step(10)
    stage.ray.silent = False
    await stage.step(3)
    assert stage.controller.phase == "running"
    assert list(stage.states().values()) == ["running"] * 2
    assert stage.ray.configs == 2


async def test_add_brings_one_more_that_stays_and_says_when_nothing_is_left(stage: Stage) -> None:
    await stage.step(2)
    stage.provider.capacity = 2
    first = await stage.operations.add(None, 1)
    await stage.step(6)
    second = await stage.operations.add("cpu", 1)
    await stage.step(6)
    assert [*first["instance_ids"], *second["instance_ids"]] == list(stage.states())
    assert list(stage.states().values()) == ["running"] * 2
    with pytest.raises(Refused, match="no machine left for cpu"):
        await stage.operations.add("cpu", 1)
    # What was added by hand stays, idle or not.
    await stage.step(30)
    assert list(stage.states().values()) == ["running"] * 2
    assert [one.stays for one in (await stage.operations.status()).instances] == ["added by hand"] * 2
    await stage.operations.protect(first["instance_ids"][0], True)
    await stage.step(1)
    stays = [one.stays for one in (await stage.operations.status()).instances]
    assert stays == ["protected by hand", "added by hand"]


async def test_add_over_the_maximum_is_refused_with_the_way_out(stage: Stage) -> None:
    await stage.step(2)
    with pytest.raises(Refused, match="max_workers"):
        await stage.operations.add("cpu", 5)
    with pytest.raises(Refused, match="the file has cpu"):
        await stage.operations.add("gpu", 1)


async def test_remove_lets_one_go_and_lowers_the_floor(stage: Stage) -> None:
    await stage.step(2)
    ids = (await stage.operations.add("cpu", 2))["instance_ids"]
    await stage.step(6)
    await stage.operations.remove(ids[0], None)
    await stage.step(8)
    assert [one for one, state in stage.states().items() if state == "running"] == [ids[1]]
    assert len(stage.provider.world.instances) == 1


async def test_a_protected_one_stays(stage: Stage) -> None:
    await up_with(stage, 2)
    kept = min(stage.states())
    await stage.operations.protect(kept, True)
    let_idle(stage)
    await stage.step(30)
    assert [one for one, state in stage.states().items() if state == "running"] == [kept]
    await stage.operations.protect(kept, False)
    await stage.step(30)
    assert stage.provider.world.instances == {}


async def test_a_controller_that_has_just_begun_knows_what_people_speak_of(stage: Stage) -> None:
    await up_with(stage, 1)
    (one,) = stage.states()
    await stage.operations.protect(one, True)
    stage.restart()
    await stage.operations.protect(one, False)
    assert stage.controller.memory.operator.protected == frozenset()


async def test_pause_stops_deciding(stage: Stage) -> None:
    await stage.step(2)
    await stage.operations.pause(True)
    stage.ray.demands = (demand(2),)
    await stage.step(5)
    assert stage.provider.world.made == 0
    await stage.operations.pause(False)
    await stage.step(5)
    assert stage.provider.world.made == 2


async def test_apply_raises_a_maximum_while_work_runs(stage: Stage) -> None:
    stage.busy = True
    stage.ray.demands = (demand(6),)
    await stage.step(8)
    assert stage.provider.world.made == 4
    stage.config.spec = spec(node_type(max_workers=6))
    stage.ray.demands = (demand(2),)
    answer = await stage.operations.apply()
    await stage.step(8)
    assert answer["changes"] == ["cpu.max_workers: 4 → 6"]
    assert stage.provider.world.made == 6


async def test_idle_after_lets_the_whole_cluster_go(tmp_path: Path) -> None:
    stage = Stage(tmp_path, idle_after_s=30.0)
    stage.ray.connected_drivers = 1
    await stage.step(60)
    assert stage.controller.going_down is None
    stage.ray.connected_drivers = 0
    await stage.step(45)
    assert stage.controller.going_down is not None
    assert [one.text for one in stage.journal.events() if one.kind == "down"] == [
        "nobody has used the cluster for 30 s (--idle-after)"
    ]


async def test_a_driver_that_comes_at_the_last_moment_keeps_the_cluster(tmp_path: Path) -> None:
    stage = Stage(tmp_path, idle_after_s=33.0)
    while stage.controller.idle_watch.idle_s(stage.clock.monotonic_s()) < 31.0:
        await stage.step()
    stage.ray.connected_drivers = 1
    await stage.step(10)
    assert stage.controller.going_down is None


async def test_rays_report_names_what_is_coming(stage: Stage) -> None:
    stage.provider.boot_s = 50.0
    stage.ray.demands = (demand(2),)
    await stage.step(4)
    assert any(report.launched == {"cpu": 2} for report in stage.ray.reports)
    assert len(stage.ray.reports[-1].instances) == 2


async def test_usage_is_written_and_counted(stage: Stage) -> None:
    await up_with(stage, 2)
    await stage.step(40)
    cost = await stage.operations.cost()
    assert cost["total"]["node_s"] == pytest.approx(2 * 40, abs=16)
    assert cost["total"]["core_s"] == cost["total"]["node_s"]


async def test_explain_says_why_it_came_and_why_it_stays(stage: Stage) -> None:
    await up_with(stage, 1)
    (instance_id,) = stage.states()
    answer = await stage.operations.explain(instance_id)
    assert answer["kind"] == "instance"
    assert any("why it came" in line for line in answer["lines"])
    assert (await stage.operations.explain(None))["lines"]
    assert (await stage.operations.explain("cpu"))["kind"] == "node type"
    with pytest.raises(Refused, match="nothing is called"):
        await stage.operations.explain("nobody")


async def test_room_that_is_free_again_is_used_at_once(stage: Stage) -> None:
    stage.provider.capacity = 1
    await up_with(stage, 1)
    let_idle(stage)
    while stage.provider.world.instances:
        await stage.step()
    stage.ray.demands = (demand(1),)
    await stage.step(4)
    assert stage.provider.world.made == 2


async def test_two_adds_at_once_bring_two(stage: Stage) -> None:
    await stage.step(2)
    await asyncio.gather(stage.operations.add("cpu", 1), stage.operations.add("cpu", 1))
    await stage.step(30)
    assert list(stage.states().values()) == ["running"] * 2


async def test_what_demand_brought_goes_though_one_was_added_by_hand(stage: Stage) -> None:
    await up_with(stage, 2)
    stage.busy = False
    (added,) = (await stage.operations.add("cpu", 1))["instance_ids"]
    await stage.step(6)
    let_idle(stage)
    await stage.step(30)
    assert list(stage.states()) == [added]


async def test_what_was_asked_for_gone_instances_is_forgotten(stage: Stage) -> None:
    await stage.step(2)
    (added,) = (await stage.operations.add("cpu", 1))["instance_ids"]
    await stage.step(6)
    await stage.operations.remove(added, None)
    await stage.step(30)
    operator = stage.journal.operator()
    assert not operator.removals
    assert not operator.protected
    assert not operator.added


async def test_a_slow_ask_is_not_called_lost(stage: Stage) -> None:
    answer = asyncio.Event()
    really = stage.provider.apply

    async def slow(change: Change) -> Outcome:
        await answer.wait()
        return await really(change)

    stage.provider.apply = slow  # type: ignore[method-assign]
    stage.ray.demands = (demand(1),)
    for _ in range(60):
        stage.clock.advance(1)
        await stage.controller.watches["fake"].look()
        await stage.controller.round()
        await asyncio.sleep(0)
    assert stage.ids.made == 1
    answer.set()
    await stage.settle()
    await stage.step(8)
    assert list(stage.states().values()) == ["running"]
    assert stage.provider.world.made == 1


async def test_a_watch_that_dies_ends_the_controller_for_a_fresh_start(stage: Stage) -> None:
    stage.controller.timing = replace(stage.controller.timing, round_s=0.01)

    async def broken() -> list[BackendInstance]:
        raise RuntimeError("can't start new thread")

    stage.provider.instances = broken  # type: ignore[method-assign]
    with pytest.raises(RuntimeError, match="new thread"):
        await asyncio.wait_for(stage.controller.run(), 5)


async def test_a_refused_token_is_a_silent_head_not_a_strangers(stage: Stage) -> None:
    await up_with(stage, 1)
    stage.ray.failure = TokenRefused("the Ray cluster at 127.0.0.1:6379 refuses our token")
    await stage.step(10)
    assert stage.controller.phase == "head lost"
    assert len(stage.provider.world.instances) == 1
    stage.ray.failure = None
    await stage.step(2)
    assert stage.controller.phase == "running"


async def test_a_strangers_head_is_left_at_once(stage: Stage) -> None:
    await up_with(stage, 1)
    stage.ray.failure = StrangerCluster("another session")
    await stage.step(3)
    assert stage.controller.going_down == "another session"
    assert stage.provider.world.instances == {}


async def test_a_head_that_was_silent_is_asked_who_it_is(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    await up_with(stage, 1)
    stage.ray.silent = True
    await stage.step(5)
    assert stage.controller.phase == "head lost"

    async def another() -> None:
        raise StrangerCluster("the Ray cluster at 127.0.0.1:6379 is not ours: it belongs to u2")

    # It answers, even with our session's name; but its uid is another's.
    stage.ray.silent = False
    monkeypatch.setattr(stage.ray, "connect", another)
    await stage.step(3)
    assert stage.controller.going_down is not None
    assert stage.controller.going_down.endswith("it belongs to u2")
    assert stage.provider.world.instances == {}


def test_a_stranger_is_not_asked_without_a_pause(tmp_path: Path) -> None:
    loop = VirtualLoop()

    async def ten_seconds() -> FakeCluster:
        stage = Stage(tmp_path)
        stage.provider.faults.append(Fault("instances", Unavailable("no answer"), times=None))
        stage.ray.failure = StrangerCluster("another session")
        intent = InstanceIntent("l1.0", "l1", "cpu", "fake", "shape-cpu", Intent.WANTED, 0.0, "demand")
        stage.controller.memory.learn((intent,))
        running = asyncio.create_task(stage.controller.run())
        await asyncio.sleep(10)
        running.cancel()
        await asyncio.wait([running])
        return stage.ray

    assert loop.run_until_complete(ten_seconds()).asked <= 12
