"""Ray's messages, built short, and a GCS that answers what a test tells it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

import grpc
from ray.core.generated import (
    autoscaler_pb2,
    autoscaler_pb2_grpc,
    common_pb2,
    gcs_pb2,
    gcs_service_pb2,
    gcs_service_pb2_grpc,
)

pb: Any = autoscaler_pb2
common: Any = common_pb2
kv: Any = gcs_service_pb2
autoscaler_service: Any = autoscaler_pb2_grpc
kv_service: Any = gcs_service_pb2_grpc

TOKEN = "a-token"
SESSION = "session_1"
GROUP_ID = "40d48aadbe58c52790bd28eaa02b01000000"


def selector(*conditions: tuple[str, str, tuple[str, ...]]) -> Any:
    operators = {"in": common.LABEL_OPERATOR_IN, "not in": common.LABEL_OPERATOR_NOT_IN}
    return common.LabelSelector(
        label_constraints=[
            common.LabelSelectorConstraint(label_key=key, operator=operators[operator], label_values=values)
            for key, operator, values in conditions
        ]
    )


def request(
    bundle: dict[str, float], *selectors: Any, apart: str | None = None, together: str | None = None
) -> Any:
    made = pb.ResourceRequest(resources_bundle=bundle, label_selectors=selectors)
    if apart:
        made.placement_constraints.add().anti_affinity.label_name = apart
    if together:
        made.placement_constraints.add().affinity.label_name = together
    return made


def counted(count: int, bundle: dict[str, float], *selectors: Any) -> Any:
    return pb.ResourceRequestByCount(request=request(bundle, *selectors), count=count)


@dataclass
class FakeGcs:
    """Serves the services that we call; `slow` makes every call hang past any deadline.

    `drivers` are the namespaces of drivers, and whether each is dead.
    """

    state: Any = field(default_factory=lambda: pb.ClusterResourceState(cluster_session_name=SESSION))
    kept: Any = field(default_factory=pb.AutoscalingState)
    config: Any = None
    store: dict[tuple[bytes, bytes], bytes] = field(default_factory=dict)
    drivers: list[tuple[str, bool]] = field(default_factory=list)
    drains: list[Any] = field(default_factory=list)
    drain_reply: Any = field(default_factory=lambda: pb.DrainNodeReply(is_accepted=True))
    slow: bool = False
    port: int = 0
    server: Any = None

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    async def start(self) -> None:
        self.server = grpc.aio.server()
        autoscaler_service.add_AutoscalerStateServiceServicer_to_server(_Autoscaler(self), self.server)
        kv_service.add_InternalKVGcsServiceServicer_to_server(_Store(self), self.server)
        kv_service.add_JobInfoGcsServiceServicer_to_server(_Jobs(self), self.server)
        self.port = self.server.add_insecure_port(f"127.0.0.1:{self.port}")
        await self.server.start()

    async def stop(self) -> None:
        await self.server.stop(None)

    async def admit(self, context: Any) -> None:
        if self.slow:
            await asyncio.sleep(60)
        if ("authorization", f"Bearer {TOKEN}") not in tuple(context.invocation_metadata()):
            await context.abort(grpc.StatusCode.UNAUTHENTICATED, "InvalidAuthToken")


class _Autoscaler(autoscaler_service.AutoscalerStateServiceServicer):  # type: ignore[misc]
    def __init__(self, gcs: FakeGcs) -> None:
        self.gcs = gcs

    async def GetClusterResourceState(self, request: Any, context: Any) -> Any:  # noqa: N802
        await self.gcs.admit(context)
        return pb.GetClusterResourceStateReply(cluster_resource_state=self.gcs.state)

    async def GetClusterStatus(self, request: Any, context: Any) -> Any:  # noqa: N802
        await self.gcs.admit(context)
        return pb.GetClusterStatusReply(
            autoscaling_state=self.gcs.kept, cluster_resource_state=self.gcs.state
        )

    async def ReportAutoscalingState(self, request: Any, context: Any) -> Any:  # noqa: N802
        await self.gcs.admit(context)
        new = request.autoscaling_state
        if new.autoscaler_state_version > self.gcs.kept.autoscaler_state_version:
            self.gcs.kept = new
        return pb.ReportAutoscalingStateReply()

    async def ReportClusterConfig(self, request: Any, context: Any) -> Any:  # noqa: N802
        await self.gcs.admit(context)
        self.gcs.config = request.cluster_config
        return pb.ReportClusterConfigReply()

    async def DrainNode(self, request: Any, context: Any) -> Any:  # noqa: N802
        await self.gcs.admit(context)
        self.gcs.drains.append(request)
        return self.gcs.drain_reply


class _Jobs(kv_service.JobInfoGcsServiceServicer):  # type: ignore[misc]
    def __init__(self, gcs: FakeGcs) -> None:
        self.gcs = gcs

    async def GetAllJobInfo(self, request: Any, context: Any) -> Any:  # noqa: N802
        await self.gcs.admit(context)
        jobs = [
            gcs_pb2.JobTableData(is_dead=is_dead, config=common.JobConfig(ray_namespace=namespace))
            for namespace, is_dead in self.gcs.drivers
        ]
        return kv.GetAllJobInfoReply(job_info_list=jobs)


class _Store(kv_service.InternalKVGcsServiceServicer):  # type: ignore[misc]
    def __init__(self, gcs: FakeGcs) -> None:
        self.gcs = gcs

    async def InternalKVGet(self, request: Any, context: Any) -> Any:  # noqa: N802
        await self.gcs.admit(context)
        return kv.InternalKVGetReply(value=self.gcs.store.get((request.namespace, request.key), b""))

    async def InternalKVPut(self, request: Any, context: Any) -> Any:  # noqa: N802
        await self.gcs.admit(context)
        key = (request.namespace, request.key)
        added = key not in self.gcs.store
        if added or request.overwrite:
            self.gcs.store[key] = request.value
        return kv.InternalKVPutReply(added=added)

    async def InternalKVDel(self, request: Any, context: Any) -> Any:  # noqa: N802
        await self.gcs.admit(context)
        gone = self.gcs.store.pop((request.namespace, request.key), None)
        return kv.InternalKVDelReply(deleted_num=int(gone is not None))
