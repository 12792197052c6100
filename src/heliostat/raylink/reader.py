"""A few blocking looks at a GCS, for the command line and for the head's start. Each has a deadline."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Self

import grpc
from ray.core.generated import (
    autoscaler_pb2,
    autoscaler_pb2_grpc,
    gcs_service_pb2,
    gcs_service_pb2_grpc,
)

from heliostat.model.instance import NodeStatus
from heliostat.model.snapshot import RayState
from heliostat.raylink import names
from heliostat.raylink.channel import CHANNEL_OPTIONS, bearer, typed
from heliostat.raylink.convert import ray_state

autoscaler: Any = autoscaler_pb2
gcs: Any = gcs_service_pb2

LOOK_DEADLINE_S = 2.0


@dataclass(frozen=True)
class ClusterFacts:
    """Who answers at an address. Empty strings where it does not say."""

    session_name: str
    cluster_uid: str
    head_node_id: str
    head_ip: str
    ray_version: str
    python_version: str
    dashboard_url: str
    state: RayState


class GcsReader:
    """A blocking channel; use it as a context manager. Raises as `GcsChannel` does."""

    def __init__(self, address: str, token: str, *, deadline_s: float = LOOK_DEADLINE_S) -> None:
        self._address = address
        self._how: dict[str, Any] = {"timeout": deadline_s, "metadata": bearer(token)}
        self._channel = grpc.insecure_channel(address, options=list(CHANNEL_OPTIONS))
        self._autoscaler: Any = autoscaler_pb2_grpc.AutoscalerStateServiceStub(self._channel)
        self._kv: Any = gcs_service_pb2_grpc.InternalKVGcsServiceStub(self._channel)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._channel.close()

    def state(self) -> RayState:
        reply = self._call(
            self._autoscaler.GetClusterResourceState, autoscaler.GetClusterResourceStateRequest()
        )
        return ray_state(reply.cluster_resource_state)

    def autoscaling_state(self) -> Any:
        """Return what Ray last accepted of an autoscaler's reports, as its own message."""
        reply = self._call(self._autoscaler.GetClusterStatus, autoscaler.GetClusterStatusRequest())
        return reply.autoscaling_state

    def get(self, key: bytes, *, namespace: bytes) -> str:
        """Return a text from the key-value store, empty where there is none."""
        request = gcs.InternalKVGetRequest(key=key, namespace=namespace)
        return bytes(self._call(self._kv.InternalKVGet, request).value).decode(errors="replace")

    def facts(self) -> ClusterFacts:
        state = self.state()
        head = next((one for one in state.nodes if one.is_head and one.status is not NodeStatus.DEAD), None)
        metadata = _metadata(self.get(names.RAY_CLUSTER_METADATA, namespace=names.RAY_CLUSTER_NAMESPACE))
        dashboard = self.get(names.RAY_DASHBOARD_ADDRESS, namespace=names.RAY_DASHBOARD_NAMESPACE)
        return ClusterFacts(
            session_name=state.session_name,
            cluster_uid=self.get(names.CLUSTER_UID, namespace=names.NAMESPACE),
            head_node_id=head.node_id if head else "",
            head_ip=head.ip if head else "",
            ray_version=str(metadata.get("ray_version", "")),
            python_version=str(metadata.get("python_version", "")),
            dashboard_url=f"http://{dashboard}" if dashboard else "",
            state=state,
        )

    def _call(self, method: Any, request: Any) -> Any:
        try:
            return method(request, **self._how)
        except grpc.RpcError as error:
            raise typed(error, address=self._address) from error


def _metadata(text: str) -> dict[str, object]:
    try:
        found = json.loads(text)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
