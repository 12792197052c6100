"""One asynchronous gRPC channel to the GCS: token, deadlines, typed errors, the key-value store.

Ray's own `GcsClient` blocks its caller; nothing here does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import grpc
from ray.core.generated import autoscaler_pb2_grpc, gcs_service_pb2, gcs_service_pb2_grpc

from heliostat.model.gateway import DRIVER_NAMESPACE
from heliostat.ports.errors import ClusterUnreachable, StrangerCluster, TokenRefused

CALL_DEADLINE_S = 3.0

CHANNEL_OPTIONS = (
    # A login node's http_proxy must not see, or swallow, calls inside the cluster.
    ("grpc.enable_http_proxy", 0),
    # A large cluster's state passes 4 MiB.
    ("grpc.max_receive_message_length", -1),
    # gRPC's default backoff grows to two minutes; a head that is back should be seen at once.
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.min_reconnect_backoff_ms", 500),
    ("grpc.max_reconnect_backoff_ms", 1000),
    # Calls of two objects in one process must not share a broken connection's backoff.
    ("grpc.use_local_subchannel_pool", 1),
)

REFUSED = frozenset({grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED})

RAY_NAMESPACE_PREFIX = "_ray_internal_"
"""Ray's dashboard connects as a driver in such a namespace (`RAY_INTERNAL_NAMESPACE_PREFIX`)."""

pb: Any = gcs_service_pb2


def bearer(token: str) -> tuple[tuple[str, str], ...]:
    """Return the call metadata that Ray's GCS wants; its scheme and case matter."""
    return (("authorization", f"Bearer {token}"),)


def typed(error: grpc.RpcError, *, address: str) -> ClusterUnreachable | StrangerCluster:
    """Return our error for gRPC's. A refused token means that the cluster is another's."""
    code = error.code()
    if code in REFUSED:
        return TokenRefused(f"the Ray cluster at {address} refuses our token")
    detail = (error.details() or "").strip().splitlines()
    return ClusterUnreachable(
        f"Ray's GCS at {address} does not answer ({code.name.lower()}{': ' + detail[0] if detail else ''})"
    )


class GcsChannel:
    """Opened at the first call, on the running loop; every call has `deadline_s`.

    Raises ClusterUnreachable when nothing answers in time, StrangerCluster when the token
    is refused. The channel reconnects by itself.
    """

    def __init__(
        self, address: str, token: Callable[[], str], *, deadline_s: float = CALL_DEADLINE_S
    ) -> None:
        self._address = address
        self._token = token
        self._deadline_s = deadline_s
        self._channel: Any = None
        self._metadata: tuple[tuple[str, str], ...] = ()
        self._autoscaler: Any = None
        self._kv: Any = None
        self._jobs: Any = None

    async def call(self, method: str, request: Any) -> Any:
        """Call `method` of Ray's autoscaler service."""
        self._open()
        return await self._answer(getattr(self._autoscaler, method)(request, **self._how()))

    async def get(self, key: bytes, *, namespace: bytes) -> bytes | None:
        self._open()
        request = pb.InternalKVGetRequest(key=key, namespace=namespace)
        reply = await self._answer(self._kv.InternalKVGet(request, **self._how()))
        # A missing key is a status in the reply, and its value is empty.
        return bytes(reply.value) or None

    async def put(self, key: bytes, value: bytes, *, namespace: bytes, overwrite: bool = True) -> bool:
        """Put; return whether the key is new. Without `overwrite` an existing value stays."""
        self._open()
        request = pb.InternalKVPutRequest(key=key, value=value, namespace=namespace, overwrite=overwrite)
        return bool((await self._answer(self._kv.InternalKVPut(request, **self._how()))).added)

    async def delete(self, keys: Sequence[bytes], *, namespace: bytes) -> None:
        self._open()
        for key in keys:
            request = pb.InternalKVDelRequest(key=key, namespace=namespace, del_by_prefix=False)
            await self._answer(self._kv.InternalKVDel(request, **self._how()))

    async def drivers(self) -> int:
        """Return how many drivers of people live.

        Ray's own, in namespaces that it keeps for itself, do not count, nor does a gateway's, which is
        connected whether anybody calls or not. Work that it has given to Ray is seen as any other.
        """
        self._open()
        request = pb.GetAllJobInfoRequest(
            skip_submission_job_info_field=True, skip_is_running_tasks_field=True
        )
        reply = await self._answer(self._jobs.GetAllJobInfo(request, **self._how()))
        namespaces = [job.config.ray_namespace for job in reply.job_info_list if not job.is_dead]
        return sum(not one.startswith(RAY_NAMESPACE_PREFIX) and one != DRIVER_NAMESPACE for one in namespaces)

    def renew_token(self) -> None:
        """Read the token again before the next call."""
        self._metadata = ()

    async def aclose(self) -> None:
        channel, self._channel = self._channel, None
        if channel is not None:
            await channel.close()

    def _open(self) -> None:
        if not self._metadata:
            self._metadata = bearer(self._token())
        if self._channel is None:
            self._channel = grpc.aio.insecure_channel(self._address, options=list(CHANNEL_OPTIONS))
            self._autoscaler = autoscaler_pb2_grpc.AutoscalerStateServiceStub(self._channel)
            self._kv = gcs_service_pb2_grpc.InternalKVGcsServiceStub(self._channel)
            self._jobs = gcs_service_pb2_grpc.JobInfoGcsServiceStub(self._channel)

    def _how(self) -> dict[str, Any]:
        return {"timeout": self._deadline_s, "metadata": self._metadata}

    async def _answer(self, call: Any) -> Any:
        try:
            return await call
        except grpc.aio.AioRpcError as error:
            raise typed(error, address=self._address) from error
