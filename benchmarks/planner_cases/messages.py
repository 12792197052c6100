"""A case as the GCS reports it: one `ClusterResourceState`, with floats as in Ray's protobufs."""

from __future__ import annotations

import hashlib
from typing import Any

from ray.core.generated import autoscaler_pb2, common_pb2

from benchmarks.planner_cases.spec import GIB, Case, Gang, Node, Shape

pb: Any = autoscaler_pb2
common: Any = common_pb2

OPERATOR = {"in": common.LABEL_OPERATOR_IN, "not in": common.LABEL_OPERATOR_NOT_IN}


def state_bytes(case: Case) -> bytes:
    """Return the case's message, serialised: a planner's every run parses one of its own, off its clock."""
    state = pb.ClusterResourceState(
        cluster_resource_state_version=7,
        cluster_session_name="session_bench",
        node_states=[_node(case.name, node) for node in case.nodes],
        pending_resource_requests=[
            pb.ResourceRequestByCount(request=_request(shape), count=count) for shape, count in case.tasks
        ],
        pending_gang_resource_requests=[_gang(gang) for gang in case.gangs],
    )
    return bytes(state.SerializeToString(deterministic=True))


def parsed(data: bytes) -> Any:
    return pb.ClusterResourceState.FromString(data)


def _node(case: str, node: Node) -> Any:
    # 28 bytes, as Ray's node ids are.
    node_id = hashlib.sha224(f"{case}/{node.index}".encode()).digest()
    own = {f"node:{node.ip}": 1.0, "object_store_memory": 8 * GIB}
    return pb.NodeState(
        node_id=node_id,
        instance_id=node.instance_id,
        ray_node_type_name=node.type.name,
        total_resources={**node.type.amounts, **own},
        available_resources={**dict(node.free), **own},
        status=pb.IDLE if node.idle_s else pb.RUNNING,
        idle_duration_ms=round(node.idle_s * 1000),
        node_ip_address=node.ip,
        labels={
            "ray.io/node-id": node_id.hex(),
            "ray.io/node-group": node.type.name,
            **node.type.labels,
        },
        node_activity=[] if node.idle_s else ["Resource: CPU currently in use."],
    )


def _request(shape: Shape, *, apart: str = "") -> Any:
    request = pb.ResourceRequest(
        resources_bundle=dict(shape.amounts),
        label_selectors=[
            common.LabelSelector(
                label_constraints=[
                    common.LabelSelectorConstraint(
                        label_key=key, operator=OPERATOR[operator], label_values=values
                    )
                    for key, operator, values in selector
                ]
            )
            for selector in shape.selectors
        ],
    )
    if apart:
        request.placement_constraints.add().anti_affinity.label_name = apart
    return request


def _gang(gang: Gang) -> Any:
    apart = f"_PG_{gang.gang_id}" if gang.strategy == "STRICT_SPREAD" else ""
    return pb.GangResourceRequest(
        requests=[_request(gang.shape, apart=apart) for _ in range(gang.bundles)],
        details=f"{gang.gang_id}:{gang.strategy}|PENDING",
    )
