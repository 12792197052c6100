"""The model of Ray answers, retries and reports as Ray was seen to."""

from __future__ import annotations

import pytest

from heliostat.model.demand import Bundle, GangStrategy, LabelConstraint, LabelOperator
from heliostat.model.instance import DrainReason, NodeStatus, RayNode
from heliostat.model.resources import Resources
from heliostat.sim.world.ends import Cause
from heliostat.sim.world.work import Group, Work, WorkState
from tests.unit.sim.world.stage import Stage

IDLE, PREEMPTION = DrainReason.IDLE, DrainReason.PREEMPTION
ONE = Bundle(Resources.of({"CPU": 1}))
TWO = Bundle(Resources.of({"CPU": 2}))


@pytest.fixture
def stage() -> Stage:
    return Stage()


def shown(stage: Stage, node_id: str) -> RayNode:
    return next(one for one in stage.ray.state().nodes if one.node_id == node_id)


def group(
    stage: Stage, *bundles: Bundle, strategy: GangStrategy = GangStrategy.PACK, retries: int = 3
) -> Group:
    members = tuple(Work(900 + index, one, 10.0, retries) for index, one in enumerate(bundles))
    made = Group(f"{stage.works:036x}", strategy, bundles, members)
    for one in members:
        one.gang = made
    stage.ray.scheduler.submit_group(made)
    stage.agenda.advance(0.2)
    return made


# -- tasks


def test_work_waits_runs_and_is_done(stage: Stage) -> None:
    works = stage.work(10.0, count=3)
    assert [str(one) for one in stage.ray.state().demands] == ["3 × {CPU: 1}"]
    node_id = stage.node(CPU=2)
    assert [one.state for one in works] == [WorkState.RUNNING, WorkState.RUNNING, WorkState.WAITING]
    assert [str(one) for one in stage.ray.state().demands] == ["1 × {CPU: 1}"]
    assert shown(stage, node_id).status is NodeStatus.RUNNING
    stage.agenda.advance(20)
    assert not stage.ledger.unfinished
    stage.agenda.advance(7)
    node = shown(stage, node_id)
    assert (node.status, node.idle_s, node.available) == (NodeStatus.IDLE, 7.0, node.total)


def test_a_share_of_a_gpu_is_of_one_gpu(stage: Stage) -> None:
    """0.4 free on each of two is no room for 0.6, though the sum of 0.8 says so."""
    node_id = stage.node(CPU=8, GPU=2)
    stage.work(10.0, bundle=Bundle(Resources.of({"GPU": 0.6})), count=3)
    assert shown(stage, node_id).available.get("GPU") == 8_000
    assert [str(one) for one in stage.ray.state().demands] == ["1 × {GPU: 0.6}"]
    stage.work(10.0, bundle=Bundle(Resources.of({"GPU": 0.4})))
    assert shown(stage, node_id).available.get("GPU") == 4_000


def test_a_retry_counts_unless_the_announced_end_had_come(stage: Stage) -> None:
    for deadline_s, left in ((None, 2), (50.0, 2), (3.0, 3)):
        (work,) = stage.work(100.0, retries=3)
        node_id = stage.node(f"l{left}.0", CPU=1)
        assert stage.ray.drain(node_id, PREEMPTION, deadline_s and stage.agenda.now_s() + deadline_s).accepted
        stage.agenda.advance(5)
        assert work.state is WorkState.RUNNING  # Nothing happens at the deadline.
        stage.ray.leave(node_id, Cause.LEASE)
        assert (work.state, work.retries) == (WorkState.WAITING, left)
        stage.ray.scheduler.cancel(work)
    assert [one.counted for one in stage.ledger.interruptions] == [True, True, False]
    assert all(one.announced for one in stage.ledger.interruptions)


def test_work_without_retries_is_lost_with_its_node(stage: Stage) -> None:
    (work,) = stage.work(100.0, retries=0)
    stage.ray.leave(stage.node(), Cause.RELEASED)
    assert work.state is WorkState.LOST
    (found,) = stage.ledger.interruptions
    assert (found.cause, found.lost, found.announced) == (Cause.RELEASED, True, False)


def test_a_result_in_the_object_store_keeps_the_node_and_is_made_again(stage: Stage) -> None:
    (work,) = stage.work(1.0, pins_s=60.0)
    node_id = stage.node()
    stage.agenda.advance(2)
    assert work.state is WorkState.DONE
    refused = stage.ray.drain(node_id, IDLE, None)
    assert (refused.accepted, refused.message) == (
        False,
        "Resource: object_store_memory currently in use.",
    )
    stage.ray.leave(node_id, Cause.DIED)
    assert work.state is WorkState.WAITING
    assert work.work_id in stage.ledger.unfinished


def test_a_result_that_is_taken_back_keeps_no_node_and_is_not_made_again(stage: Stage) -> None:
    (work,) = stage.work(1.0, pins_s=60.0)
    node_id = stage.node()
    stage.agenda.advance(2)
    stage.ray.scheduler.cancel(work)
    assert shown(stage, node_id).status is NodeStatus.IDLE
    stage.ray.leave(node_id, Cause.DIED)
    stage.agenda.advance(60)
    assert work.state is WorkState.DONE
    assert not stage.ledger.unfinished


def test_preferred_labels_come_first_and_fallbacks_do(stage: Stage) -> None:
    wants_a = (LabelConstraint("zone", LabelOperator.IN, ("a",)),)
    not_b = (LabelConstraint("zone", LabelOperator.NOT_IN, ("b",)),)
    strict = Bundle(Resources.of({"CPU": 1}), (wants_a,))
    lenient = Bundle(Resources.of({"CPU": 1}), (wants_a, not_b))
    b, c = (stage.node(f"l1.{zone}", labels={"zone": zone}, CPU=2) for zone in "bc")
    (first,) = stage.work(10.0, bundle=strict)
    (second,) = stage.work(10.0, bundle=lenient)
    assert (first.state, second.node_id) == (WorkState.WAITING, c)
    a = stage.node("l1.a", labels={"zone": "a"}, CPU=4)
    (third,) = stage.work(10.0, bundle=lenient)
    assert (first.node_id, third.node_id) == (a, a)
    assert shown(stage, b).status is NodeStatus.IDLE


# -- drains


def test_an_idle_node_agrees_to_go_and_is_gone_soon(stage: Stage) -> None:
    node_id = stage.node()
    assert stage.ray.drain(node_id, IDLE, None).accepted
    (work,) = stage.work()
    assert work.state is WorkState.WAITING  # Nothing comes to a node that goes.
    assert shown(stage, node_id).status is NodeStatus.DRAINING
    stage.agenda.advance(0.5)
    assert shown(stage, node_id).status is NodeStatus.DEAD
    assert stage.ray.drain(node_id, IDLE, None).accepted


def test_a_preemption_is_never_refused_and_lets_work_end(stage: Stage) -> None:
    works = stage.work(10.0, count=3)
    node_id = stage.node()
    assert not stage.ray.drain(node_id, IDLE, None).accepted
    assert stage.ray.drain(node_id, PREEMPTION, 5.0).accepted
    stage.agenda.advance(9.9)
    assert shown(stage, node_id).status is NodeStatus.DRAINING
    stage.agenda.advance(1)
    assert shown(stage, node_id).status is NodeStatus.DEAD
    assert [one.state for one in works] == [WorkState.DONE, WorkState.DONE, WorkState.WAITING]


def test_a_node_that_fell_silent_is_believed_for_a_while(stage: Stage) -> None:
    (work,) = stage.work(10.0)
    node_id = stage.node()
    stage.ray.silence(node_id, Cause.DIED, notice_s=20.0)
    refused = stage.ray.drain(node_id, PREEMPTION, 99.0)
    assert (refused.accepted, refused.message) == (False, "")
    stage.agenda.advance(15)
    assert (work.state, shown(stage, node_id).status) == (WorkState.RUNNING, NodeStatus.RUNNING)
    stage.agenda.advance(6)
    assert (work.state, shown(stage, node_id).status) == (WorkState.WAITING, NodeStatus.DEAD)


def test_a_node_that_is_heard_again_in_time_has_lost_nothing(stage: Stage) -> None:
    (work,) = stage.work(10.0)
    node_id = stage.node()
    stage.ray.silence(node_id, Cause.DIED, notice_s=20.0)
    stage.agenda.advance(15)
    stage.ray.wake(node_id)
    assert work.state is WorkState.DONE
    stage.agenda.advance(60)
    assert shown(stage, node_id).status is NodeStatus.IDLE


# -- placement groups


def test_work_that_was_cancelled_while_its_node_was_cut_off_holds_nothing(stage: Stage) -> None:
    node_id = stage.node(CPU=1)
    (work,) = stage.work(10.0)
    stage.ray.silence(node_id, Cause.DIED, notice_s=100.0)
    stage.agenda.advance(20)
    stage.ray.scheduler.cancel(work)
    stage.ray.wake(node_id)
    stage.agenda.advance(7)
    node = shown(stage, node_id)
    assert (work.state, node.status, node.available) == (WorkState.LOST, NodeStatus.IDLE, node.total)


def test_a_group_is_placed_whole_or_not_at_all(stage: Stage) -> None:
    made = group(stage, TWO, TWO)
    stage.node("l1.0")
    stage.agenda.advance(1)
    assert made.nodes == [None, None]
    (gang,) = stage.ray.state().gangs
    assert [str(one) for one in gang.demands] == ["2 × {CPU: 2}"]
    stage.node("l1.1")
    stage.agenda.advance(1)
    assert made.is_placed
    assert not stage.ray.state().gangs
    stage.agenda.advance(10)
    assert not stage.ray.scheduler.groups
    assert all(one.status is not NodeStatus.RUNNING for one in stage.ray.state().nodes)


def test_only_what_was_lost_of_a_group_is_asked_for_again(stage: Stage) -> None:
    first = stage.node("l1.0")
    stage.node("l1.1")
    made = group(stage, TWO, TWO, strategy=GangStrategy.STRICT_SPREAD)
    kept, lost = made.members if made.nodes[1] == first else reversed(made.members)
    stage.ray.leave(first, Cause.DIED)
    (gang,) = stage.ray.state().gangs
    assert [(one.count, one.bundle.anti_affinity) for one in gang.demands] == [(1, gang.mark)]
    assert gang.mark in next(one for one in stage.ray.state().nodes if one.instance_id == "l1.1").labels
    assert (kept.state, lost.state) == (WorkState.RUNNING, WorkState.WAITING)
    # The node that holds the other bundle may not hold this one too.
    stage.node("l1.2", CPU=2)
    stage.agenda.advance(1)
    assert lost.state is WorkState.RUNNING


def test_a_group_goes_with_a_member_that_can_not_be_tried_again(stage: Stage) -> None:
    first, second = stage.node("l1.0"), stage.node("l1.1")
    made = group(stage, TWO, TWO, retries=0)
    stage.ray.leave(first, Cause.DIED)
    assert {one.state for one in made.members} == {WorkState.LOST}
    assert not stage.ray.state().gangs
    stage.agenda.advance(1)
    assert shown(stage, second).status is NodeStatus.IDLE


@pytest.mark.parametrize(
    ("strategy", "nodes", "placed"),
    [
        (GangStrategy.STRICT_PACK, (2, 2), False),
        (GangStrategy.STRICT_PACK, (3,), True),
        (GangStrategy.STRICT_SPREAD, (3,), False),
        (GangStrategy.STRICT_SPREAD, (1, 1, 1), True),
        (GangStrategy.SPREAD, (2, 1), True),
        (GangStrategy.PACK, (1, 2), True),
        (GangStrategy.PACK, (1, 1), False),
    ],
)
def test_what_each_strategy_needs(
    stage: Stage, strategy: GangStrategy, nodes: tuple[int, ...], placed: bool
) -> None:
    for index, cpus in enumerate(nodes):
        stage.node(f"l1.{index}", CPU=cpus)
    assert group(stage, ONE, ONE, ONE, strategy=strategy).is_placed is placed


def test_a_reserved_bundle_keeps_its_node(stage: Stage) -> None:
    node_id = stage.node()
    waiting = group(stage, ONE)
    stage.ray.scheduler.cancel(waiting.members[0])
    assert stage.ray.drain(node_id, IDLE, None).accepted
    other = stage.node("l1.1")
    stage.ray.scheduler.submit_group(Group("f" * 36, GangStrategy.PACK, (ONE,)))
    stage.agenda.advance(1)
    assert not stage.ray.drain(other, IDLE, None).accepted


# -- reports


def test_reports_come_late_and_whole() -> None:
    stage = Stage(report_s=(1.0, 1.0))
    node_id = stage.node()
    stage.agenda.advance(5)
    stage.work(10.0, count=3)
    state = stage.ray.state()
    assert not state.demands
    assert next(one for one in state.nodes if one.node_id == node_id).idle_s == 5.0
    stage.agenda.advance(1.0)
    state = stage.ray.state()
    assert [one.count for one in state.demands] == [1]
    node = next(one for one in state.nodes if one.node_id == node_id)
    assert (node.status, node.available.get("CPU"), node.idle_s) == (NodeStatus.RUNNING, 0, 0.0)


def test_a_report_shows_the_time_at_which_it_was_due() -> None:
    stage = Stage(report_s=(1.0, 1.0))
    node_id = stage.node()
    stage.work(10.0)
    stage.agenda.advance(3)
    stage.work(10.0)  # The last report is due and shows one; the next one comes in a second.
    assert shown(stage, node_id).available.get("CPU") == 10_000
    stage.agenda.advance(1)
    assert shown(stage, node_id).available.get("CPU") == 0


# -- the head


def test_a_head_that_comes_back_with_its_state_knows_everything(stage: Stage) -> None:
    works = stage.work(10.0, count=3)
    node_id = stage.node()
    stage.ray.die()
    stage.agenda.advance(15)
    assert [one.state for one in works] == [WorkState.DONE, WorkState.DONE, WorkState.WAITING]
    stage.ray.come_back(with_state=True)
    assert works[2].state is WorkState.RUNNING
    state = stage.ray.state()
    assert state.session_name == "session_0"
    assert shown(stage, node_id).status is NodeStatus.RUNNING
    heads = [one.status for one in state.nodes if one.is_head]
    assert sorted(one.value for one in heads) == ["dead", "idle"]


def test_another_head_knows_nothing(stage: Stage) -> None:
    (work,) = stage.work(100.0)
    stage.node()
    stage.ray.die()
    stage.ray.come_back(with_state=False)
    state = stage.ray.state()
    assert (state.session_name, len(state.nodes), state.demands) == ("session_1", 1, ())
    assert work.state is WorkState.LOST
    assert "cluster_uid" not in stage.ray.kv


def test_raylets_give_up_a_head_that_stays_away(stage: Stage) -> None:
    (work,) = stage.work(100.0)
    node_id = stage.node()
    stage.ray.die()
    stage.agenda.advance(61)
    stage.ray.come_back(with_state=True)
    assert shown(stage, node_id).status is NodeStatus.DEAD
    assert work.state is WorkState.WAITING


def test_of_two_that_claim_an_id_the_first_has_it(stage: Stage) -> None:
    assert stage.ray.claim("l1.0", "one")
    assert stage.ray.claim("l1.0", "one")
    assert not stage.ray.claim("l1.0", "two")
    stage.ray.forget_claims(("l1.0",))
    assert stage.ray.claim("l1.0", "two")
