"""Every field of Ray's `SchedulingRequest` and `SchedulingReply`, one behaviour at a time."""

from __future__ import annotations

from typing import Any
from unittest.mock import Mock, patch

import pytest

from heliostat.model.resources import IMPLICIT_RESOURCE, Resources
from heliostat.planner import plan
from heliostat.raylink import scheduling_request
from tests.unit.raylink.asks import (
    HEAD,
    NOW_S,
    Cause,
    Status,
    Watch,
    ask,
    brief,
    gives_pending_idle_timeout,
    group,
    head,
    node_type,
    pending,
    running,
    scheduler,
    unmanaged,
)
from tests.unit.raylink.builders import GROUP_ID, counted, pb, request, selector

CPU_1 = {"CPU": 1}
ONE = node_type("one", CPU_1)
IMPLICIT = f"{IMPLICIT_RESOURCE}a"


def answer(*types: Any, **asked: Any) -> Any:
    return scheduler().schedule(ask(types, **asked))


# --- What is there -------------------------------------------------------------------------

SUPPLY = (Status.QUEUED, Status.REQUESTED, Status.ALLOCATED, Status.RAY_INSTALLING, Status.RAY_RUNNING)
COUNTED_ONLY = (Status.RAY_STOP_REQUESTED,)


@pytest.mark.parametrize("status", Status.InstanceStatus.values(), ids=Status.InstanceStatus.Name)
def test_status(status: int) -> None:
    """What comes or runs is room; what is asked to stop only counts; anything else is nothing."""
    up = status in {Status.RAY_RUNNING, Status.RAY_STOP_REQUESTED, Status.RAY_STOPPING}
    there = running("1", "one", CPU_1, status=status) if up else pending("1", "one", status=status)
    found = brief(answer(node_type("one", CPU_1, most=1), demand=[CPU_1], instances=[there]))
    if status in SUPPLY:
        assert (found.launch, found.unmet) == ({}, 0)
    elif status in COUNTED_ONLY:
        assert (found.launch, found.unmet) == ({}, 1)
    else:
        assert (found.launch, found.unmet) == ({"one": 1}, 0)
    assert found.gone == {}


def test_what_is_asked_to_stop_is_replaced_where_there_is_room_for_both() -> None:
    going = running("1", "one", CPU_1, status=Status.RAY_STOP_REQUESTED)
    assert brief(answer(ONE, demand=[CPU_1], instances=[going])).launch == {"one": 1}


@pytest.mark.parametrize(
    ("node_status", "launch"),
    [("UNSPECIFIED", {}), ("RUNNING", {}), ("IDLE", {}), ("DRAINING", {"one": 1}), ("DEAD", {"one": 1})],
)
def test_what_ray_says_of_the_node(node_status: str, launch: dict[str, int]) -> None:
    there = running("1", "one", CPU_1, node_status=pb.NodeStatus.Value(node_status))
    found = brief(answer(ONE, demand=[CPU_1], instances=[there]))
    assert (found.launch, found.gone) == (launch, {})


def test_a_running_instance_without_its_node_counts_for_nothing() -> None:
    lost = pending("1", "one", status=Status.RAY_RUNNING)
    found = brief(answer(node_type("one", CPU_1, most=1), demand=[CPU_1], instances=[lost]))
    assert (found.launch, found.gone) == ({"one": 1}, {})


def test_a_node_that_nobody_manages_is_room_and_is_left_alone() -> None:
    stranger = unmanaged("s", {"CPU": 2})
    stranger.ray_node.idle_duration_ms = 10_000_000
    found = brief(answer(ONE, demand=[CPU_1] * 3, instances=[stranger], max_num_nodes=1, idle_timeout_s=1.0))
    assert (found.launch, found.gone, found.unmet) == ({"one": 1}, {}, 0)


def test_the_head_is_room_is_counted_and_is_left_alone() -> None:
    types = [ONE, node_type("head", {"CPU": 2}, most=1, shape="new")]
    its = running("h", "head", {"CPU": 2}, kind=HEAD, idle_s=9_999.0, shape="old")
    found = brief(
        answer(*types, demand=[CPU_1] * 4, instances=[its], max_num_nodes=2, idle_timeout_s=1, checked=True)
    )
    assert (found.launch, found.gone, found.unmet) == ({"one": 1}, {}, 1)


def test_workers_of_the_heads_type() -> None:
    found = brief(answer(node_type("head", CPU_1, most=3), demand=[CPU_1] * 9, instances=[head(CPU_1)]))
    assert (found.launch, found.unmet) == ({"head": 2}, 6)


@pytest.mark.parametrize(("most", "launch"), [(None, 9), (4, 3), (1, 0), (0, 0)])
def test_the_limit_of_the_cluster_counts_the_head(most: int | None, launch: int) -> None:
    found = brief(answer(ONE, demand=[CPU_1] * 9, instances=[head()], max_num_nodes=most))
    assert (sum(found.launch.values()), found.unmet) == (launch, 9 - launch)


def test_a_type_that_is_gone_and_may_stay() -> None:
    old = [pending("1", "old"), running("2", "old", CPU_1)]
    found = brief(answer(ONE, demand=[CPU_1] * 2, instances=old, max_num_nodes=2))
    assert (found.launch, found.gone, found.unmet) == ({"one": 1}, {}, 0)


def test_no_types_at_all() -> None:
    asked = ask([], demand=[CPU_1])
    asked.node_type_configs = None
    assert brief(scheduler().schedule(asked)).unmet == 1


# --- What is asked -------------------------------------------------------------------------

ZONES = [node_type("a", CPU_1, labels={"zone": "a"}), node_type("b", CPU_1, labels={"zone": "b"})]
IN_A, IN_B = selector(("zone", "in", ("a",))), selector(("zone", "in", ("b",)))


@pytest.mark.parametrize(
    ("selectors", "launch"),
    [
        ([IN_A], {"a": 1}),
        ([IN_B], {"b": 1}),
        ([selector(("zone", "not in", ("a",)))], {"b": 1}),
        ([IN_B, IN_A], {"b": 1}),
        ([selector(("zone", "in", ("c",))), IN_A], {"a": 1}),
        ([selector(("zone", "in", ("c",)))], {}),
    ],
)
def test_labels(selectors: list[Any], launch: dict[str, int]) -> None:
    found = brief(answer(*ZONES, requests=[counted(1, CPU_1, *selectors)]))
    assert (found.launch, found.unmet) == (launch, 0 if launch else 1)


def test_labels_of_a_node_that_runs() -> None:
    there = running("1", "a", CPU_1, labels={"zone": "b"})
    assert brief(answer(*ZONES, requests=[counted(1, CPU_1, IN_B)], instances=[there])).launch == {}


def test_a_groups_conditions_and_fallbacks() -> None:
    ways = [[request(CPU_1, selector(("zone", "in", ("c",))))] * 2, [request(CPU_1, IN_B)] * 2]
    asked = pb.GangResourceRequest(details=f"{GROUP_ID}:SPREAD|PENDING")
    for way in ways:
        asked.bundle_selectors.add().resource_requests.extend(way)
    found = brief(answer(*ZONES, gangs=[asked]))
    assert (found.launch, found.gangs_unmet) == ({"b": 2}, 0)


def test_groups_without_an_id_are_several() -> None:
    asked = [group({"CPU": 2}), group({"CPU": 3}), group(CPU_1)]
    found = answer(ONE, gangs=asked)
    infeasible = sorted(
        one.requests[0].resources_bundle["CPU"] for one in found.infeasible_gang_resource_requests
    )
    assert (infeasible, brief(found).launch) == ([2, 3], {"one": 1})


def test_work_inside_a_group_waits_for_the_group() -> None:
    inside = {f"CPU_group_{GROUP_ID}": 1}
    assert brief(answer(ONE, demand=[inside])) == brief(answer(ONE))


# --- What is answered ----------------------------------------------------------------------


def test_launches() -> None:
    found = answer(ONE, node_type("gpu", {"GPU": 1}, least=2), demand=[CPU_1] * 3, gangs=[group(CPU_1)])
    assert [(one.instance_type, one.count) for one in found.to_launch] == [("gpu", 2), ("one", 4)]
    assert len({one.id for one in found.to_launch}) == 2
    # Microseconds, whatever the name says: what Ray itself fills in.
    assert {one.request_ts_ms for one in found.to_launch} == {int(NOW_S * 1_000_000)}


def test_an_idle_node_goes() -> None:
    there = running("1", "one", CPU_1, idle_s=12.5)
    (found,) = answer(ONE, instances=[there], idle_timeout_s=10).to_terminate
    assert (found.instance_id, found.instance_type, found.instance_status) == ("1", "one", Status.RAY_RUNNING)
    assert found.ray_node_id == there.ray_node.node_id.hex()
    assert (found.cause, found.idle_duration_ms) == (Cause.IDLE, 12_500)
    assert "idle" in found.details
    assert found.id == "id-0"


def test_more_than_the_type_may_have() -> None:
    there = [pending("1", "one"), pending("2", "one"), pending("3", "two")]
    types = [node_type("one", CPU_1, most=1), node_type("two", CPU_1)]
    (found,) = answer(*types, instances=there, demand=[CPU_1] * 9).to_terminate
    assert (found.cause, found.instance_type) == (Cause.MAX_NUM_NODE_PER_TYPE, "one")
    assert (found.max_num_nodes_per_type, found.max_num_nodes, found.idle_duration_ms) == (1, 0, 0)


def test_more_than_the_cluster_may_have() -> None:
    there = [head(), *(pending(str(one), "one") for one in range(3))]
    found = answer(ONE, instances=there, demand=[CPU_1] * 9, max_num_nodes=2).to_terminate
    assert [(one.cause, one.max_num_nodes, one.max_num_nodes_per_type) for one in found] == [
        (Cause.MAX_NUM_NODES, 2, 0)
    ] * 2


@pytest.mark.parametrize(
    ("recorded", "wanted", "checked", "goes"),
    [
        ("old", "new", True, True),
        ("new", "new", True, False),
        ("old", "new", False, False),
        ("old", "", True, False),
        ("", "new", True, False),
    ],
)
def test_outdated(recorded: str, wanted: str, checked: bool, goes: bool) -> None:
    there = [
        pending("1", "one", shape=recorded),
        running("2", "one", CPU_1, idle_s=1, shape=recorded),
        running("3", "one", CPU_1, {"CPU": 0}, shape=recorded),
    ]
    found = answer(node_type("one", CPU_1, least=2, shape=wanted), instances=there, checked=checked)
    assert brief(found).gone == ({"1": "OUTDATED", "2": "OUTDATED"} if goes else {})


def test_only_what_can_be_cancelled_is() -> None:
    there = [pending(str(one), "one", status=one) for one in SUPPLY[:-1]]
    found = brief(answer(node_type("one", CPU_1, most=0), instances=there))
    assert set(found.gone) == {str(one) for one in SUPPLY[:-1]} - {str(Status.REQUESTED)}


def test_infeasible_comes_as_ray_sent_it_one_for_each_bundle() -> None:
    asked = [counted(3, {"GPU": 1}), counted(2, CPU_1, IN_A)]
    found = answer(node_type("one", CPU_1, most=1, labels={"zone": "a"}), requests=asked)
    assert list(found.infeasible_resource_requests) == [asked[1].request, *[asked[0].request] * 3]


@pytest.mark.parametrize(
    ("demand", "keep", "expected"),
    [
        # The demand is met, and what request_resources asks beyond it is not.
        (1, 3, (0, 1)),
        # Two nodes hold all of request_resources, but not all of the demand at once.
        (3, 2, (1, 0)),
        (3, 3, (1, 1)),
        (2, 2, (0, 0)),
    ],
)
def test_whose_bundle_is_infeasible(demand: int, keep: int, expected: tuple[int, int]) -> None:
    found = brief(answer(node_type("one", CPU_1, most=2), demand=[CPU_1] * demand, keep=[CPU_1] * keep))
    assert (found.unmet, found.keep_unmet) == expected


@pytest.mark.parametrize(("demand", "keep"), [(1, 3), (3, 3)])
def test_one_plan_says_whose_bundle_it_is(monkeypatch: pytest.MonkeyPatch, demand: int, keep: int) -> None:
    planned = Mock(wraps=plan)
    monkeypatch.setattr("heliostat.raylink.scheduler.plan", planned)
    answer(node_type("one", CPU_1, most=2), demand=[CPU_1] * demand, keep=[CPU_1] * keep)
    assert planned.call_count == 1


@pytest.mark.parametrize(
    ("implicit", "listed", "rebuilt"), [(False, False, 0), (True, True, 0), (True, False, 2)]
)
def test_nodes_are_rebuilt_only_for_implicit_resources_that_they_do_not_list(
    implicit: bool, listed: bool, rebuilt: int
) -> None:
    of_its_own = {IMPLICIT: 1.0} if listed else {}
    node = running("1", "one", {**CPU_1, **of_its_own})
    wanted = ask([], demand=[{IMPLICIT: 1} if implicit else CPU_1], instances=[node])
    with patch.object(Resources, "plus", autospec=True, side_effect=Resources.plus) as plus:
        scheduling_request.asked(wanted, now_s=NOW_S)
    assert plus.call_count == rebuilt


def test_a_minimum_that_limits_forbid_is_nobodys_request() -> None:
    types = [node_type("one", CPU_1, least=4), node_type("two", {"CPU": 2}, least=2)]
    found = brief(answer(*types, demand=[CPU_1], max_num_nodes=3))
    assert (sum(found.launch.values()), found.unmet) == (3, 0)


def test_cluster_resources_are_those_that_will_be() -> None:
    there = [
        head({"CPU": 4}),
        running("1", "one", {"CPU": 1, "node:10.0.0.1": 1}, {"CPU": 0}),
        running("2", "one", CPU_1, idle_s=99),
        running("3", "one", CPU_1, status=Status.RAY_STOP_REQUESTED),
        pending("4", "gpu"),
    ]
    types = [ONE, node_type("gpu", {"CPU": 8, "GPU": 1}), node_type("head", {"CPU": 4}, most=1)]
    found = answer(*types, instances=there, idle_timeout_s=1, demand=[{"GPU": 1}] * 2)
    assert found.cluster_resources == {"CPU": 4 + 1 + 8 + 8, "GPU": 2, "node:10.0.0.1": 1}
    assert brief(found).gone == {"2": "IDLE"}


def test_nothing_is_resized_in_place() -> None:
    assert answer(ONE, demand=[CPU_1], ippr_statuses={"pod": object()}).to_ippr == []


# --- From round to round -------------------------------------------------------------------


class Rounds:
    """One scheduler, asked again and again as time goes by."""

    def __init__(self) -> None:
        self.watch = Watch()
        self.scheduler = scheduler(self.watch)

    def after(self, seconds: float, **asked: Any) -> Any:
        self.watch.at_s += seconds
        return self.scheduler.schedule(ask([ONE], **asked))


@gives_pending_idle_timeout
@pytest.mark.parametrize("status", SUPPLY[:-1], ids=Status.InstanceStatus.Name)
def test_what_nothing_needs_is_cancelled_after_its_timeout(status: int) -> None:
    rounds = Rounds()
    unneeded = {"instances": [pending("1", "one", status=status)], "pending_idle_timeout_s": 30.0}
    assert brief(rounds.after(0, **unneeded)).gone == {}
    assert brief(rounds.after(30, **unneeded)).gone == {}
    found = rounds.after(5, **unneeded).to_terminate
    if status == Status.REQUESTED:
        assert found == []
    else:
        assert [(one.instance_id, one.cause, one.idle_duration_ms) for one in found] == [
            ("1", Cause.IDLE, 35_000)
        ]


def test_without_a_timeout_what_nothing_needs_stays() -> None:
    rounds = Rounds()
    for _ in range(5):
        assert brief(rounds.after(1_000, instances=[pending("1", "one")])).gone == {}


@gives_pending_idle_timeout
def test_what_was_needed_meanwhile_is_unneeded_anew() -> None:
    rounds = Rounds()
    asked: dict[str, Any] = {"instances": [pending("1", "one")], "pending_idle_timeout_s": 30.0}
    rounds.after(0, **asked)
    rounds.after(20, **asked, demand=[CPU_1])
    assert brief(rounds.after(20, **asked)).gone == {}
    assert brief(rounds.after(31, **asked)).gone == {"1": "IDLE"}


@gives_pending_idle_timeout
def test_what_the_minimum_needs_is_needed() -> None:
    rounds = Rounds()
    asked = ask([node_type("one", CPU_1, least=1)], instances=[pending("1", "one")], pending_idle_timeout_s=1)
    for _ in range(3):
        rounds.watch.at_s += 100
        assert brief(rounds.scheduler.schedule(asked)).gone == {}


def test_demand_that_a_new_node_has_just_taken_brings_no_second_one() -> None:
    """Ray reports work as waiting for a moment after it began (ray#36926)."""
    rounds = Rounds()
    busy = running("1", "one", CPU_1, {"CPU": 0})
    assert brief(rounds.after(0, demand=[CPU_1])).launch == {"one": 1}
    assert brief(rounds.after(5, demand=[CPU_1], instances=[pending("1", "one")])).launch == {}
    assert brief(rounds.after(5, demand=[CPU_1], instances=[busy])).launch == {}
    assert brief(rounds.after(5, demand=[CPU_1], instances=[busy])).launch == {"one": 1}


def test_rounds_may_be_far_apart() -> None:
    rounds = Rounds()
    for idle_s in (1.0, 101.0):
        there = [running("1", "one", CPU_1, idle_s=idle_s)]
        found = brief(rounds.after(100, instances=there, idle_timeout_s=60))
    assert found.gone == {"1": "IDLE"}
