"""`heliostat explain` from a plan to the terminal: through the socket, in words and as JSON."""

from __future__ import annotations

import json
from typing import Any

import pytest

from heliostat.config.record import ClusterRecord
from heliostat.control.explain import explain_cluster, explain_demand, explain_type
from tests.unit.api.fakes import FakeOperations
from tests.unit.cli.conftest import Invoke
from tests.unit.control.scenes import FIRST, SECOND, Round, apart
from tests.unit.control.world import demand, node_type


@pytest.fixture
def explained(cluster: ClusterRecord, operations: FakeOperations, monkeypatch: pytest.MonkeyPatch) -> None:
    """Serve what a controller would say of four places, ten tasks and two groups of five."""
    groups = [apart(demand(5)), apart(demand(5), gang_id=SECOND)]
    scene = Round([node_type()], [demand(10)], groups, keep=[demand(2)]).scene()

    async def explain(subject: str | None) -> dict[str, Any]:
        if subject is None:
            return explain_cluster(scene)
        found = explain_type(scene, subject) or explain_demand(scene, subject)
        assert found is not None
        return found

    monkeypatch.setattr(operations, "explain", explain)


@pytest.mark.usefixtures("explained")
class TestExplain:
    def test_everything_in_words(self, invoke: Invoke) -> None:
        first, *rest = invoke("explain").output.splitlines()
        full = "cpu has 4 of at most 4 (max_workers of the type)"
        assert first == "cluster"
        assert rest[:2] == [
            "  cpu: 0 running, 0 in all, target 4 (min 0, max 4; backend fake)",
            "  10 × {CPU: 1}: waiting for 0 s, deferred: "
            f"6 of 10 held back by max_workers of the node type: {full}",
        ]
        assert f"  next: deferred (max_workers of the node type): 6 × {{CPU: 1}}: {full}" in rest

    def test_a_demand_in_words(self, invoke: Invoke) -> None:
        lines = invoke("explain", FIRST).output.splitlines()
        assert lines[0] == f"demand {FIRST}"
        assert len(lines) == 2
        assert "placement group 01234567 (STRICT_SPREAD): 5 × {CPU: 1}: waiting for 0 s, deferred" in lines[1]

    def test_everything_as_json(self, invoke: Invoke) -> None:
        answer = json.loads(invoke("explain", "--json").output)
        assert (answer["kind"], len(answer["lines"])) == (
            "cluster",
            len(invoke("explain").output.splitlines()) - 1,
        )
        facts = answer["facts"]
        assert [one["name"] for one in facts["node_types"]] == ["cpu"]
        assert [(one["count"], one["deferred"]) for one in facts["demands"]] == [(10, 6), (1, 1), (1, 1)]
        assert [one["gang_id"] for one in facts["demands"]] == ["", FIRST, SECOND]
        (tasks, *groups) = facts["deferred"]
        assert tasks["wanted"] == {"text": "{CPU: 1}", "count": 6, "resources": {"CPU": 1}}
        assert (tasks["nearest"], tasks["have"], tasks["most"]) == ("cpu", 4, 4)
        assert {one["wanted"]["gang_id"] for one in groups} == {FIRST, SECOND}

    def test_a_demand_and_a_type_as_json(self, invoke: Invoke) -> None:
        facts = json.loads(invoke("explain", "{CPU: 1}", "--json").output)["facts"]
        assert facts.keys() == {"demands", "deferred", "infeasible"}
        assert [one["gang_id"] for one in facts["demands"]] == ["", FIRST, SECOND]
        facts = json.loads(invoke("explain", "cpu", "--json").output)["facts"]
        assert (facts["max_workers"], facts["target"], facts["failures"], facts["start_s"]) == (4, 4, 0, [])
