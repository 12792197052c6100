"""The cluster as callers see it: nodes, queue and demand, nothing of the owner's files or addresses."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from heliostat.gateway.errors import CallError, Code
from heliostat.model.report import InstanceReport, StatusReport

Status = Callable[[], Awaitable[StatusReport | None]]
"""The controller's report, None while it does not answer; it never raises and has a deadline of its own."""

LOOK_MAX_S = 10.0
"""The longest that somebody waits for a look; its own deadline is shorter, unless a file system hangs."""

QUEUED = frozenset({"requested", "queued"})


class SharedLook:
    """A `Status` that many may ask for at once: whoever comes while a look is under way waits for that one.

    So a controller that hangs is waited for by one look, not by one for each caller.
    """

    def __init__(self, status: Status) -> None:
        self._status = status
        self._look: asyncio.Future[StatusReport | None] | None = None

    async def __call__(self) -> StatusReport | None:
        if self._look is None or self._look.done():
            self._look = asyncio.ensure_future(self._status())
        with contextlib.suppress(TimeoutError):
            # Shielded: it is others' look, too.
            return await asyncio.wait_for(asyncio.shield(self._look), LOOK_MAX_S)
        return None


class ClusterView:
    """`hypha.ports.Cluster` over the controller. `has_gpu_type`: some node type of the cluster has a GPU."""

    def __init__(self, status: Status, *, has_gpu_type: bool) -> None:
        self._status = status
        self._has_gpu_type = has_gpu_type

    async def status(self) -> Mapping[str, Any]:
        report = await self._status()
        if report is None:
            raise CallError(Code.UNAVAILABLE, "the cluster does not answer; it may be down")
        return shown(report)

    async def has_gpus(self) -> bool:
        return self._has_gpu_type


def shown(report: StatusReport) -> dict[str, Any]:
    """Return what callers may see of a report, in plain values; times are Unix seconds."""
    return {
        "name": report.cluster_name,
        "phase": report.phase,
        "at_s": report.at_s,
        "nodes": [_node(one) for one in report.instances if one.state not in QUEUED],
        "queue": [_queued(one) for one in report.instances if one.state in QUEUED],
        "demand": [
            {"resources": dict(one.resources), "count": one.count, "waiting_s": one.waiting_s}
            | {"verdict": one.verdict, "why": one.why}
            for one in report.demands
        ],
        "node_types": [
            {"name": one.name, "running": one.running, "max_workers": one.max_workers}
            for one in report.node_types
        ],
        "states": dict(Counter(one.state for one in report.instances)),
    }


def _node(one: InstanceReport) -> dict[str, Any]:
    return {
        "type": one.node_type,
        "backend": one.backend,
        "state": one.state,
        "resources": dict(one.resources),
        "used": dict(one.used),
        "expires_at_s": one.expires_at_s,
    }


def _queued(one: InstanceReport) -> dict[str, Any]:
    return {
        "type": one.node_type,
        "backend": one.backend,
        "state": one.state,
        "why": one.detail,
        "since_s": one.since_s,
        "expected_start_s": one.expected_start_s,
    }
