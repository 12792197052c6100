"""The bootstrap's model joins once, its own cluster only, and ends as docs/bootstrap.md says."""

from __future__ import annotations

import pytest

from heliostat.model.instance import DrainReason
from heliostat.model.resources import Resources
from heliostat.sim.world.bootstrap import Bootstrap, Place
from heliostat.sim.world.ends import Cause
from heliostat.sim.world.machine import Machine, Phase
from heliostat.sim.world.work import WorkState
from tests.unit.sim.world.stage import OURS, Stage


@pytest.fixture
def stage() -> Stage:
    return Stage()


def started(
    stage: Stage,
    native_id: str = "m1",
    *,
    lease_s: float | None = None,
    dead: frozenset[str] = frozenset(),
    **start: object,
) -> Bootstrap:
    document = {"cluster_uid": OURS.cluster_uid, "session_name": "session_0", **start}
    expires_s = None if lease_s is None else stage.agenda.now_s() + lease_s
    machine = Machine(
        "b",
        native_id,
        "l1.0",
        OURS,
        "cpu",
        "s1",
        Resources.of({"CPU": 2}),
        0.0,
        start=document,
        expires_s=expires_s,
    )
    place = Place(stage.agenda, stage.ray, stage.dice.stream("place"), (2.0, 2.0), dead)
    made = Bootstrap(machine, place, lambda machine, text: stage.say("over", machine.native_id, text))
    made.start()
    return made


def over(stage: Stage) -> list[str]:
    return [one for one in stage.said if one.startswith("over")]


def test_it_joins_after_its_start(stage: Stage) -> None:
    machine = started(stage).machine
    stage.agenda.advance(1.9)
    assert machine.phase is Phase.BOOTING
    stage.agenda.advance(0.2)
    assert machine.phase is Phase.UP
    assert stage.ray.node(machine.node_id) is not None


def test_of_two_with_one_id_one_joins(stage: Stage) -> None:
    first, second = started(stage).machine, started(stage, "m2").machine
    stage.agenda.advance(3)
    assert (first.phase, second.cause) == (Phase.UP, Cause.TWIN)
    assert over(stage) == ["over m2 exit code 11: instance l1.0 has joined already"]


@pytest.mark.parametrize("start", [{"cluster_uid": "another"}, {"session_name": "session_of_yesterday"}])
def test_a_stranger_is_not_joined(stage: Stage, start: dict[str, object]) -> None:
    machine = started(stage, **start).machine
    stage.agenda.advance(3)
    assert machine.cause is Cause.STRANGER
    assert not machine.node_id


def test_a_head_that_does_not_answer_is_waited_for(stage: Stage) -> None:
    stage.ray.die()
    machine = started(stage).machine
    stage.agenda.advance(30)
    stage.ray.come_back(with_state=True)
    stage.agenda.advance(3)
    assert machine.phase is Phase.UP
    stage.ray.die()
    late = started(stage, "m2").machine
    stage.agenda.advance(65)
    assert late.cause is Cause.HEAD


def test_a_drained_node_ends_its_machine(stage: Stage) -> None:
    machine = started(stage).machine
    stage.agenda.advance(3)
    assert stage.ray.drain(machine.node_id, DrainReason.IDLE, None).accepted
    stage.agenda.advance(2)
    assert (machine.cause, over(stage)) == (Cause.DRAINED, ["over m1 "])


def test_term_lets_work_end_for_a_while(stage: Stage) -> None:
    short, long = stage.work(10.0)[0], stage.work(100.0)[0]
    bootstrap = started(stage)
    stage.agenda.advance(3)
    bootstrap.term(Cause.RELEASED)
    stage.agenda.advance(29)
    assert (short.state, long.state) == (WorkState.DONE, WorkState.RUNNING)
    stage.agenda.advance(2)
    assert (long.state, over(stage)) == (WorkState.WAITING, ["over m1 "])
    (found,) = stage.ledger.interruptions
    assert (found.cause, found.announced, found.counted) == (Cause.RELEASED, True, False)


def test_term_before_ray_runs_ends_at_once(stage: Stage) -> None:
    bootstrap = started(stage)
    stage.agenda.advance(0.1)
    bootstrap.term(Cause.RELEASED)
    stage.agenda.advance(0.2)
    assert over(stage) == ["over m1 "]
    stage.agenda.advance(10)
    assert not bootstrap.machine.node_id


def test_a_kill_is_noticed_late(stage: Stage) -> None:
    (work,) = stage.work(100.0)
    bootstrap = started(stage)
    stage.agenda.advance(3)
    bootstrap.kill(Cause.DIED, notice_s=8.0)
    assert over(stage) == ["over m1 "]
    stage.agenda.advance(7)
    assert work.state is WorkState.RUNNING
    stage.agenda.advance(2)
    assert work.state is WorkState.WAITING


def test_a_busy_node_is_told_of_its_leases_end_and_ends_with_it(stage: Stage) -> None:
    (work,) = stage.work(500.0)
    machine = started(stage, lease_s=100.0, lease_warning_s=10.0).machine
    stage.agenda.advance(89)
    assert "drains" not in " ".join(stage.said)
    stage.agenda.advance(2)
    assert "ray drains l1.0 PREEMPTION" in stage.said
    stage.agenda.advance(15)
    assert machine.cause is Cause.LEASE
    (found,) = stage.ledger.interruptions
    assert (found.work_id, found.cause, found.counted) == (work.work_id, Cause.LEASE, False)


def test_an_idle_node_leaves_ahead_of_its_leases_end(stage: Stage) -> None:
    machine = started(stage, lease_s=100.0, lease_warning_s=10.0).machine
    stage.agenda.advance(92)
    assert machine.cause is Cause.DRAINED


def test_an_orphan_leaves_when_it_is_idle(stage: Stage) -> None:
    stage.work(50.0)
    machine = started(stage, orphan_timeout_s=20.0).machine
    stage.agenda.advance(15)
    stage.ray.beat()
    stage.agenda.advance(36)
    assert machine.phase is Phase.UP
    stage.agenda.advance(10)
    assert machine.cause is Cause.ORPHANED


def test_what_is_broken_exits_or_hangs(stage: Stage) -> None:
    made = [started(stage, f"m{index}", dead=frozenset({"cpu"})) for index in range(20)]
    stage.agenda.advance(60)
    exited = [one for one in made if one.machine.cause is Cause.EXITED]
    assert 0 < len(exited) < 20
    assert not any(one.machine.node_id for one in made)
    for one in made:
        one.term(Cause.RELEASED)
    stage.agenda.advance(1)
    assert len(over(stage)) == 20
