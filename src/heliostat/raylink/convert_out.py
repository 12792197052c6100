"""The model → Ray's messages: requests, gangs, constraints. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ray.core.generated import autoscaler_pb2, common_pb2

from heliostat.model.demand import Bundle, Demand, Gang, GangStrategy, LabelOperator, LabelSelector

pb: Any = autoscaler_pb2
common: Any = common_pb2

OPERATOR = {
    LabelOperator.IN: common.LABEL_OPERATOR_IN,
    LabelOperator.NOT_IN: common.LABEL_OPERATOR_NOT_IN,
}


def request_message(bundle: Bundle, *, affinity: str | None = None) -> Any:
    """Return a `ResourceRequest`; `affinity` is the label that keeps a STRICT_PACK group together."""
    request = pb.ResourceRequest(
        resources_bundle=bundle.resources.units(),
        label_selectors=[selector_message(one) for one in bundle.selectors],
    )
    if bundle.anti_affinity:
        request.placement_constraints.add().anti_affinity.label_name = bundle.anti_affinity
    if affinity:
        request.placement_constraints.add().affinity.label_name = affinity
    return request


def selector_message(selector: LabelSelector) -> Any:
    return common.LabelSelector(
        label_constraints=[
            common.LabelSelectorConstraint(
                label_key=one.key, operator=OPERATOR[one.operator], label_values=one.values
            )
            for one in selector
        ]
    )


def gang_message(gang: Gang) -> Any:
    """Return a `GangResourceRequest` with the bundles one by one, as Ray sends them."""
    affinity = gang.mark if gang.strategy is GangStrategy.STRICT_PACK else None
    return pb.GangResourceRequest(
        requests=[
            request_message(demand.bundle, affinity=affinity)
            for demand in gang.demands
            for _ in range(demand.count)
        ],
        details=f"{gang.gang_id}:{gang.strategy.value}|PENDING",
    )


def constraint_message(demands: Iterable[Demand]) -> Any:
    return pb.ClusterResourceConstraint(
        resource_requests=[
            pb.ResourceRequestByCount(request=request_message(demand.bundle), count=demand.count)
            for demand in demands
        ]
    )
