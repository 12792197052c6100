"""`ports.cluster.Cluster` over the GCS of a running head: all that Ray's own monitor owes, and no more."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import structlog
from ray.core.generated import autoscaler_pb2

from heliostat.model.instance import DrainReason
from heliostat.model.node_type import NodeType, Policy
from heliostat.model.resources import Resources
from heliostat.model.snapshot import RayState
from heliostat.ports.clock import Clock
from heliostat.ports.cluster import DrainReply, RoundReport
from heliostat.ports.errors import ClusterUnreachable, StrangerCluster
from heliostat.raylink import names
from heliostat.raylink.channel import CALL_DEADLINE_S, GcsChannel
from heliostat.raylink.cluster_config import cluster_config
from heliostat.raylink.convert import NodeMemo, ray_state
from heliostat.raylink.driver_lines import DriverLines
from heliostat.raylink.metrics import LOOPBACK, RayMetrics
from heliostat.raylink.probe import stranger, stranger_session
from heliostat.raylink.report import autoscaling_state
from heliostat.raylink.session_log import SessionLog

pb: Any = autoscaler_pb2
log = structlog.get_logger(__name__)

DRAIN_REASON = {
    DrainReason.IDLE: pb.DRAIN_NODE_REASON_IDLE_TERMINATION,
    DrainReason.PREEMPTION: pb.DRAIN_NODE_REASON_PREEMPTION,
}


@dataclass(frozen=True)
class GcsSettings:
    """What a `GcsCluster` is made with.

    `session_name` None means: learn it at the first connect. `started_by` is a text such as
    `heliostat 0.1.0`. `log_dir` is the logs folder of the head's session, None where it is
    not on this machine. `metrics_port` None means Ray's own; `serve_metrics` False none.
    """

    address: str
    cluster_uid: str
    started_by: str
    token: Callable[[], str]
    clock: Clock
    session_name: str | None = None
    log_dir: str | None = None
    metrics_port: int | None = None
    serve_metrics: bool = True
    deadline_s: float = CALL_DEADLINE_S


class GcsCluster:
    """One controller's view of its head. Use from one event loop, one call at a time.

    `metrics_address` is where Prometheus finds Ray's autoscaler metrics, None before the
    first `connect`.
    """

    def __init__(self, settings: GcsSettings) -> None:
        self._settings = settings
        self._clock = settings.clock
        self._channel = GcsChannel(settings.address, settings.token, deadline_s=settings.deadline_s)
        self._session = settings.session_name
        self._version = 0
        self._nodes: NodeMemo = {}
        self._heartbeat = 0
        self._connected = False
        self._ray: RayState | None = None
        self._round_began_s: float | None = None
        self._shapes: dict[str, Resources] = {}
        self._lines = DriverLines(since_s=settings.clock.now_s())
        self._log: SessionLog | None = None
        self._metrics: RayMetrics | None = None
        self.metrics_address: str | None = None

    @property
    def session_name(self) -> str | None:
        return self._session

    async def connect(self) -> None:
        """Read who answers. Afterwards our reports' version is past any that Ray has seen.

        A cluster without a uid is taken as ours and gets it; StrangerCluster when its
        session or uid is another's, or when it refuses the token.
        """
        self._channel.renew_token()
        status = await self._channel.call("GetClusterStatus", pb.GetClusterStatusRequest())
        self._check_session(status.cluster_resource_state.cluster_session_name)
        await self._check_uid()
        # Ray keeps the last report and drops any that is older, in silence.
        self._version = max(self._version, status.autoscaling_state.autoscaler_state_version)
        self._session = status.cluster_resource_state.cluster_session_name
        beat = await self._channel.get(names.HEARTBEAT, namespace=names.NAMESPACE)
        self._heartbeat = int(beat) if beat and beat.isdigit() else 0
        self._open_session_log()
        await self._serve_metrics()
        self._connected = True

    async def state(self) -> RayState:
        self._round_began_s = self._clock.monotonic_s()
        reply = await self._call("GetClusterResourceState", pb.GetClusterResourceStateRequest())
        found = reply.cluster_resource_state
        self._check_session(found.cluster_session_name)
        self._version = max(self._version, found.last_seen_autoscaler_state_version)
        self._ray = ray_state(found, self._nodes)
        return self._ray

    async def drain(
        self, node_id: str, *, reason: DrainReason, message: str, deadline_s: float | None
    ) -> DrainReply:
        """Ask Ray to drain a node; `deadline_s` in Unix seconds of our clock, None for none.

        Ray is told it by this host's wall clock as it is now. The GCS, on this host, reads it by that clock
        when the node dies; the node's raylet when it ends, and Serve and Train wherever they run, by those
        hosts' own. As far as those are off, or are set afterwards, it comes sooner or later there.
        """
        request = pb.DrainNodeRequest(
            node_id=bytes.fromhex(node_id),
            reason=DRAIN_REASON[reason],
            reason_message=message,
            # Whoever reads it in Ray has a wall clock.
            deadline_timestamp_ms=0 if deadline_s is None else int((deadline_s + self._ahead_s()) * 1000),
        )
        try:
            reply = await self._call("DrainNode", request)
        except ClusterUnreachable:
            if self._metrics:
                self._metrics.count_drain_exception()
            raise
        return DrainReply(accepted=reply.is_accepted, message=reply.rejection_reason_message)

    async def report(self, report: RoundReport) -> None:
        now_s = self._clock.now_s()
        if self._log:
            self._log.write(self._lines.of(report, ray=self._ray, now_s=now_s))
        if self._metrics:
            self._metrics.observe(report, ray=self._ray, shapes=self._shapes, now_s=now_s)
        self._version += 1
        message = autoscaling_state(
            report,
            version=self._version,
            seen_version=self._ray.version if self._ray else 0,
            now_s=now_s,
            ahead_s=self._ahead_s(),
        )
        await self._call(
            "ReportAutoscalingState", pb.ReportAutoscalingStateRequest(autoscaling_state=message)
        )
        self._observe_round()

    async def report_config(self, policy: Policy, head_type: NodeType) -> None:
        self._shapes = {one.name: one.resources for one in policy.node_types}
        ray = self._ray or await self.state()
        head = next((node.total for node in ray.nodes if node.is_head), None)
        message = cluster_config(policy, head_type, head=head)
        await self._call("ReportClusterConfig", pb.ReportClusterConfigRequest(cluster_config=message))

    async def heartbeat(self) -> None:
        self._heartbeat += 1
        await self._channel.put(names.HEARTBEAT, str(self._heartbeat).encode(), namespace=names.NAMESPACE)

    async def drivers(self) -> int:
        """Return how many drivers of users are connected; the dashboard's and a gateway's do not count."""
        self._check_connected()
        return await self._channel.drivers()

    async def forget(self, instance_ids: Sequence[str]) -> None:
        await self._channel.delete([names.claim_key(one) for one in instance_ids], namespace=names.NAMESPACE)

    async def aclose(self) -> None:
        if self._metrics:
            # Its server waits for its own loop to end, up to half a second.
            await asyncio.to_thread(self._metrics.close)
        if self._log:
            self._log.close()
        self._metrics = self._log = None
        await self._channel.aclose()

    async def _call(self, method: str, request: Any) -> Any:
        self._check_connected()
        try:
            return await self._channel.call(method, request)
        except ClusterUnreachable:
            if self._metrics:
                self._metrics.count_exception()
            raise

    def _ahead_s(self) -> float:
        return self._clock.host_time().ahead_s

    def _check_connected(self) -> None:
        if not self._connected:
            raise ClusterUnreachable(f"not connected to Ray's GCS at {self._settings.address} yet")

    def _check_session(self, found: str) -> None:
        why = stranger_session(self._settings.address, found, self._session) if self._session else ""
        if why:
            raise StrangerCluster(why)

    async def _check_uid(self) -> None:
        uid = self._settings.cluster_uid.encode()
        await self._channel.put(names.CLUSTER_UID, uid, namespace=names.NAMESPACE, overwrite=False)
        found = await self._channel.get(names.CLUSTER_UID, namespace=names.NAMESPACE) or b""
        why = stranger(self._settings.address, found.decode(errors="replace"), self._settings.cluster_uid)
        if why:
            raise StrangerCluster(why)
        await self._channel.put(
            names.STARTED_BY, self._settings.started_by.encode(), namespace=names.NAMESPACE, overwrite=False
        )

    def _open_session_log(self) -> None:
        if self._log is not None or not self._settings.log_dir:
            return
        try:
            self._log = SessionLog(self._settings.log_dir)
        except OSError as error:
            # Drivers then lack our lines; the cluster scales all the same.
            log.warning("no lines for drivers", log_dir=self._settings.log_dir, error=str(error))
            return
        self._log.note(f"{self._settings.started_by} scales this cluster")

    async def _serve_metrics(self) -> None:
        if not self._settings.serve_metrics:
            return
        if self._metrics is None:
            metrics = RayMetrics(self._session or "", since_s=self._clock.now_s())
            self.metrics_address = f"{LOOPBACK}:{metrics.serve(self._settings.metrics_port)}"
            self._metrics = metrics
        if self.metrics_address:
            # The dashboard's service discovery for Prometheus reads it there.
            await self._channel.put(
                names.RAY_METRICS_ADDRESS,
                self.metrics_address.encode(),
                namespace=names.RAY_DEFAULT_NAMESPACE,
            )

    def _observe_round(self) -> None:
        began_s, self._round_began_s = self._round_began_s, None
        if self._metrics and began_s is not None:
            self._metrics.observe_round(self._clock.monotonic_s() - began_s)
