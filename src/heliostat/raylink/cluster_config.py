"""The policy → Ray's `ClusterConfig`: what the cluster could grow to. Pure.

Ray Data plans on it (a cluster at zero workers is not an empty one), and Ray Train refuses a
worker group that could never fit.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ray.core.generated import autoscaler_pb2

from heliostat.model.node_type import NodeType, Policy
from heliostat.model.resources import SCALE, Resources

pb: Any = autoscaler_pb2

ACCELERATOR_LABEL = "ray.io/accelerator-type"


def cluster_config(policy: Policy, head_type: NodeType, *, head: Resources | None) -> Any:
    """Return the message; `head` is what the running head really has, where that is known.

    The head is a group of exactly one: Data leaves such a group out only when its shape is
    the running head's, so the real amounts are told.
    """
    groups = [_group(one, policy) for one in policy.node_types]
    head_amounts = whole(head if head is not None else head_type.resources)
    if head_amounts:
        groups.append(
            pb.NodeGroupConfig(name=head_type.name, resources=head_amounts, min_count=1, max_count=1)
        )
    return pb.ClusterConfig(
        node_group_configs=groups, max_resources=_limits(policy, head=head_amounts, names=_names(groups))
    )


def _group(node_type: NodeType, policy: Policy) -> Any:
    return pb.NodeGroupConfig(
        name=node_type.name,
        resources=amounts(node_type),
        min_count=node_type.min_workers,
        max_count=min(node_type.max_workers, policy.max_workers),
    )


def amounts(node_type: NodeType) -> dict[str, int]:
    """Return a type's resources in whole units, with the one that Ray adds for its accelerator."""
    found = whole(node_type.resources)
    accelerator = node_type.labels.get(ACCELERATOR_LABEL)
    if accelerator and found.get("GPU"):
        # Ray Train asks for `accelerator_type:<name>` where a user wants that accelerator.
        found.setdefault(f"accelerator_type:{accelerator}", 1)
    return found


def whole(resources: Resources) -> dict[str, int]:
    """Round down to whole units, as the message holds no fractions; a part of one counts as one.

    Down, because Data asks for nodes of exactly this shape. `node:` names are each node's own.
    """
    return {name: max(1, amount // SCALE) for name, amount in resources if not name.startswith("node:")}


def _limits(policy: Policy, *, head: Mapping[str, int], names: Iterable[str]) -> dict[str, int]:
    """Return per resource the most that `max_workers` of all types together can bring, with the head."""
    return {name: head.get(name, 0) + _most(name, policy) for name in sorted(names)}


def _most(name: str, policy: Policy) -> int:
    left, total = policy.max_workers, 0
    for each, count in sorted(
        ((amounts(one).get(name, 0), one.max_workers) for one in policy.node_types), reverse=True
    ):
        taken = min(left, count)
        total += each * taken
        left -= taken
    return total


def _names(groups: Iterable[Any]) -> set[str]:
    return {name for group in groups for name in group.resources}
