"""A backend that itself holds back all but the first few of a type that never came up."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from heliostat.control.act import BackendActor
from heliostat.control.measures import Measures
from heliostat.control.watch import BackendWatch
from heliostat.control.wiring import Timing
from heliostat.model.demand import Bundle, Demand, Gang, GangStrategy
from heliostat.model.instance import BackendState, Change
from heliostat.planner.limits import FIRST_TRY
from heliostat.ports.errors import Unavailable
from heliostat.ports.provider import Outcome
from heliostat.testing.clock import ManualClock
from heliostat.testing.fake import FakeProvider, Fault
from tests.unit.control.stage import Stage
from tests.unit.control.world import ONE_CPU, demand, node_type, spec


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    kind = replace(node_type(), throttles=True, max_workers=20)
    return Stage(tmp_path, spec=spec(kind, max_workers=20, upscaling_speed=0.0))


async def test_all_are_asked_for_at_once_and_the_others_let_go_at_the_first_success(stage: Stage) -> None:
    stage.ray.demands = (demand(8),)
    await stage.step(1)
    (request,) = stage.provider.changes[0].launch
    assert (request.count, request.at_once) == (8, FIRST_TRY)
    await stage.step(1)
    held = [one for one in stage.provider.world.instances.values() if one.held]
    assert len(held) == 8 - FIRST_TRY
    await stage.step(5)
    assert [one for one in stage.provider.world.instances.values() if one.held] == []
    told = [change for change in stage.provider.changes if change.unthrottle]
    assert [change.unthrottle for change in told] == [(request.node_type.name,)]


async def test_a_type_that_has_come_up_is_not_held_back_again(stage: Stage) -> None:
    stage.ray.demands = (demand(1),)
    await stage.step(6)
    stage.ray.demands = (demand(8),)
    await stage.step(3)
    assert [one.at_once for change in stage.provider.changes for one in change.launch][1:] == [None]


async def test_a_changed_shape_is_held_back_anew_until_one_of_it_has_come_up(stage: Stage) -> None:
    stage.ray.demands = (demand(1),)
    await stage.step(6)
    kind = replace(stage.spec.policy.node_types[0], shape_id="shape-new")
    stage.spec = spec(kind, max_workers=20, upscaling_speed=0.0)
    stage.controller.use_spec(stage.spec)
    stage.provider.boot_s = 20.0
    stage.ray.demands = (demand(8),)
    await stage.step(10)
    assert [one.at_once for change in stage.provider.changes for one in change.launch][1:] == [FIRST_TRY]
    assert [change for change in stage.provider.changes if change.unthrottle] == []
    await stage.step(20)
    assert [change.unthrottle for change in stage.provider.changes if change.unthrottle] == [("cpu",)]


async def test_what_waits_behind_failures_is_withdrawn(stage: Stage) -> None:
    stage.ray.demands = (demand(8),)
    await stage.step(1)
    for one in list(stage.provider.world.instances.values()):
        if not one.held:
            stage.provider.fail(one.instance_id, detail="setup line 2 failed")
    stage.ray.demands = (demand(8),)
    await stage.step(3)
    assert stage.provider.world.instances == {}
    reasons = [one.text for one in stage.journal.events() if one.kind == "release"]
    assert any("waits behind the first of" in text and "setup line 2 failed" in text for text in reasons)


async def test_what_failed_while_the_head_was_silent_counts_afterwards(stage: Stage) -> None:
    stage.ray.demands = (demand(8),)
    await stage.step(1)
    stage.ray.silent = True
    for one in list(stage.provider.world.instances.values()):
        if not one.held:
            stage.provider.fail(one.instance_id, detail="setup line 2 failed")
    await stage.step(3)
    # Without Ray neither what has failed nor what waits behind it was a round's business.
    waits = list(stage.provider.world.instances.values())
    assert [one.held for one in waits] == [False] * FIRST_TRY + [True] * (8 - FIRST_TRY)
    stage.ray.silent = False
    await stage.step(3)
    assert stage.provider.world.instances == {}


async def test_a_gang_is_asked_for_together_and_whole(stage: Stage) -> None:
    bundle = Bundle(ONE_CPU, anti_affinity="_PG_1")
    stage.ray.gangs = (Gang("ab" * 16, GangStrategy.STRICT_SPREAD, (Demand(bundle, 4),)),)
    await stage.step(1)
    (request,) = stage.provider.changes[0].launch
    assert (request.count, request.together, request.at_once) == (4, True, None)


class Answers:
    def __init__(self) -> None:
        self.changes: list[Change] = []

    def hear(self, change: Change, _: Outcome) -> None:
        self.changes.append(change)


async def test_what_waits_is_merged_and_named_once(stage: Stage) -> None:
    clock, answers = ManualClock(), Answers()
    actor = BackendActor(
        FakeProvider(clock=clock),
        clock=clock,
        telemetry=Measures(),
        timing=Timing(),
        ledger=stage.controller.ledger,
        on_answer=answers.hear,
    )
    actor.submit(Change(terminate=("a.0",)))
    actor.submit(Change(terminate=("b.0",), unthrottle=("cpu",)))
    actor.submit(Change(terminate=("b.0", "c.0"), unthrottle=("cpu", "gpu")))
    await actor.settle()
    assert [one.terminate for one in answers.changes] == [("a.0", "b.0", "c.0")]
    assert answers.changes[0].unthrottle == ("cpu", "gpu")


async def test_a_queue_that_stands_still_is_looked_at_ever_more_seldom(stage: Stage) -> None:
    stage.provider.queue_s = 1e6
    stage.ray.demands = (demand(1),)
    await stage.step(2)
    assert [row.state for row in stage.controller.watches["fake"].view.rows] == [BackendState.QUEUED]
    watch = BackendWatch(stage.provider, clock=stage.clock, telemetry=Measures(), timing=Timing())
    waits = []
    for _ in range(8):
        await watch.look()
        waits.append(watch.next_wait())
    assert waits[0] == Timing().listing_fast_s
    assert waits[-1] == Timing().listing_slow_s
    assert waits == sorted(waits)


async def test_a_new_try_is_not_withdrawn_for_the_failures_of_the_last(stage: Stage) -> None:
    """Once the pause is over a whole new launch goes out, and it may queue for as long as it takes."""
    stage.ray.demands = (demand(8),)
    await stage.step(1)
    for one in list(stage.provider.world.instances.values()):
        if not one.held:
            stage.provider.fail(one.instance_id, detail="a node fault")
    await stage.step(2)
    stage.provider.queue_s = 1e6
    await stage.step(40)
    launched = [one.launch_id for change in stage.provider.changes for one in change.launch]
    assert len(launched) == 2
    assert len(stage.provider.world.instances) == 8


async def test_offers_that_fail_spoil_no_listing(stage: Stage) -> None:
    stage.provider.faults.append(Fault("offers", Unavailable("sinfo did not answer"), times=None))
    stage.ray.demands = (demand(2),)
    await stage.step(6)
    view = stage.controller.watches["fake"].view
    assert (view.fresh, view.error, len(view.rows)) == (True, None, 2)
    assert sorted(stage.states().values()) == ["running", "running"]
