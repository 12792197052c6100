"""The gateway's own metrics for Prometheus, served on loopback. Counters begin at zero with each gateway."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import prometheus_client
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

LOOPBACK = "127.0.0.1"
SECONDS = (0.01, 0.1, 1.0, 5.0, 30.0, 60.0, 300.0, 900.0, 3600.0, 14_400.0)
OTHER = "other"
"""The label of functions that are not known to be there: callers must not be able to make labels."""


class GatewayMetrics:
    """What calls came to. `in_flight`, `waiting` and `audit_behind` are asked for when somebody looks."""

    def __init__(
        self,
        *,
        in_flight: Callable[[], float],
        waiting: Callable[[], float],
        audit_behind: Callable[[], float],
    ) -> None:
        self.registry = CollectorRegistry()
        self._published: set[str] = set()
        self._server: Any = None
        labels = ("function", "published", "outcome")
        self._calls = Counter("heliostat_gateway_calls", "Calls.", labels, registry=self.registry)
        self._seconds = Histogram(
            "heliostat_gateway_call_seconds",
            "Seconds from a call to its answer, the wait for a node included.",
            ("function", "published"),
            buckets=SECONDS,
            registry=self.registry,
        )
        self._gpu = Counter("heliostat_gateway_gpu_seconds", "GPU seconds used.", registry=self.registry)
        gauge = Gauge("heliostat_gateway_in_flight", "Calls in flight.", registry=self.registry)
        gauge.set_function(in_flight)
        gauge = Gauge("heliostat_gateway_waiting", "Calls that wait for a node.", registry=self.registry)
        gauge.set_function(waiting)
        told = "1: the audit log can't be written."
        gauge = Gauge("heliostat_gateway_audit_behind", told, registry=self.registry)
        gauge.set_function(audit_behind)

    def count(
        self, function: str, published: str | None, outcome: str, *, seconds: float, gpu_s: float = 0.0
    ) -> None:
        """Count a call that ended or was refused."""
        if published is not None and outcome == "ok":
            self._published.add(published)
        name = "" if published is None else published if published in self._published else OTHER
        self._calls.labels(function, name, outcome).inc()
        self._seconds.labels(function, name).observe(max(0.0, seconds))
        self._gpu.inc(max(0.0, gpu_s))

    def serve(self, port: int | None) -> int:
        """Serve on loopback and return the port; None, or one that is taken, means any that is free."""
        try:
            self._server, _ = self._start(port or 0)
        except OSError:
            self._server, _ = self._start(0)
        return int(self._server.server_port)

    def close(self) -> None:
        server, self._server = self._server, None
        if server is not None:
            server.shutdown()
            server.server_close()

    def _start(self, port: int) -> Any:
        return prometheus_client.start_http_server(port, addr=LOOPBACK, registry=self.registry)
