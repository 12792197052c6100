"""The cases are what they promise, and the same for the same seed."""

from __future__ import annotations

import pytest

from benchmarks.planner_cases import cases
from benchmarks.planner_cases.messages import parsed, state_bytes
from benchmarks.planner_cases.spec import Case

SMALL = ("A", "B", "C", "D", "E", "G", "I")


@pytest.mark.parametrize("name", SMALL)
def test_the_same_seed_gives_the_same_case(name: str) -> None:
    one, same, other = cases.make(name, 1), cases.make(name, 1), cases.make(name, 2)
    assert one == same
    assert state_bytes(one) == state_bytes(same)
    assert state_bytes(one) != state_bytes(other)


@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize(
    ("name", "bundles", "shapes", "types", "nodes", "states"),
    [
        ("A", 1_000, 10, 5, 0, 0),
        ("B", 10_000, 10, 5, 1_000, 1_000),
        ("C", 10_000, 50, 10, 1_000, 1_000),
        ("E", 3_200, None, 5, 2_000, 1_000),
        ("I", 2_000, 10, 6, 200, 200),
    ],
)
def test_sizes(
    name: str, bundles: int, shapes: int | None, types: int, nodes: int, states: int, seed: int
) -> None:
    case = cases.make(name, seed)
    assert (case.bundles, len(case.types), len(case.nodes), case.states) == (bundles, types, nodes, states)
    assert shapes is None or case.shapes == shapes


def test_sizes_of_the_large_ones() -> None:
    large, quiet = cases.make("F", 1), cases.make("H", 1)
    assert (large.bundles, large.shapes, len(large.types), len(large.nodes)) == (1_000_000, 100, 20, 10_000)
    assert large.states >= 2_000
    assert (quiet.bundles, len(quiet.nodes), quiet.states) == (0, 10_000, 1_000)
    assert sum(node.idle_s > 0 for node in quiet.nodes) == 500


@pytest.mark.parametrize("name", SMALL)
def test_some_type_holds_every_bundle(name: str) -> None:
    case = cases.make(name, 1)
    wanted = [shape for shape, _ in case.tasks] + [gang.shape for gang in case.gangs]
    for shape in wanted:
        assert any(shape.fits(one.amounts) and shape.allows(one.labels) for one in case.types if one.in_time)


@pytest.mark.parametrize("name", ["B", "C", "E", "G", "I"])
def test_working_nodes_are_partly_used_and_each_has_its_own(name: str) -> None:
    case = cases.make(name, 1)
    message = parsed(state_bytes(case))
    assert len({node.labels["ray.io/node-id"] for node in message.node_states}) == len(case.nodes)
    for node in message.node_states:
        assert f"node:{node.node_ip_address}" in node.total_resources
        used = {
            key: node.total_resources[key] - node.available_resources[key] for key in node.total_resources
        }
        assert min(used.values()) >= 0
        assert max(used.values()) > 0


def test_parts_of_gpus_and_whole_ones() -> None:
    case = cases.make("D", 1)
    gpus = [dict(shape.amounts)["GPU"] for shape, _ in case.tasks]
    assert any(gpu < 1 for gpu in gpus)
    assert any(gpu > 1 for gpu in gpus)
    assert all(gpu < 1 or gpu == int(gpu) for gpu in gpus)


def test_the_curve_has_the_same_shapes_and_as_many_states_as_nodes_allow() -> None:
    small, larger = cases.make("N1000", 1), cases.make("N3000", 1)
    assert [shape for shape, _ in small.tasks] == [shape for shape, _ in larger.tasks]
    assert (small.states, larger.states) == (200, 600)


def test_gangs_carry_rays_marks() -> None:
    case: Case = cases.make("E", 1)
    message = parsed(state_bytes(case))
    spread = message.pending_gang_resource_requests[0]
    assert spread.details.endswith(":STRICT_SPREAD|PENDING")
    assert spread.requests[0].placement_constraints[0].HasField("anti_affinity")
    assert len(message.pending_gang_resource_requests) == 400
