"""A lease's end, through the loop: Ray is told once, at once, and the deadline is kept by us."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from heliostat.control.drainer import Drainer
from heliostat.control.memory import Memory
from heliostat.model.history import History
from heliostat.model.instance import BackendInstance, DrainReason, NodeStatus
from heliostat.model.plan import Drain, Reason, Why
from heliostat.model.snapshot import OperatorSettings
from heliostat.planner.limits import LEASE_GRACE_S
from heliostat.testing.fake import FakeProvider
from tests.unit.control.stage import Stage
from tests.unit.control.world import HEAD, FakeCluster, demand, node_type, spec

LEASE_S = 300.0


class Leasing(FakeProvider):
    """A backend that gives everything for 300 s. It takes nothing back by itself."""

    async def instances(self) -> tuple[BackendInstance, ...]:
        rows = await super().instances()
        known = self.world.instances
        return tuple(replace(row, expires_at_s=known[row.instance_id].launched_s + LEASE_S) for row in rows)


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stage:
    monkeypatch.setattr("tests.unit.control.stage.FakeProvider", Leasing)
    return Stage(tmp_path, spec=spec(node_type(max_workers=1)))


async def test_work_is_told_once_and_the_node_released_at_its_deadline(stage: Stage) -> None:
    stage.busy = True
    stage.ray.demands = (demand(1),)
    await stage.step(8)
    (one,) = stage.states()
    (known,) = stage.provider.world.instances.values()
    left_s = known.launched_s + LEASE_S - stage.clock.now_s()
    await stage.step(int(left_s - LEASE_GRACE_S) - 1)
    assert [reason for _, reason in stage.ray.drains] == [DrainReason.PREEMPTION]
    assert stage.states()[one] == "draining"
    assert "works and its lease ends in" in " ".join(each.text for each in stage.journal.events())
    await stage.step(4)
    assert one not in stage.provider.world.instances
    (release,) = (each for each in stage.journal.events() if each.kind == "release")
    assert release.data["why"] == "lease ends"


@pytest.mark.parametrize(("second", "asked"), [(DrainReason.IDLE, 1), (DrainReason.PREEMPTION, 2)])
async def test_who_was_refused_as_idle_is_told_of_a_preemption_at_once(
    second: DrainReason, asked: int
) -> None:
    """Ray's refusal is remembered for a while, but it was an answer to another question."""
    ray = FakeCluster(refuses="an actor lives here")
    ray.nodes["n"] = replace(HEAD, node_id="n", status=NodeStatus.RUNNING, instance_id="la.0", is_head=False)
    said: list[str] = []
    memory = Memory({}, History(), OperatorSettings())
    drainer = Drainer(ray, memory, ask_again_s=10.0, say=lambda kind, text, _: said.append(kind))
    for at_s, reason in ((0.0, DrainReason.IDLE), (1.0, second), (2.0, second)):
        drainer.submit(Drain("la.0", "n", reason, Reason(Why.IDLE, "idle")), at_s)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    assert len(ray.drains) == asked
    assert said == ["refused", "drain"][:asked]
