"""What Ray's own tests check of its scheduler, as a table: the same here, or otherwise on purpose.

The reasons are those of docs/ray-scheduler.md. This part: what waits, and what is launched for it.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import pytest

from heliostat.model.resources import IMPLICIT_RESOURCE
from tests.unit.raylink.asks import Brief, Status, Units, group, node_type, pending, running
from tests.unit.raylink.cases import Case, case, check, times

PARTLY_KEPT = "request_resources gets what can be had of it, and is reported all the same"
PRIORITY_FIRST = "priority comes before fit"

ONE = node_type("one", {"CPU": 1})
CPU_1 = {"CPU": 1}
IMPLICIT = f"{IMPLICIT_RESOURCE}a"

GPU_1_CPU_3 = [node_type("gpu", {"CPU": 1, "GPU": 1}, most=1), node_type("cpu", {"CPU": 3}, most=1)]
DEMAND = [
    case("one task", {"types": [ONE], "demand": [CPU_1]}, launch={"one": 1}),
    case("three tasks", {"types": [ONE], "demand": times(3, CPU_1)}, launch={"one": 3}),
    case(
        "room that is there", {"types": [ONE], "demand": [CPU_1], "instances": [running("1", "one", CPU_1)]}
    ),
    case(
        "too little room",
        {"types": [ONE], "demand": [CPU_1], "instances": [running("1", "one", CPU_1, {"CPU": 0.9})]},
        launch={"one": 1},
    ),
    case(
        "room on its way",
        {"types": [ONE], "demand": [CPU_1], "instances": [pending("1", "one", status=Status.REQUESTED)]},
    ),
    case("no resources at all", {"types": [ONE], "demand": [{}]}, launch={"one": 1}),
    case(
        "mixed shapes",
        {"types": GPU_1_CPU_3, "demand": [*times(3, CPU_1), {"CPU": 1, "GPU": 1}]},
        launch={"gpu": 1, "cpu": 1},
    ),
    case(
        "parts of a GPU",
        {"types": GPU_1_CPU_3, "demand": [{"CPU": 2}, CPU_1, *times(2, {"CPU": 0.5, "GPU": 0.5})]},
        launch={"gpu": 1, "cpu": 1},
    ),
    case(
        "a GPU whose CPU is taken",
        {
            "types": GPU_1_CPU_3,
            "demand": [CPU_1, CPU_1, {"CPU": 1, "GPU": 1}],
            "instances": [running("1", "gpu", {"CPU": 1, "GPU": 1}, {"CPU": 0, "GPU": 1})],
        },
        launch={"cpu": 1},
        unmet=1,
    ),
    case(
        "an implicit resource brings a node", {"types": [ONE], "demand": [{IMPLICIT: 1}]}, launch={"one": 1}
    ),
    case(
        "every node has one of it",
        {"types": [ONE], "demand": [{IMPLICIT: 1}, CPU_1], "instances": [running("1", "one", CPU_1)]},
    ),
    case(
        "and no more",
        {"types": [replace(ONE, max_worker_nodes=1)], "demand": [{IMPLICIT: 1}, {IMPLICIT: 0.5}]},
        launch={"one": 1},
        unmet=1,
    ),
]

SIZES = [
    node_type("large", {"CPU": 10}, most=1),
    node_type("small", {"CPU": 5}, most=1),
    node_type("gpu", {"CPU": 2, "GPU": 2}, most=1),
]
CLOUD = [
    node_type("m.l", {"CPU": 2}),
    node_type("m.4xl", {"CPU": 16}, most=8),
    node_type("m.16xl", {"CPU": 64}, most=4),
    node_type("p.xl", {"CPU": 16, "GPU": 1}),
    node_type("p.8xl", {"CPU": 32, "GPU": 8}, most=4),
]
AVOID = [node_type("cpu", {"CPU": 1}), node_type("gpu", {"CPU": 100, "GPU": 1})]
EVEN = [node_type("cpu", {"CPU": 16}), node_type("gpu", {"CPU": 16, "GPU": 1})]


def choice(
    demand: list[Units], launch: Units | None, *, types: list[Any] = CLOUD, unmet: int = 0, **more: Any
) -> Case:
    """`launch` None: any choice that holds what Ray's holds."""
    counts = Counter(map(str, demand))
    name = f"choice of {types[0].name}… for " + ", ".join(f"{n} × {one}" for one, n in counts.items())
    asked = {"types": types, "demand": demand, **more}
    return Case(name, asked, None if launch is None else Brief(launch=launch, unmet=unmet))


CHOICES = [
    choice([CPU_1], {"small": 1}, types=SIZES),
    choice([{"CPU": 2}], {"small": 1}, types=SIZES),
    choice(
        [CPU_1],
        {"other": 1},
        types=[node_type("gpu", {"CPU": 1, "GPU": 2}), node_type("other", {"CPU": 2, "x": 2})],
    ),
    choice([{"GPU": 8}], {"p.8xl": 1}),
    choice(times(6, {"GPU": 1}), None),
    choice(times(4, {"GPU": 1}), None),
    choice(times(3, {"CPU": 32, "GPU": 1}), {"p.8xl": 3}),
    choice(times(3, {"CPU": 64, "GPU": 1}), {}, unmet=3),
    choice(times(3, {"CPU": 64}), {"m.16xl": 3}),
    choice([{"CPU": 64}, CPU_1], {"m.16xl": 1, "m.l": 1}),
    choice([{"CPU": 64}, {"CPU": 9}, {"CPU": 9}], {"m.16xl": 1, "m.4xl": 2}),
    choice(times(5, {"CPU": 16}), {"m.16xl": 1, "m.4xl": 1}),
    choice(times(10, {"CPU": 8}), {"m.16xl": 1, "m.4xl": 1}),
    choice(times(100, CPU_1), None),
    choice([{"GPU": 1}, *times(64, CPU_1)], None),
    choice([*times(8, {"GPU": 1}), *times(64, CPU_1)], None),
    choice([{"CPU": 16}], {"cpu": 1}, types=EVEN),
    choice([*times(30, CPU_1), {"CPU": 1, "GPU": 1}], {"cpu": 1, "gpu": 1}, types=EVEN),
    choice([*times(15, CPU_1), {"CPU": 1, "GPU": 1}], {"gpu": 1}, types=EVEN),
    choice(times(100, CPU_1), {"cpu": 10}, types=AVOID, max_num_nodes=10, unmet=90),
    case(
        "what the second type brings has room for all: nothing of the first",
        {"types": AVOID, "demand": times(100, CPU_1), "max_num_nodes": 11},
        launch={"gpu": 1},
        otherwise="fewer nodes for the same work; Ray has ten of the first type beside it",
    ),
    choice([*times(100, CPU_1), {"GPU": 1}], {"gpu": 1}, types=AVOID),
    choice([*times(404, CPU_1), *times(4, {"GPU": 1})], {"gpu": 4, "cpu": 4}, types=AVOID),
]
PACKED = [
    choice(times(2, {"GPU": 2}), {}, types=[node_type("t", {"CPU": 0}, most=1)], unmet=2),
    choice(times(2, {"GPU": 2}), {"t": 1}, types=[node_type("t", {"GPU": 2}, most=1)], unmet=1),
    choice(times(2, {"GPU": 2}), {"t": 1}, types=[node_type("t", {"GPU": 4}, most=1)]),
    choice(times(10, CPU_1), {"m.l": 2}, types=CLOUD[:1], max_num_nodes=2, unmet=6),
    choice(times(40, CPU_1), {"m.l": 10}, types=CLOUD[:1], unmet=20),
]

GPUS = [node_type("8xl", {"CPU": 32, "GPU": 8}, least=2, most=4), node_type("xl", {"CPU": 16, "GPU": 1})]


def with_minimum(demand: list[Units], launch: Units, there: int = 0, unmet: int = 0) -> Case:
    nodes = [running(str(one), "8xl", {"CPU": 32, "GPU": 8}) for one in range(there)]
    return choice(demand, launch, types=GPUS, instances=nodes, unmet=unmet)


WITH_MINIMUM = [
    with_minimum([{"GPU": 8}], {"8xl": 2}),
    with_minimum(times(4, {"GPU": 8}), {"8xl": 4}),
    with_minimum(times(8, {"GPU": 8}), {"8xl": 4}, unmet=4),
    with_minimum([*times(3, {"GPU": 8}), {"GPU": 1}], {"8xl": 2, "xl": 1}, there=1),
    with_minimum([*times(3, {"GPU": 8}), {"GPU": 1}], {"xl": 1}, there=3),
    with_minimum([*times(5, {"GPU": 8}), {"GPU": 1}], {"8xl": 1, "xl": 1}, there=3, unmet=1),
]

KEEP_TYPES = [node_type("cpu", CPU_1, least=1, most=5), node_type("gpu", {"CPU": 1, "GPU": 2}, most=1)]
KEPT = [
    case("request_resources within the minimum", {"types": KEEP_TYPES, "keep": [CPU_1]}, launch={"cpu": 1}),
    case(
        "request_resources beyond it",
        {"types": KEEP_TYPES, "keep": [CPU_1, CPU_1, {"GPU": 1}]},
        launch={"cpu": 1, "gpu": 1},
    ),
    case(
        "request_resources that can't be had in whole",
        {"types": KEEP_TYPES, "keep": [CPU_1, CPU_1, {"GPU": 2}, {"GPU": 2}]},
        PARTLY_KEPT,
        launch={"cpu": 1, "gpu": 1},
        keep_unmet=1,
    ),
]

PAIR = [node_type("pair", {"CPU": 2}, most=5)]
FEW_AND_BIG = [node_type("m.l", {"CPU": 2}), node_type("p.8xl", {"CPU": 32, "GPU": 8}, most=4)]
GANGS = [
    case(
        "a group together", {"types": PAIR, "gangs": [group(CPU_1, CPU_1, together=True)]}, launch={"pair": 1}
    ),
    case("a group apart", {"types": PAIR, "gangs": [group(CPU_1, CPU_1, apart=True)]}, launch={"pair": 2}),
    case(
        "a group that no node holds",
        {"types": PAIR, "gangs": [group({"CPU": 3}, {"CPU": 3}, together=True)]},
        gangs_unmet=1,
    ),
    case(
        "a group of which a part would not fit",
        {"types": [replace(PAIR[0], max_worker_nodes=1)], "gangs": [group(CPU_1, CPU_1, apart=True)]},
        gangs_unmet=1,
    ),
    case(
        "a group whose other bundle is on a node",
        {
            "types": PAIR,
            "gangs": [group(CPU_1, apart=True)],
            "instances": [running("1", "pair", {"CPU": 2}, CPU_1, marks=["pg"])],
        },
        launch={"pair": 1},
    ),
    case(
        "groups apart share nodes with one another",
        {
            "types": FEW_AND_BIG,
            "gangs": [group({"CPU": 4}, {"CPU": 4}, apart=True, name=f"pg{one}") for one in range(4)],
        },
        launch={"p.8xl": 2},
    ),
    case(
        "groups together share a node",
        {
            "types": FEW_AND_BIG,
            "gangs": [
                group({"CPU": 16}, {"CPU": 16}, together=True, name="pg1"),
                group({"GPU": 4}, {"GPU": 4}, together=True, name="pg2"),
            ],
        },
        launch={"p.8xl": 1},
    ),
    case(
        "a group anywhere",
        {"types": FEW_AND_BIG, "gangs": [group({"CPU": 2}, {"CPU": 2})]},
        launch={"m.l": 2},
    ),
    case(
        "everything at once",
        {
            "types": [node_type("a", {"CPU": 4}, least=2, most=4), node_type("b", {"CPU": 1, "GPU": 1})],
            "gangs": [
                group(*times(4, {"CPU": 2}), apart=True),
                group({"CPU": 3}, {"CPU": 3}, together=True, name="c"),
                group(*times(3, CPU_1), name="d"),
            ],
            "demand": [{"CPU": 2}, {"CPU": 1, "GPU": 1}, {"GPU": 1}],
            "keep": times(10, CPU_1),
            "instances": [
                running("1", "a", {"CPU": 4}, {"CPU": 2}),
                running("2", "b", {"CPU": 1, "GPU": 1}),
            ],
            "idle_timeout_s": 999,
        },
        launch={"a": 3, "b": 1},
        gangs_unmet=1,
    ),
]

FIRST, SECOND = node_type("x1", {"CPU": 4}), node_type("x2", {"CPU": 4})
PREFERENCES = [
    case(
        "priority among equals",
        {"types": [FIRST, replace(SECOND, priority=10)], "demand": [CPU_1]},
        launch={"x2": 1},
    ),
    case(
        "a type that failed goes after one of lower priority",
        {
            "types": [replace(FIRST, priority=10), SECOND],
            "demand": [CPU_1],
            "recoverable_resource_availabilities": {"x1": 0.5},
        },
        launch={"x2": 1},
    ),
    case(
        "the one that failed longer ago",
        {
            "types": [FIRST, SECOND],
            "demand": [CPU_1],
            "cloud_resource_availabilities": {"x1": 0.1, "x2": 0.9},
        },
        launch={"x2": 1},
    ),
    case(
        "priority against fit",
        {
            "types": [node_type("big", {"CPU": 4}, priority=10), node_type("fits", {"CPU": 2})],
            "demand": [{"CPU": 2}],
        },
        PRIORITY_FIRST,
        launch={"big": 1},
    ),
]

TABLE = [*DEMAND, *CHOICES, *PACKED, *WITH_MINIMUM, *KEPT, *GANGS, *PREFERENCES]


@pytest.mark.parametrize("one", TABLE, ids=lambda one: one.name)
def test_like_rays(one: Case) -> None:
    check(one)
