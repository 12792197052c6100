"""What the GCS says → the model. Pure, and in one order whatever order Ray's maps come in.

The messages are Ray's `autoscaler.proto`; how they look for each kind of work was seen on
real clusters (docs/ray.md).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import zip_longest
from operator import attrgetter
from typing import Any

from heliostat.model.demand import (
    Bundle,
    Constraint,
    Demand,
    Gang,
    GangStrategy,
    LabelConstraint,
    LabelOperator,
    LabelSelector,
)
from heliostat.model.instance import NodeStatus, RayNode
from heliostat.model.resources import IMPLICIT_RESOURCE, SCALE, Resources
from heliostat.model.snapshot import RayState
from heliostat.raylink.names import HEAD_RESOURCE, is_placed_bundle

# Numbers of the enums in autoscaler.proto and common.proto.
NODE_STATUS: Mapping[int, NodeStatus] = {
    0: NodeStatus.UNKNOWN,
    1: NodeStatus.RUNNING,
    2: NodeStatus.DEAD,
    3: NodeStatus.IDLE,
    4: NodeStatus.DRAINING,
}
LABEL_OPERATOR: Mapping[int, LabelOperator] = {1: LabelOperator.IN, 2: LabelOperator.NOT_IN}


HALF = 0.5 / SCALE

NodeMemo = dict[bytes, RayNode]
"""Nodes by the bytes of Ray's message: most do not change from one second to the next."""


def ray_state(state: Any, memo: NodeMemo | None = None) -> RayState:
    """Convert a `ClusterResourceState`. `memo` is from the last state, and is changed to this one's."""
    nodes = [ray_node(one) for one in state.node_states] if memo is None else _known(state.node_states, memo)
    return RayState(
        version=state.cluster_resource_state_version,
        session_name=state.cluster_session_name,
        nodes=tuple(sorted(nodes, key=attrgetter("node_id"))),
        demands=task_demands(state.pending_resource_requests),
        gangs=tuple(sorted(map(gang, state.pending_gang_resource_requests), key=lambda one: one.gang_id)),
        constraint=constraint(state.cluster_resource_constraints),
    )


def _known(states: Iterable[Any], memo: NodeMemo) -> list[RayNode]:
    keyed = [(one.SerializeToString(), one) for one in states]
    found = {key: memo.get(key) or ray_node(one) for key, one in keyed}
    memo.clear()
    memo.update(found)
    return [found[key] for key, _ in keyed]


def ray_node(state: Any) -> RayNode:
    """Convert a `NodeState`; labels hold the dynamic ones (`_PG_<id>`: a group's bundle is here) too."""
    known = state.labels
    labels = {key: known[key] for key in known}
    if state.dynamic_labels:
        labels |= state.dynamic_labels
    return RayNode(
        node_id=state.node_id.hex(),
        status=NODE_STATUS.get(state.status, NodeStatus.UNKNOWN),
        total=_total(state),
        available=node_resources(state.available_resources),
        instance_id=state.instance_id,
        node_type=state.ray_node_type_name,
        labels=labels,
        idle_s=state.idle_duration_ms / 1000,
        ip=state.node_ip_address,
        activity=tuple(sorted(state.node_activity)),
        is_head=HEAD_RESOURCE in state.total_resources,
    )


def _total(state: Any) -> Resources:
    """Return a node's total, with one of each implicit resource that is in use there.

    Ray lists such a resource as available, down to 0, and never in the total.
    """
    total = node_resources(state.total_resources)
    implied = [name for name in state.available_resources if name.startswith(IMPLICIT_RESOURCE)]
    if not implied:
        return total
    return Resources.from_scaled({**dict.fromkeys(implied, SCALE), **total.by_name}.items())


def node_resources(amounts: Mapping[str, float]) -> Resources:
    """Return a node's amounts without the names of bundles placed on it.

    What those bundles hold is already missing from the plain names.
    """
    # Thousands of nodes come by every second, so this is written out (`items()` of a protobuf map is slower).
    # What rounds to nothing goes too.
    found = [
        (name, int(amount * SCALE + 0.5))
        for name in amounts
        if (amount := amounts[name]) >= HALF and ("_group_" not in name or not is_placed_bundle(name))
    ]
    found.sort()
    return Resources(tuple(found))


def task_demands(by_count: Iterable[Any]) -> tuple[Demand, ...]:
    """Convert grouped requests of tasks and actors.

    Work that waits inside a placement group asks for the group's own resources: it starts
    when the group is placed, so the group is the demand and this is left out.
    """
    counts: dict[Bundle, int] = {}
    for one in by_count:
        if one.count > 0 and not any(map(is_placed_bundle, one.request.resources_bundle)):
            found = bundle(one.request)
            counts[found] = counts.get(found, 0) + one.count
    return grouped(counts)


def constraint(constraints: Sequence[Any]) -> Constraint | None:
    """Convert what `request_resources()` asked; the GCS keeps the last call only."""
    demands = task_demands(one for each in constraints for one in each.resource_requests)
    return Constraint(demands) if demands else None


def gang(request: Any) -> Gang:
    """Convert a placement group that is not placed, or the part of it that lost its node.

    Bundles come once each in `requests`; their label selectors only in `bundle_selectors`,
    whose first entry is the group as asked and whose later ones are its fallbacks. Where
    `requests` is empty that first entry is the group: Ray's own scheduler reads nothing else.
    """
    ways = [each.resource_requests for each in request.bundle_selectors]
    plain: Sequence[Any] = request.requests or next(iter(ways), [])
    gang_id, strategy = _details(request.details, plain)
    counts: dict[Bundle, int] = {}
    for members in zip_longest(plain, *ways):
        if members[0] is not None:
            found = _member(members[0], [way for way in members[1:] if way is not None])
            counts[found] = counts.get(found, 0) + 1
    return Gang(gang_id=gang_id, strategy=strategy, demands=grouped(counts))


def _member(request: Any, ways: Sequence[Any]) -> Bundle:
    plain = bundle(request)
    selectors = any_selector([_selectors(way) for way in ways] if ways else [plain.selectors])
    return Bundle(resources=plain.resources, selectors=selectors, anti_affinity=plain.anti_affinity)


def any_selector(ways: Sequence[tuple[LabelSelector, ...]]) -> tuple[LabelSelector, ...]:
    """Join the selectors of several ways in order; a way without any stands for «any node»."""
    joined = [selector for way in ways for selector in (way or ((),))]
    unique = tuple(dict.fromkeys(joined))
    return () if unique == ((),) else unique


def bundle(request: Any) -> Bundle:
    """Convert a `ResourceRequest`: exact amounts, selectors in order, anti-affinity."""
    return Bundle(
        resources=Resources.of(request.resources_bundle),
        selectors=_selectors(request),
        anti_affinity=next(
            (
                one.anti_affinity.label_name
                for one in request.placement_constraints
                if one.HasField("anti_affinity")
            ),
            None,
        ),
    )


def _selectors(request: Any) -> tuple[LabelSelector, ...]:
    # Ray sends one empty selector where the user gave none.
    selectors = tuple(dict.fromkeys(map(_selector, request.label_selectors)))
    return () if selectors == ((),) else selectors


def _selector(selector: Any) -> LabelSelector:
    conditions = (
        LabelConstraint(
            key=one.label_key,
            operator=LABEL_OPERATOR.get(one.operator, LabelOperator.IN),
            values=tuple(sorted(one.label_values)),
        )
        for one in selector.label_constraints
    )
    return tuple(sorted(conditions, key=lambda one: (one.key, one.operator.value, one.values)))


def _details(details: str, members: Iterable[Any]) -> tuple[str, GangStrategy]:
    """Parse «<group id>:<strategy>|<state>»; where it says nothing, the bundles' constraints do."""
    gang_id, _, rest = details.partition(":")
    name = rest.partition("|")[0]
    if name in GangStrategy.__members__:
        return gang_id, GangStrategy[name]
    kinds = [one for member in members for one in member.placement_constraints]
    if any(one.HasField("anti_affinity") for one in kinds):
        return gang_id, GangStrategy.STRICT_SPREAD
    if any(one.HasField("affinity") for one in kinds):
        return gang_id, GangStrategy.STRICT_PACK
    return gang_id, GangStrategy.PACK


def grouped(counts: Mapping[Bundle, int]) -> tuple[Demand, ...]:
    return tuple(
        Demand(one, count) for one, count in sorted(counts.items(), key=lambda item: _order(item[0]))
    )


def _order(one: Bundle) -> tuple[object, ...]:
    return (one.resources.amounts, str(one), one.anti_affinity or "")
