"""What becomes of each demand, and what happens next."""

from __future__ import annotations

import pytest

from heliostat.control.explain import explain_demand
from heliostat.control.status import demand_reports, next_lines
from heliostat.model.resources import Resources
from tests.unit.control.scenes import FIRST, SECOND, Round, apart
from tests.unit.control.world import demand, node_type

FULL = "cpu has 4 of at most 4 (max_workers of the type)"
TRIED = "held back by first success: cpu never came up yet: 3 at a time until the first one joins"
CPU, FOUR_GPUS = node_type(), demand(1, GPU=4)


@pytest.mark.parametrize(
    "seen",
    [
        Round([CPU], [demand(1)], keep=[demand(9)]),
        Round([CPU], [FOUR_GPUS], keep=[demand(2, GPU=4)], foreign=[Resources.of({"GPU": 4})]),
        Round([node_type(min_workers=4)], [demand(1)], max_workers=3),
        Round([node_type(min_workers=4)], [demand(1)], untried=True),
    ],
    ids=[
        "request_resources at a limit",
        "request_resources on a full node",
        "min_workers",
        "min_workers, later",
    ],
)
def test_work_with_room_waits_though_something_else_of_its_shape_is_held_back(seen: Round) -> None:
    scene = seen.scene()
    assert scene.plan.deferred
    (report,) = demand_reports(scene)
    assert (report.verdict, report.deferred) == ("waits", 0)
    answer = explain_demand(scene, report.text)
    assert answer is not None
    assert answer["facts"]["deferred"] == []  # type: ignore[index]


def test_why_work_can_never_run_is_said_of_work_only() -> None:
    scene = Round([CPU], [demand(1, GPU=1)], keep=[demand(1, GPU=1)]).scene()
    never, kept = scene.plan.infeasible
    assert (never.from_constraint, kept.from_constraint) == (False, True)
    answer = explain_demand(scene, "gpu")
    assert answer is not None
    assert [one["from_constraint"] for one in answer["facts"]["infeasible"]] == [False]  # type: ignore[index]


@pytest.mark.parametrize(
    ("seen", "deferred", "why"),
    [
        (Round([CPU], [demand(2)]), 0, "room for it is there or on its way"),
        (Round([CPU], [demand(10)]), 6, f"6 of 10 held back by max_workers of the node type: {FULL}"),
        (
            Round([node_type(max_workers=0)], [demand(3)]),
            3,
            "max_workers of the node type: cpu has 0 of at most 0 (max_workers of the type)",
        ),
        # A type that never came up is tried with three; the fourth waits for that, the others for good.
        (
            Round([CPU], [demand(10)], untried=True),
            7,
            f"6 of 10 held back by max_workers of the node type: {FULL}; 1 of 10 {TRIED}",
        ),
        # The minimum's fourth node is for work, and is not launched yet.
        (Round([node_type(min_workers=4)], [demand(4)], untried=True), 1, f"1 of 4 {TRIED}"),
    ],
    ids=["none", "some", "all", "by two limiters", "on a node of a minimum"],
)
def test_how_many_are_held_back_and_by_what(seen: Round, deferred: int, why: str) -> None:
    (report,) = demand_reports(seen.scene())
    assert (report.count, report.deferred, report.why) == (seen.demands[0].count, deferred, why)
    assert report.verdict == ("deferred" if deferred else "waits")


def test_a_placement_group_is_held_back_as_one() -> None:
    (report,) = demand_reports(Round([CPU], gangs=[apart(demand(5))]).scene())
    assert (report.verdict, report.count, report.deferred) == ("deferred", 1, 1)
    assert report.why.startswith("max_workers of the node type: a part of it would not fit")
    assert (report.resources, report.gang_id) == ({"CPU": 5}, FIRST)


def test_groups_whose_ids_begin_alike_are_told_apart() -> None:
    groups = [apart(demand(1)), apart(demand(5), gang_id=SECOND)]
    first, second = demand_reports(Round([CPU], gangs=groups).scene())
    assert (first.gang_id, first.verdict) == (FIRST, "waits")
    assert (second.gang_id, second.verdict) == (SECOND, "deferred")


def test_what_is_held_back_is_named_in_one_line_for_each_limit() -> None:
    types = [node_type(max_workers=1), node_type("gpu", resources=Resources.of({"GPU": 8}), max_workers=0)]
    wanted = [demand(3), *(demand(2, GPU=gpus) for gpus in (1, 2, 3, 4))]
    assert next_lines(Round(types, wanted, keep=[demand(2)]).scene())[1:] == [
        "deferred (max_workers of the node type): 2 × {GPU: 4}, 2 × {GPU: 3}, 2 × {GPU: 2} and 1 more: "
        "gpu has 0 of at most 0 (max_workers of the type)",
        "deferred (max_workers of the node type): 2 × {CPU: 1}, 1 × {CPU: 1} (request_resources): "
        "cpu has 1 of at most 1 (max_workers of the type)",
    ]


def test_a_floor_that_is_held_back_is_called_so() -> None:
    (line,) = next_lines(Round([node_type(min_workers=3)], max_workers=0).scene())
    assert line.startswith("deferred (max_workers): 3 × {CPU: 1} (min_workers): 3 of cpu shall be there; ")
