"""Ray's own autoscaler metrics, by Ray's own names, served on loopback."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import prometheus_client
from ray.autoscaler._private.constants import AUTOSCALER_METRIC_PORT
from ray.autoscaler._private.prom_metrics import AutoscalerPrometheusMetrics

from heliostat.model.history import Failure
from heliostat.model.instance import ALIVE, ON_THE_WAY, Instance, InstanceState, NodeStatus
from heliostat.model.resources import SCALE, Resources
from heliostat.model.snapshot import RayState
from heliostat.ports.cluster import RoundReport

LOOPBACK = "127.0.0.1"
RECENTLY_S = 3600.0
UP = frozenset({InstanceState.RUNNING, InstanceState.DRAINING})


class RayMetrics:
    """Counters begin at zero with this controller, as Prometheus expects of a restart."""

    def __init__(self, session_name: str, *, since_s: float) -> None:
        self.prometheus: Any = AutoscalerPrometheusMetrics(session_name=session_name)
        self._session = session_name
        self._failures_until_s = since_s
        self._alive: set[str] | None = None
        self._up: set[str] = set()
        self._server: Any = None

    def serve(self, port: int | None) -> int:
        """Serve on loopback and return the port.

        `port` None means Ray's (44217, or `AUTOSCALER_METRIC_PORT`); a port that is taken
        is replaced by a free one.
        """
        wanted = AUTOSCALER_METRIC_PORT if port is None else port
        try:
            self._server, _ = self._start(wanted)
        except OSError:
            self._server, _ = self._start(0)
        return int(self._server.server_port)

    def close(self) -> None:
        server, self._server = self._server, None
        if server is not None:
            server.shutdown()
            server.server_close()

    def observe(
        self,
        report: RoundReport,
        *,
        ray: RayState | None,
        shapes: Mapping[str, Resources],
        now_s: float,
    ) -> None:
        """Record a round; `shapes` is what a node of each type will bring."""
        self._nodes(report, types=shapes.keys(), now_s=now_s)
        self._changes(report.instances)
        self._failures(report.failures)
        self._resources(report.instances, ray=ray, shapes=shapes)

    def observe_round(self, seconds: float) -> None:
        self.prometheus.update_time.observe(seconds)

    def count_exception(self) -> None:
        self.prometheus.update_loop_exceptions.inc()

    def count_drain_exception(self) -> None:
        self.prometheus.drain_node_exceptions.inc()

    def _nodes(self, report: RoundReport, *, types: Iterable[str], now_s: float) -> None:
        pending = Counter(one.node_type for one in report.instances if one.state in ON_THE_WAY)
        active = Counter(one.node_type for one in report.instances if one.state in UP)
        failed = Counter(one.node_type for one in report.failures if now_s - one.at_s <= RECENTLY_S)
        for gauge, counts in (
            (self.prometheus.pending_nodes, pending),
            (self.prometheus.active_nodes, active),
            (self.prometheus.recently_failed_nodes, failed),
        ):
            # A type that left the file must not keep its last count for ever.
            gauge.clear()
            for node_type in sorted({*types, *counts}):
                gauge.labels(SessionName=self._session, NodeType=node_type).set(counts[node_type])
        self.prometheus.running_workers.set(active.total())

    def _changes(self, instances: Sequence[Instance]) -> None:
        alive = {one.instance_id for one in instances if one.state in ALIVE}
        up = {one.instance_id for one in instances if one.state in UP}
        if self._alive is not None:
            self.prometheus.started_nodes.inc(len(up - self._up))
            self.prometheus.stopped_nodes.inc(len(self._alive - alive))
        self._alive, self._up = alive, (self._up | up) & alive

    def _failures(self, failures: Sequence[Failure]) -> None:
        new = [one for one in failures if one.at_s > self._failures_until_s]
        self.prometheus.failed_create_nodes.inc(len(new))
        self._failures_until_s = max([self._failures_until_s, *(one.at_s for one in new)])

    def _resources(
        self, instances: Sequence[Instance], *, ray: RayState | None, shapes: Mapping[str, Resources]
    ) -> None:
        pending = total(shapes[one.node_type] for one in _on_the_way(instances) if one.node_type in shapes)
        self._set(self.prometheus.pending_resources, pending)
        if ray is not None:
            living = (node.total for node in ray.nodes if node.status is not NodeStatus.DEAD)
            self._set(self.prometheus.cluster_resources, total(living))

    def _set(self, gauge: Any, amounts: Mapping[str, float]) -> None:
        gauge.clear()
        for name, amount in amounts.items():
            gauge.labels(SessionName=self._session, resource=name).set(amount)

    def _start(self, port: int) -> Any:
        return prometheus_client.start_http_server(port, addr=LOOPBACK, registry=self.prometheus.registry)


def total(parts: Iterable[Resources]) -> dict[str, float]:
    """Return the sum in plain units, without the `node:` names that every node has for itself."""
    scaled: Counter[str] = Counter()
    for part in parts:
        scaled.update({name: amount for name, amount in part if not name.startswith("node:")})
    return {name: amount / SCALE for name, amount in sorted(scaled.items())}


def _on_the_way(instances: Sequence[Instance]) -> list[Instance]:
    return [one for one in instances if one.state in ON_THE_WAY]
