"""A machine may have less than its node type promises: the journal says so, once."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from heliostat.model.resources import Resources
from tests.unit.control.stage import Stage
from tests.unit.control.world import demand, node_type, spec


@pytest.mark.parametrize(("has", "told"), [({"CPU": 2}, True), ({"CPU": 4}, False), ({"CPU": 8}, False)])
async def test_a_node_with_less_is_told_when_it_joins(
    tmp_path: Path, has: dict[str, float], told: bool
) -> None:
    kind = replace(node_type(), resources=Resources.of({"CPU": 4}))
    stage = Stage(tmp_path, spec=spec(kind))
    real = replace(kind, resources=Resources.of(has))
    stage.provider.on_running = lambda row: stage.ray.join(row.instance_id, real)
    stage.ray.demands = (demand(1),)
    await stage.step(8)
    texts = [one.text for one in stage.journal.events() if one.kind == "less"]
    assert len(texts) == told
    assert all(text.endswith("has less than cpu promises: 2 of 4 CPU") for text in texts)
