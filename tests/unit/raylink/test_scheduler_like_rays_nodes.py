"""What Ray's own tests check of its scheduler, as a table: the same here, or otherwise on purpose.

The reasons are those of docs/ray-scheduler.md. This part: which nodes stay and which go.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.unit.raylink.asks import HEAD, Status, node_type, pending, running
from tests.unit.raylink.cases import Case, case, check, times

WORK_IS_NOT_ENDED = "a node that works is not ended for a limit or a changed configuration"
NO_WAY_BACK = "REQUESTED has no way back in Ray's instance manager"

ONE = node_type("one", {"CPU": 1})
CPU_1 = {"CPU": 1}

MIN_TYPES = [
    node_type("a", CPU_1, least=1),
    node_type("b", CPU_1),
    node_type("c", CPU_1, least=2),
]
MINIMA = [
    case("minimum of an empty cluster", {"types": MIN_TYPES}, launch={"a": 1, "c": 2}),
    case(
        "minimum, nodes there",
        {"types": MIN_TYPES, "instances": [running("1", "a", CPU_1), running("2", "a", CPU_1)]},
        launch={"c": 2},
    ),
    case(
        "minimum, instances on their way",
        {
            "types": MIN_TYPES,
            "instances": [
                pending("1", "a", status=Status.REQUESTED),
                pending("2", "c", status=Status.QUEUED),
            ],
        },
        launch={"c": 1},
    ),
    case(
        "a type that is gone",
        {"types": MIN_TYPES, "instances": [pending("1", "old", status=Status.REQUESTED)], "checked": True},
        NO_WAY_BACK,
        launch={"a": 1, "c": 2},
    ),
    case(
        "a type that is gone, cancellable",
        {"types": MIN_TYPES, "instances": [pending("1", "old")], "checked": True},
        launch={"a": 1, "c": 2},
        gone={"1": "OUTDATED"},
    ),
]

THREE = [pending("0", "one"), running("1", "one", CPU_1), running("2", "one", CPU_1, {"CPU": 0.5})]
FOUR = [
    pending("0", "a"),
    running("1", "a", CPU_1, idle_s=0.01),
    running("2", "b", CPU_1, {"CPU": 0.5}),
    running("3", "b", CPU_1, {"CPU": 0}),
]
TWO_TYPES = [node_type("a", CPU_1, most=2), node_type("b", CPU_1, most=2)]
HEADED = [pending("0", "h", kind=HEAD), pending("1", "h"), pending("2", "h")]
MAXIMA = [
    case(
        "one more than the type may have",
        {"types": [replace(ONE, max_worker_nodes=2)], "instances": THREE},
        gone={"0": "MAX_NUM_NODE_PER_TYPE"},
    ),
    case(
        "two more than the type may have, both nodes work",
        {"types": [replace(ONE, max_worker_nodes=1)], "instances": THREE},
        WORK_IS_NOT_ENDED,
        gone={"0": "MAX_NUM_NODE_PER_TYPE"},
    ),
    case(
        "the head counts in its type",
        {"types": [node_type("h", {}, most=2)], "instances": HEADED},
        gone={"2": "MAX_NUM_NODE_PER_TYPE"},
        otherwise="the latest goes, in Ray the first",
    ),
    case("no more than the cluster may have", {"types": TWO_TYPES, "instances": FOUR, "max_num_nodes": 4}),
    case(
        "what has not joined goes first",
        {"types": TWO_TYPES, "instances": FOUR, "max_num_nodes": 3},
        gone={"0": "MAX_NUM_NODES"},
    ),
    case(
        "then what is idle",
        {"types": TWO_TYPES, "instances": FOUR, "max_num_nodes": 2},
        gone={"0": "MAX_NUM_NODES", "1": "MAX_NUM_NODES"},
    ),
    case(
        "but nothing that works",
        {"types": TWO_TYPES, "instances": FOUR, "max_num_nodes": 1},
        WORK_IS_NOT_ENDED,
        gone={"0": "MAX_NUM_NODES", "1": "MAX_NUM_NODES"},
    ),
    case(
        "the limit of the cluster stops a launch",
        {
            "types": [ONE],
            "demand": times(3, CPU_1),
            "max_num_nodes": 2,
            "instances": [running("1", "one", CPU_1)],
        },
        launch={"one": 1},
        unmet=1,
    ),
]

SHAPED = [node_type("cpu", CPU_1, least=2, shape="new"), node_type("head", {"CPU": 0}, most=1, shape="new")]
OLD_AND_NEW = [
    running("1", "cpu", CPU_1, shape="old"),
    running("2", "cpu", CPU_1, shape="new"),
    running("3", "head", {"CPU": 0}, kind=HEAD, shape="old"),
]
OUTDATED = [
    case("an outdated node, unchecked", {"types": SHAPED, "instances": OLD_AND_NEW}),
    case(
        "an outdated node that is not idle",
        {"types": SHAPED, "instances": OLD_AND_NEW, "checked": True},
        WORK_IS_NOT_ENDED,
    ),
    case(
        "an outdated node that is idle",
        {
            "types": SHAPED,
            "instances": [running("1", "cpu", CPU_1, shape="old", idle_s=1), OLD_AND_NEW[1]],
            "checked": True,
        },
        "its replacement comes when it has gone",
        gone={"1": "OUTDATED"},
    ),
]

IDLERS = [
    running("1", "one", CPU_1, {"CPU": 0}),
    running("2", "one", CPU_1, idle_s=5),
    running("3", "head", {"CPU": 0}, kind=HEAD, idle_s=999),
]
WITH_HEAD = [ONE, node_type("head", {"CPU": 0}, most=1)]
IDLE = [
    case("idle too long", {"types": WITH_HEAD, "instances": IDLERS, "idle_timeout_s": 1}, gone={"2": "IDLE"}),
    case("not idle for long enough", {"types": WITH_HEAD, "instances": IDLERS, "idle_timeout_s": 10}),
    case("no timeout", {"types": WITH_HEAD, "instances": IDLERS}),
    case(
        "idle, but request_resources keeps it",
        {"types": WITH_HEAD, "instances": IDLERS, "idle_timeout_s": 1, "keep": times(2, CPU_1)},
    ),
    case(
        "idle, but the minimum keeps it",
        {"types": [replace(ONE, min_worker_nodes=2)], "instances": IDLERS[:2], "idle_timeout_s": 1},
    ),
    case(
        "the type's own timeout",
        {"types": [replace(ONE, idle_timeout_s=9)], "instances": IDLERS[:2], "idle_timeout_s": 1},
    ),
    case(
        "idle for just the timeout",
        {"types": [ONE], "instances": [running("1", "one", CPU_1, idle_s=10)], "idle_timeout_s": 10},
    ),
    case(
        "idle for a millisecond more",
        {"types": [ONE], "instances": [running("1", "one", CPU_1, idle_s=10.001)], "idle_timeout_s": 10},
        gone={"1": "IDLE"},
    ),
    case(
        "idle for just the type's own timeout",
        {
            "types": [replace(ONE, idle_timeout_s=9)],
            "instances": [running("1", "one", CPU_1, idle_s=9)],
            "idle_timeout_s": 1,
        },
    ),
    case(
        "idle, but work fits on it",
        {"types": [ONE], "instances": IDLERS[:2], "idle_timeout_s": 1, "demand": [CPU_1]},
    ),
    case(
        "of a minimum, the one idle for longest goes",
        {
            "types": [replace(ONE, min_worker_nodes=1)],
            "instances": [running("1", "one", CPU_1, idle_s=5), running("2", "one", CPU_1, idle_s=9)],
            "idle_timeout_s": 1,
        },
        gone={"2": "IDLE"},
    ),
]

TABLE = [*MINIMA, *MAXIMA, *OUTDATED, *IDLE]


@pytest.mark.parametrize("one", TABLE, ids=lambda one: one.name)
def test_like_rays(one: Case) -> None:
    check(one)
