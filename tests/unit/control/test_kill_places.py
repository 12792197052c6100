"""The places at which tests kill the controller are all on its way: one that is not tests nothing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from heliostat.model.instance import NodeStatus
from tests.integration.kills.controller import wrapped
from tests.integration.kills.failpoints import ADOPTION, DOWN, EVERYWHERE, Failpoints
from tests.unit.control.stage import Stage
from tests.unit.control.world import demand


class Passed(Failpoints):
    """Notes a place in place of dying there."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.names: list[str] = []

    def reach(self, name: str) -> None:
        self.names.append(name)


async def work_for_one(stage: Stage) -> None:
    stage.busy = True
    stage.ray.demands = (demand(1),)
    await stage.step(8)
    stage.ray.demands = ()


def lose_the_journal(stage: Stage) -> None:
    stage.journal.close()
    for path in stage.folder.glob("journal.db*"):
        path.unlink()
    stage.restart()


async def test_a_controller_passes_each_place(tmp_path: Path) -> None:
    stage, points = Stage(tmp_path), Passed(tmp_path / "points")
    await work_for_one(stage)
    lose_the_journal(stage)
    wrapped(stage.controller.ports, points)
    await stage.step(2)
    assert ADOPTION in points.names
    await work_for_one(stage)
    for key, node in stage.ray.nodes.items():
        stage.ray.nodes[key] = replace(node, status=NodeStatus.IDLE, available=node.total)
    await stage.step(60)
    assert stage.states() == {}
    await work_for_one(stage)
    assert DOWN not in points.names
    await stage.operations.down()
    await stage.step(2)
    assert {*EVERYWHERE, ADOPTION, DOWN} - {"start"} <= set(points.names)
    stage.journal.close()
