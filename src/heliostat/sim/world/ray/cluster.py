"""A controller's link to the simulated Ray, as `raylink.gcs.GcsCluster` is to a real one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import TypeVar

from heliostat.model.instance import DrainReason
from heliostat.model.node_type import NodeType, Policy
from heliostat.model.snapshot import RayState
from heliostat.ports.cluster import DrainReply, RoundReport
from heliostat.ports.errors import ClusterUnreachable, StrangerCluster
from heliostat.sim.clock import EPOCH_S
from heliostat.sim.dice import Stream
from heliostat.sim.world.ray.sim import RaySim

T = TypeVar("T")


class SimCluster:
    """`ports.cluster.Cluster`. `session` None: learn it at the first connect."""

    def __init__(self, ray: RaySim, chance: Stream, *, cluster_uid: str, session: str | None = None) -> None:
        self._ray = ray
        self._chance = chance
        self._uid = cluster_uid
        self._session = session
        self._connected = False
        self._version = 0

    async def connect(self) -> None:
        await self._call(self._greet)

    async def state(self) -> RayState:
        return await self._asked(self._state)

    async def drain(
        self, node_id: str, *, reason: DrainReason, message: str, deadline_s: float | None
    ) -> DrainReply:
        true_s = None if deadline_s is None else deadline_s - EPOCH_S
        return await self._asked(lambda: self._ray.drain(node_id, reason, true_s))

    async def report(self, report: RoundReport) -> None:
        self._version += 1
        version = self._version
        await self._asked(lambda: self._heard(version))

    async def report_config(self, policy: Policy, head_type: NodeType) -> None:
        await self._asked(lambda: None)

    async def heartbeat(self) -> None:
        await self._call(self._ray.beat)

    async def drivers(self) -> int:
        return await self._asked(lambda: self._ray.drivers)

    async def forget(self, instance_ids: Sequence[str]) -> None:
        ids = tuple(instance_ids)
        await self._call(lambda: self._ray.forget_claims(ids))

    async def aclose(self) -> None:
        self._connected = False

    async def _asked(self, act: Callable[[], T]) -> T:
        if not self._connected:
            raise ClusterUnreachable("not connected to Ray's GCS yet")
        return await self._call(act)

    async def _call(self, act: Callable[[], T]) -> T:
        """Let the ask travel, let it be done, let the answer travel."""
        half_s = self._chance.uniform(*self._ray.scenario.call_s) / 2
        await asyncio.sleep(half_s)
        if not self._ray.alive:
            raise ClusterUnreachable("Ray's GCS does not answer (unavailable)")
        found = act()
        await asyncio.sleep(half_s)
        return found

    def _greet(self) -> None:
        self._check_session()
        found = self._ray.kv.setdefault("cluster_uid", self._uid)
        if found != self._uid:
            raise StrangerCluster(f"the Ray cluster is not ours: it belongs to {found}")
        self._version = max(self._version, self._ray.reported_version)
        self._session = self._ray.session
        self._connected = True

    def _state(self) -> RayState:
        self._check_session()
        self._version = max(self._version, self._ray.reported_version)
        return self._ray.state()

    def _heard(self, version: int) -> None:
        # Ray keeps the report with the largest version and drops older ones in silence.
        self._ray.reported_version = max(self._ray.reported_version, version)

    def _check_session(self) -> None:
        if self._session is not None and self._session != self._ray.session:
            raise StrangerCluster(f"another session: {self._ray.session}, ours is {self._session}")
