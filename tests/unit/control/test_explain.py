"""What `explain` says to people, and the same as data for programs."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from heliostat.api import wire
from heliostat.control.explain import explain_cluster, explain_demand
from heliostat.model.history import Backoff
from heliostat.model.instance import NodeStatus
from heliostat.model.plan import Limiter
from tests.unit.control.scenes import FIRST, SECOND, Round, apart
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
    assert [one["text"] for one in facts["demands"]] == ["{CPU: 1}", "{CPU: 3, GPU: 1}"]
    assert [one["instance_id"] for one in facts["instances"]] == sorted(stage.states())
    assert [(one["name"], one["max_workers"]) for one in facts["node_types"]] == [
        ("cpu", 4),
        ("dear", 4),
        ("few", 0),
    ]
    launch = facts["actions"][0]
    assert (launch["action"], launch["why"]) == ("launch", "demand")
    assert (launch["type"], launch["count"]) == ("cpu", 3)
    assert {one["limiter"] for one in facts["deferred"]} <= {one.value for one in Limiter}
    assert facts["deferred"]
    (never,) = facts["infeasible"]
    wanted = {"text": "{CPU: 3, GPU: 1}", "count": 2, "resources": {"CPU": 3, "GPU": 1}}
    assert (never["wanted"], never["nearest"], never["from_constraint"]) == (wanted, "cpu", False)
    assert never["lacks"] == {"CPU": {"asked": 3.0, "there": 1.0}, "GPU": {"asked": 1.0, "there": 0.0}}
    assert never["labels"] == []


async def test_one_demand_as_data(stage: Stage) -> None:
    stage.ray.demands = (demand(99), demand(2, CPU=3, GPU=1))
    await stage.step(3)
    facts = (await explained(stage, "gpu"))["facts"]
    (found,) = facts["demands"]
    assert found.pop("why").startswith("no node type can hold")
    assert found == {
        "text": "{CPU: 3, GPU: 1}",
        "count": 2,
        "waiting_s": 2.0,
        "verdict": "infeasible",
        "deferred": 0,
        "resources": {"CPU": 3, "GPU": 1},
        "gang_id": "",
    }
    assert [one["nearest"] for one in facts["infeasible"]] == ["cpu"]
    assert facts["deferred"] == []
    facts = (await explained(stage, "{CPU: 1}"))["facts"]
    assert facts["infeasible"] == []
    assert facts["deferred"]
    assert {one["wanted"]["text"] for one in facts["deferred"]} == {"{CPU: 1}"}
    assert facts["demands"][0]["deferred"] == sum(one["wanted"]["count"] for one in facts["deferred"])


def test_what_is_deferred_as_data() -> None:
    cheap, dear = node_type(max_workers=2, price_usd_per_h=1.0), node_type("dear", price_usd_per_h=2.0)
    seen = Round([cheap, dear], [demand(9)], [apart(demand(5))], max_cost_usd_per_h=6.0)
    facts = explain_cluster(seen.scene())["facts"]
    gang, rest = facts["deferred"][1], facts["deferred"][0]  # type: ignore[index]
    assert {key: rest[key] for key in ("wanted", "nearest", "have", "most")} == {
        "wanted": {"text": "{CPU: 1}", "count": 5, "resources": {"CPU": 1}},
        "nearest": "cpu",
        "have": 2,
        "most": 2,
    }
    assert gang["wanted"] == {
        "text": "placement group 01234567 (STRICT_SPREAD): 5 × {CPU: 1}",
        "count": 1,
        "gang_id": FIRST,
        "strategy": "STRICT_SPREAD",
        "bundles": [{"text": "{CPU: 1}", "count": 5, "resources": {"CPU": 1}}],
    }


def test_groups_whose_ids_begin_alike_are_found_by_their_full_ids() -> None:
    scene = Round([node_type()], gangs=[apart(demand(5)), apart(demand(5), gang_id=SECOND)]).scene()
    for gang_id in (FIRST, SECOND):
        facts = explain_demand(scene, gang_id)["facts"]  # type: ignore[index]
        assert [one["gang_id"] for one in facts["demands"]] == [gang_id]  # type: ignore[index]
    assert len(explain_demand(scene, "01234567")["lines"]) == 2  # type: ignore[index,arg-type]


async def test_one_type_as_data(stage: Stage) -> None:
    (one,) = await up_with(stage, 1)
    facts = (await explained(stage, "cpu"))["facts"]
    assert (facts["name"], facts["min_workers"], facts["max_workers"]) == ("cpu", 0, 4)
    assert (facts["alive"], facts["running"], facts["target"]) == (1, 1, 1)
    assert facts["start_s"] == [pytest.approx(3.0, abs=1.0)]
    assert (facts["failures"], facts["last_error"], facts["backoff_until_s"]) == (0, "", None)
    assert [each["instance_id"] for each in facts["instances"]] == [one]
    backoff = {"cpu": Backoff(2, stage.clock.now_s() + 30.0, "no such image")}
    memory = stage.controller.memory
    memory.history = replace(memory.history, backoff=backoff)
    answer = await explained(stage, "cpu")
    assert (answer["facts"]["failures"], answer["facts"]["last_error"]) == (2, "no such image")
    assert answer["lines"][1:3] == ["last failure: no such image", "it failed 2 times, tried again in 30 s"]


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
