"""Names that Ray and Heliostat keep in the GCS, and the patterns of Ray's private resource names."""

from __future__ import annotations

import re

# Ray's own key-value namespaces and keys (docs/ray.md lists where Ray reads them).
RAY_CLUSTER_NAMESPACE = b"cluster"
RAY_CLUSTER_METADATA = b"CLUSTER_METADATA"
RAY_DASHBOARD_NAMESPACE = b"dashboard"
RAY_DASHBOARD_ADDRESS = b"dashboard"
RAY_METRICS_ADDRESS = b"AutoscalerMetricsAddress"
RAY_DEFAULT_NAMESPACE = b""

# Ours.
NAMESPACE = b"heliostat"
CLUSTER_UID = b"cluster_uid"
HEARTBEAT = b"heartbeat"
STARTED_BY = b"started_by"
CLAIM_PREFIX = b"claim:"

HEAD_RESOURCE = "node:__internal_head__"
"""Ray gives this resource to the head node, and to no other."""

_PLACED_BUNDLE = re.compile(r".+_group_(\d+_)?[0-9a-f]{36}")


def is_placed_bundle(resource: str) -> bool:
    """Say whether `resource` stands for a placement group's bundle on a node.

    Such names (`CPU_group_<id>`, `bundle_group_0_<id>`) appear with a group and go with
    it: no node type can bring them, and demand for them is met by placing the group.
    """
    return _PLACED_BUNDLE.fullmatch(resource) is not None


def claim_key(instance_id: str) -> bytes:
    return CLAIM_PREFIX + instance_id.encode()
