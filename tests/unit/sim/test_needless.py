"""What the check `needless` counts as of use."""

from __future__ import annotations

from types import SimpleNamespace
from typing import cast

from heliostat.model.demand import Bundle, GangStrategy
from heliostat.model.instance import Intent
from heliostat.model.node_type import Policy
from heliostat.model.resources import Resources
from heliostat.sim.checks.given_up import NEEDLESS_S, Needless
from heliostat.sim.checks.view import View
from heliostat.sim.world.ends import Cause
from heliostat.sim.world.work import Group, Work, WorkState
from tests.unit.sim.world.stage import CPU, OURS, Stage, request

TWO = Bundle(Resources.of({"CPU": 2}))


def look(stage: Stage, coming: int) -> list[str]:
    """Return what the check says of so many machines that come for longer than they may needlessly."""
    backend = stage.batch(boot_s=(1e6, 1e6))
    backend.submit(request(coming, "l9"), OURS, range(coming))
    stage.agenda.advance(1)
    policy = Policy((CPU,), max_workers=9, idle_timeout_s=5.0)
    wanted = SimpleNamespace(intent=Intent.WANTED)
    view = SimpleNamespace(
        scenario=SimpleNamespace(policy=policy),
        policy=policy,
        world=stage,
        witness=SimpleNamespace(
            intents={one.instance_id: wanted for one in backend.machines}, protected=(), added=0
        ),
        ours=backend.machines,
        now_s=0.0,
        lasted_s=lambda *_: NEEDLESS_S + 1,
    )
    return list(Needless(cast(View, view)).look())


def test_what_is_done_of_a_gang_needs_a_place_while_others_of_it_work() -> None:
    """Ray keeps each bundle of a placement group, and finds it another node when its own ends."""
    stage = Stage()
    members = (Work(1, TWO, 1.0), Work(2, TWO, 100.0))
    gang = Group("a" * 36, GangStrategy.STRICT_SPREAD, (TWO, TWO), members)
    for one in members:
        one.gang = gang
    stage.ray.scheduler.submit_group(gang)
    nodes = [stage.node(f"l{index}.0") for index in (1, 2)]
    stage.agenda.advance(5)
    assert [one.state for one in members] == [WorkState.DONE, WorkState.RUNNING]
    for node_id in nodes:
        stage.ray.leave(node_id, Cause.LEASE)
    assert look(stage, 2) == []
    assert look(stage, 3) == ["3 are on their way for 31 s, and 2 could be used"]


def test_a_gang_that_is_done_needs_none() -> None:
    stage = Stage()
    (work,) = members = (Work(1, TWO, 1.0),)
    work.gang = Group("a" * 36, GangStrategy.STRICT_SPREAD, (TWO,), members)
    stage.ray.scheduler.submit_group(work.gang)
    stage.node("l1.0")
    stage.agenda.advance(5)
    assert work.state is WorkState.DONE
    assert look(stage, 1) == ["1 are on their way for 31 s, and 0 could be used"]
