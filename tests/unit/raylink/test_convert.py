"""Messages as Ray 2.60 was seen to send them → the model."""

from __future__ import annotations

import pytest

from heliostat.model.demand import GangStrategy, LabelOperator
from heliostat.model.instance import NodeStatus
from heliostat.model.resources import Resources
from heliostat.raylink.convert import gang, ray_node, ray_state, task_demands
from heliostat.raylink.convert_out import constraint_message, gang_message, request_message
from heliostat.raylink.names import is_placed_bundle
from tests.unit.raylink.builders import GROUP_ID, counted, pb, request, selector


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (f"CPU_group_{GROUP_ID}", True),
        (f"CPU_group_0_{GROUP_ID}", True),
        (f"bundle_group_12_{GROUP_ID}", True),
        ("CPU", False),
        ("my_group_1", False),
        ("node:127.0.0.1", False),
    ],
)
def test_names_of_placed_bundles(name: str, expected: bool) -> None:
    assert is_placed_bundle(name) is expected


def test_amounts_are_exact_and_equal_shapes_are_one_demand() -> None:
    found = task_demands([counted(3, {"CPU": 0.1, "x": 1}), counted(2, {"x": 1, "CPU": 0.1})])
    assert [(one.bundle.resources, one.count) for one in found] == [(Resources.of({"CPU": 0.1, "x": 1}), 5)]
    assert found[0].bundle.resources.get("CPU") == 1000


def test_an_empty_selector_means_any_node() -> None:
    found = task_demands([counted(1, {"CPU": 1}, selector())])
    assert found[0].bundle.selectors == ()


def test_fallbacks_keep_their_order_and_may_end_with_any_node() -> None:
    ways = [selector(("zone", "in", ("b",))), selector(("zone", "not in", ("a",))), selector()]
    (found,) = task_demands([counted(1, {"CPU": 1}, *ways)])
    first, second, last = found.bundle.selectors
    assert first[0].values == ("b",)
    assert second[0].operator is LabelOperator.NOT_IN
    assert last == ()
    assert found.bundle.allows({"zone": "a"})


def test_work_inside_a_placement_group_is_no_demand_of_its_own() -> None:
    inside = counted(1, {f"CPU_group_{GROUP_ID}": 1, f"bundle_group_{GROUP_ID}": 0.001})
    assert task_demands([inside]) == ()


def test_order_does_not_depend_on_rays() -> None:
    parts = [counted(1, {"CPU": 2}), counted(1, {"GPU": 1}), counted(4, {"CPU": 1})]
    assert task_demands(parts) == task_demands(parts[::-1])


def strict(kind: str) -> list[object]:
    label = f"_PG_{GROUP_ID}"
    return [request({"CPU": 1}, **{kind: label}), request({"CPU": 1}, **{kind: label})]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("details", "kind", "expected"),
    [
        (f"{GROUP_ID}:STRICT_PACK|PENDING", "together", GangStrategy.STRICT_PACK),
        (f"{GROUP_ID}:STRICT_SPREAD|RESCHEDULING", "apart", GangStrategy.STRICT_SPREAD),
        ("words of a later Ray", "apart", GangStrategy.STRICT_SPREAD),
        ("words of a later Ray", "together", GangStrategy.STRICT_PACK),
    ],
)
def test_strategy_comes_from_details_else_from_the_bundles(
    details: str, kind: str, expected: GangStrategy
) -> None:
    found = gang(pb.GangResourceRequest(requests=strict(kind), details=details))
    assert found.strategy is expected
    assert found.demands[0].count == 2
    assert found.demands[0].bundle.anti_affinity == (f"_PG_{GROUP_ID}" if kind == "apart" else None)


def test_bundles_take_their_selectors_from_the_groups_ways() -> None:
    plain = [request({"CPU": 1}), request({"CPU": 1})]
    ways = [
        [request({"CPU": 1}, selector(("zone", "in", ("a",)))), request({"CPU": 1})],
        [request({"CPU": 1}, selector(("zone", "in", ("b",)))), request({"CPU": 1})],
    ]
    found = gang(
        pb.GangResourceRequest(
            requests=plain,
            details=f"{GROUP_ID}:PACK|PENDING",
            bundle_selectors=[pb.BundleSelector(resource_requests=way) for way in ways],
        )
    )
    assert [str(one) for one in found.demands] == [
        "1 × {CPU: 1}",
        "1 × {CPU: 1} where zone in (a) or zone in (b)",
    ]
    assert found.gang_id == GROUP_ID


def test_a_node_is_seen_without_its_placed_bundles() -> None:
    state = pb.NodeState(
        node_id=b"\x01\xff",
        instance_id="la.0",
        ray_node_type_name="small",
        total_resources={"CPU": 2, "node:__internal_head__": 1, f"CPU_group_{GROUP_ID}": 1},
        available_resources={"CPU": 0.5, "memory": -1e-12},
        labels={"zone": "a"},
        dynamic_labels={f"_PG_{GROUP_ID}": ""},
        status=3,
        idle_duration_ms=2500,
        node_ip_address="10.0.0.1",
        node_activity=["b", "a"],
    )
    node = ray_node(state)
    assert (node.node_id, node.status, node.idle_s, node.is_head) == ("01ff", NodeStatus.IDLE, 2.5, True)
    assert node.total == Resources.of({"CPU": 2, "node:__internal_head__": 1})
    assert node.available == Resources.of({"CPU": 0.5})
    assert node.labels == {f"_PG_{GROUP_ID}": "", "zone": "a"}
    assert node.activity == ("a", "b")


def test_the_whole_state_is_in_one_order() -> None:
    state = pb.ClusterResourceState(
        cluster_resource_state_version=7,
        cluster_session_name="s",
        node_states=[pb.NodeState(node_id=b"\x02", status=1), pb.NodeState(node_id=b"\x01", status=2)],
        pending_gang_resource_requests=[
            pb.GangResourceRequest(requests=[request({"CPU": 1})], details=f"{one}:PACK|PENDING")
            for one in ("bb", "aa")
        ],
        cluster_resource_constraints=[
            pb.ClusterResourceConstraint(resource_requests=[counted(2, {"GPU": 1}), counted(4, {"CPU": 1})])
        ],
    )
    found = ray_state(state)
    assert (found.version, found.session_name) == (7, "s")
    assert [node.node_id for node in found.nodes] == ["01", "02"]
    assert [one.gang_id for one in found.gangs] == ["aa", "bb"]
    assert found.constraint is not None
    assert [str(one) for one in found.constraint.demands] == ["4 × {CPU: 1}", "2 × {GPU: 1}"]


def test_no_constraint_without_requests() -> None:
    state = pb.ClusterResourceState(cluster_resource_constraints=[pb.ClusterResourceConstraint()])
    assert ray_state(state).constraint is None


def test_what_is_sent_back_reads_as_what_was_asked() -> None:
    asked = counted(2, {"CPU": 0.5}, selector(("zone", "not in", ("a", "b"))))
    (demand,) = task_demands([asked])
    assert request_message(demand.bundle) == asked.request
    assert constraint_message([demand]).resource_requests[0] == asked
    for kind, strategy in (("together", "STRICT_PACK"), ("apart", "STRICT_SPREAD")):
        message = pb.GangResourceRequest(requests=strict(kind), details=f"{GROUP_ID}:{strategy}|PENDING")
        assert gang_message(gang(message)) == message


@pytest.mark.parametrize("left", [0.0, 0.5])
def test_an_implicit_resource_in_use_is_part_of_the_total(left: float) -> None:
    """Ray lists what is left of it, down to nothing, and never what there is (seen on 2.60)."""
    name = "node:__internal_implicit_resource_x"
    state = pb.NodeState(total_resources={"CPU": 2}, available_resources={"CPU": 1, name: left})
    found = ray_node(state)
    assert (found.total.get(name), found.available.get(name)) == (10_000, round(left * 10_000))
