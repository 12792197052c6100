"""What `explain` says to people, and the same as data for programs."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from heliostat.api import wire
from heliostat.model.instance import NodeStatus
from heliostat.model.plan import Limiter
from tests.unit.control.stage import Stage
from tests.unit.control.world import demand, node_type, spec


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    types = node_type(), node_type("dear", price_usd_per_h=2.0), node_type("few", max_workers=0)
    return Stage(tmp_path, spec=spec(*types))


async def explained(stage: Stage, subject: str | None = None) -> dict[str, Any]:
    """Return the answer as a program reads it."""
    answer = await stage.operations.explain(subject)
    read: dict[str, Any] = json.loads(json.dumps(wire.to_plain(answer)))
    return read


async def up_with(stage: Stage, count: int) -> list[str]:
    stage.busy = True
    stage.ray.demands = (demand(count),)
    await stage.step(8)
    return sorted(stage.states())


DEAR = {"type": "dear", "why": "price", "text": "2 × dear cost 4 $/h, 2 × cpu cost 0 $/h"}
FEW = {"type": "few", "why": "max", "text": "few has 0 of at most 0 (max_workers of the type)"}


async def test_every_member_of_a_launch_says_what_was_not_taken_instead(stage: Stage) -> None:
    members = await up_with(stage, 2)
    assert len(members) == 2
    for one in members:
        answer = await explained(stage, one)
        assert f"not dear (price): {DEAR['text']}" in answer["lines"]
        assert f"not few (max): {FEW['text']}" in answer["lines"]
        launch = answer["facts"]["launch"]
        assert (launch["type"], launch["count"]) == ("cpu", 2)
        assert launch["demands"] == [{"text": "{CPU: 1}", "resources": {"CPU": 1}, "count": 2}]
        assert launch["rivals"] == [DEAR, FEW]


async def test_an_idle_node_says_what_keeps_it(stage: Stage) -> None:
    (one,) = await up_with(stage, 1)
    for key, node in stage.ray.nodes.items():
        stage.ray.nodes[key] = replace(node, status=NodeStatus.IDLE, available=node.total)
    await stage.step(3)
    stays = (await explained(stage, one))["facts"]["stays"]
    assert stays["why"] == "idle timeout not reached"
    assert stays["left_s"] == 3.0
    assert (await explained(stage))["facts"]["kept"][one] == stays


async def test_the_whole_as_data(stage: Stage) -> None:
    await up_with(stage, 1)
    stage.ray.demands = (demand(9), demand(2, CPU=3, GPU=1))
    await stage.step()
    answer = await explained(stage)
    facts = answer["facts"]
    assert facts["demands"] == 2
    launch = facts["actions"][0]
    assert (launch["action"], launch["why"]) == ("launch", "demand")
    assert (launch["type"], launch["count"]) == ("cpu", 3)
    assert {one["limiter"] for one in facts["deferred"]} <= {one.value for one in Limiter}
    assert facts["deferred"]
    (never,) = facts["infeasible"]
    assert (never["wanted"], never["nearest"]) == ("2 × {CPU: 3, GPU: 1}", "cpu")
    assert never["lacks"] == {"CPU": {"asked": 3.0, "there": 1.0}, "GPU": {"asked": 1.0, "there": 0.0}}
    assert never["labels"] == []


async def test_one_demand_as_data(stage: Stage) -> None:
    stage.ray.demands = (demand(99), demand(2, CPU=3, GPU=1))
    await stage.step()
    facts = (await explained(stage, "gpu"))["facts"]
    assert facts["demands"] == [{"text": "{CPU: 3, GPU: 1}", "count": 2, "verdict": "infeasible"}]
    assert [one["nearest"] for one in facts["infeasible"]] == ["cpu"]
    assert facts["deferred"] == []
    facts = (await explained(stage, "{CPU: 1}"))["facts"]
    assert facts["infeasible"] == []
    assert facts["deferred"]
    assert all(one["wanted"].endswith("× {CPU: 1}") for one in facts["deferred"])


async def test_a_drain_and_a_release_as_data(stage: Stage) -> None:
    (one,) = await up_with(stage, 1)
    for key, node in stage.ray.nodes.items():
        stage.ray.nodes[key] = replace(node, status=NodeStatus.IDLE, available=node.total)
    seen = []
    for _ in range(12):
        await stage.step()
        actions = (await explained(stage))["facts"]["actions"]
        seen += [(each["action"], each["instance_id"], each["why"]) for each in actions]
    assert seen == [("drain", one, "idle"), ("release", one, "drained")]
