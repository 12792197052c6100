"""What Ray's own autoscaler may ask of a controller, and what people may not where that decides."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from heliostat.control.provision import RayProvision
from heliostat.model.history import History
from heliostat.model.node_type import ClusterSpec
from heliostat.ports.errors import JournalError, Refused
from tests.unit.control.stage import Stage
from tests.unit.control.world import demand, node_type, spec


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    made = Stage(tmp_path, spec=spec(ray_decides=True))
    proven(made)
    return made


def proven(stage: Stage) -> None:
    """Let the type have come up before, so that no few are tried first."""
    stage.controller.memory.history = replace(History(), proven={"cpu": "shape-cpu"})


async def listed(stage: Stage) -> list[str]:
    found = await RayProvision(stage.controller).instances()
    return [one["instance_id"] for one in found["instances"]]


async def test_ids_come_at_once_and_the_launch_is_the_controllers(stage: Stage) -> None:
    await stage.step(2)
    answer = await RayProvision(stage.controller).create("cpu", 2)
    assert answer == {"instance_ids": ["l1.0", "l1.1"], "refused": 0, "why": ""}
    assert {one.instance_id for one in stage.journal.intents()} == {"l1.0", "l1.1"}
    assert await listed(stage) == ["l1.0", "l1.1"]
    await stage.step(5)
    assert stage.states() == {"l1.0": "running", "l1.1": "running"}


async def test_of_five_four_come_and_the_fifth_is_refused_with_the_reason(stage: Stage) -> None:
    await stage.step(2)
    provision = RayProvision(stage.controller)
    answer = await provision.create("cpu", 5)
    assert len(answer["instance_ids"]) == 4
    assert (answer["refused"], "max_workers of the type" in answer["why"]) == (1, True)
    again = await provision.create("cpu", 1)
    assert (again["instance_ids"], again["refused"]) == ([], 1)
    status = await stage.operations.status()
    assert any("asks for 1 of cpu and gets 0" in line for line in status.next)


async def test_a_refusal_is_noted_once(stage: Stage) -> None:
    await stage.step(2)
    provision = RayProvision(stage.controller)
    await provision.create("cpu", 4)
    for _ in range(3):
        await provision.create("cpu", 1)
    assert stage.kinds().count("refused") == 1


async def test_asks_one_after_another_all_count(stage: Stage) -> None:
    await stage.step(2)
    provision = RayProvision(stage.controller)
    ids = [one for _ in range(3) for one in (await provision.create("cpu", 1))["instance_ids"]]
    assert ids == ["l1.0", "l2.0", "l3.0"]
    await stage.step(5)
    assert set(stage.states().values()) == {"running"}


async def test_what_failed_is_gone_for_ray_and_is_not_replaced(stage: Stage) -> None:
    await stage.step(2)
    await RayProvision(stage.controller).create("cpu", 1)
    await stage.step(5)
    node = stage.ray.nodes.pop("node-l1.0")
    stage.ray.nodes["node-l1.0"] = replace(node, status=type(node.status).DEAD)
    await stage.step(3)
    assert await listed(stage) == []
    assert stage.ids.made == 1


async def test_what_is_given_back_goes_when_it_is_idle(stage: Stage) -> None:
    await stage.step(2)
    provision = RayProvision(stage.controller)
    await provision.create("cpu", 2)
    await stage.step(5)
    assert await provision.terminate(["l1.0", "never-heard-of"]) == {"instance_ids": ["l1.0"]}
    await stage.step(5)
    assert await listed(stage) == ["l1.1"]


async def test_what_is_given_back_before_it_came_up_goes_at_once(stage: Stage) -> None:
    await stage.step(2)
    provision = RayProvision(stage.controller)
    await provision.create("cpu", 1)
    await provision.terminate(["l1.0"])
    assert await listed(stage) == []


async def test_a_controller_that_is_started_again_still_lists_what_was_asked_for(stage: Stage) -> None:
    await stage.step(2)
    await RayProvision(stage.controller).create("cpu", 2)
    await stage.step(4)
    stage.restart()
    with pytest.raises(Refused, match="has not looked around"):
        await RayProvision(stage.controller).instances()
    await stage.step(1)
    assert await listed(stage) == ["l1.0", "l1.1"]


async def test_demand_brings_nothing_and_ray_hears_no_report(stage: Stage) -> None:
    stage.ray.demands = (demand(3),)
    await stage.step(10)
    assert stage.ids.made == 0
    assert stage.ray.reports == []
    [report] = (await stage.operations.status()).demands
    assert report.verdict == "Ray's"


@pytest.mark.parametrize("wrong", [("gpu", 1), ("cpu", 0), ("cpu", 10_001)])
async def test_what_makes_no_sense_is_refused(stage: Stage, wrong: tuple[str, int]) -> None:
    with pytest.raises(Refused):
        await RayProvision(stage.controller).create(*wrong)


async def test_nothing_is_launched_that_can_not_be_written_down(stage: Stage) -> None:
    await stage.step(2)
    stage.disk_is_full()
    with pytest.raises(JournalError):
        await RayProvision(stage.controller).create("cpu", 1)
    assert stage.controller.memory.intents == {}


async def test_nothing_is_launched_while_the_cluster_goes_down(stage: Stage) -> None:
    await stage.step(2)
    stage.controller.go_down("a test")
    answer = await RayProvision(stage.controller).create("cpu", 1)
    assert (answer["instance_ids"], answer["why"]) == ([], "the cluster goes down: a test")


async def test_where_heliostat_decides_ray_may_ask_nothing(tmp_path: Path) -> None:
    stage = Stage(tmp_path)
    with pytest.raises(Refused, match="autoscaler: ray"):
        await RayProvision(stage.controller).create("cpu", 1)


async def test_people_may_not_what_is_rays_to_decide(stage: Stage) -> None:
    await stage.step(2)
    for ask in (
        stage.operations.add("cpu", 1),
        stage.operations.remove("l1.0", None),
        stage.operations.protect("l1.0", True),
        stage.operations.pause(True),
    ):
        with pytest.raises(Refused, match="Ray's own autoscaler decides here"):
            await ask
    # What an earlier cluster of this name was told must still be taken back.
    await stage.operations.pause(False)


async def test_a_changed_file_is_published_before_it_counts(stage: Stage) -> None:
    await stage.step(2)
    heard: list[ClusterSpec] = []
    stage.controller.ports = replace(stage.controller.ports, publish=heard.append)
    stage.config.spec = spec(node_type(max_workers=6), ray_decides=True)
    await stage.operations.apply()
    assert heard == [stage.config.spec]


async def test_who_decides_can_not_be_changed_while_it_runs(stage: Stage) -> None:
    stage.config.spec = spec()
    with pytest.raises(Refused, match=r"provider\.autoscaler changed"):
        await stage.operations.apply()


async def test_status_and_events_say_who_decides(stage: Stage) -> None:
    await stage.step(2)
    status = await stage.operations.status()
    assert status.autoscaler == "ray"
    assert status.next[0].startswith("Ray's own autoscaler decides")
    assert "autoscaler" in stage.kinds()
    explained = await stage.operations.explain(None)
    assert any("Ray's own autoscaler decides" in line for line in explained["lines"])
