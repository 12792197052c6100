"""The simulated backends' providers keep the port's contract, as the real ones do."""

from __future__ import annotations

import asyncio
import contextlib
import copy
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import pytest

from heliostat.model.instance import BackendInstance
from heliostat.model.node_type import NodeType
from heliostat.model.resources import Resources
from heliostat.ports.errors import AuthenticationFailed, ProviderError, QuotaExceeded, Unavailable
from heliostat.ports.provider import ClusterIdentity, Provider
from heliostat.sim.clock import Dates
from heliostat.sim.world.batch import BatchBackend
from heliostat.sim.world.batch_provider import BatchProvider
from heliostat.sim.world.cloud import CloudBackend
from heliostat.sim.world.cloud_provider import CloudProvider
from heliostat.sim.world.ends import Cause
from heliostat.sim.world.link import Link
from heliostat.testing.conformance import ProviderConformance
from heliostat.testing.subject import OURS
from tests.unit.sim.world.stage import CPU, Stage

T = TypeVar("T")


class Refusing(Link):
    """A way on which each call fails with `error` while there is one."""

    error: ProviderError | None = None

    async def call(self, what: str, act: Callable[[], T]) -> T:
        if self.error is not None:
            raise self.error
        return await super().call(what, act)


class Simulated(ProviderConformance):
    deadline_s = 10.0
    stage: Stage
    backend: BatchBackend | CloudBackend

    @pytest.fixture(autouse=True)
    def _in_a_world(self) -> None:
        self.stage = Stage()
        self.begin()
        self.link = Refusing(self.stage.dice.stream("calls"), self.backend.scenario.call_s)
        self.dates = Dates(self.backend.agenda.now_s, None)

    def begin(self) -> None:
        raise NotImplementedError

    @contextlib.asynccontextmanager
    async def failing(self, place: Path, error: type[ProviderError]) -> AsyncIterator[NodeType]:
        if error in (Unavailable, AuthenticationFailed):
            self.link.error = error("the backend says so")
            yield self.node_type()
            self.link.error = None
            return
        async with super().failing(place, error) as node_type:
            yield node_type

    @contextlib.asynccontextmanager
    async def lagging(self, place: Path) -> AsyncIterator[None]:
        then = copy.deepcopy(self.backend.listed())
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(self.backend, "listed", lambda: then)
            yield

    def node_type(self) -> NodeType:
        return CPU

    def impossible_type(self) -> NodeType:
        return NodeType("huge", "b", Resources.of({"CPU": 9999}), "s2", max_workers=9)

    def start_document(self) -> dict[str, object]:
        return {"cluster_uid": self.stage.ray.kv["cluster_uid"]}

    def now_s(self) -> float:
        return self.stage.agenda.now_s()

    async def pass_time(self) -> None:
        self.stage.agenda.advance(1.0)
        await asyncio.sleep(0)


class TestBatchConforms(Simulated):
    backend: BatchBackend
    largest_gang = 3
    doubles_gone_s = 3.0
    """One that runs and may not join is gone 2 s later; one that is left waiting for the few machines here
    takes 2 s more."""

    def begin(self) -> None:
        self.backend = self.stage.batch(
            machines=self.largest_gang, queue_s=(2.0, 2.0), strangers=4, lease_s=600.0, throttles=True
        )
        self.stops: dict[str, set[str]] = {}

    def make(self, place: Path, identity: ClusterIdentity) -> Provider:
        stops = self.stops.setdefault(identity.cluster_uid, set())
        return BatchProvider(self.backend, identity, self.link, stops=stops, dates=self.dates)

    async def living(self, place: Path) -> Sequence[str]:
        """Ask the backend itself: a listing shows one of two."""
        machines = self.backend.living.values()
        return [one.instance_id for one in machines if one.identity.cluster_uid == OURS.cluster_uid]

    def leased_type(self) -> NodeType:
        return CPU

    def throttled_type(self, provider: Provider) -> NodeType:
        return CPU

    @contextlib.asynccontextmanager
    async def failing(self, place: Path, error: type[ProviderError]) -> AsyncIterator[NodeType]:
        if error is QuotaExceeded:
            unlimited = self.backend.scenario
            self.backend.scenario = replace(unlimited, submitted_most=0)
            yield self.node_type()
            self.backend.scenario = unlimited
            return
        async with super().failing(place, error) as node_type:
            yield node_type

    async def break_instance(self, place: Path, row: BackendInstance) -> None:
        self.backend.bootstraps[row.native_id].end(Cause.EXITED, "exit code 14: ray start ended")


class TestCloudConforms(Simulated):
    backend: CloudBackend
    capacity = 4

    def begin(self) -> None:
        self.backend = self.stage.cloud(submitted_most=4, strangers=4)

    def make(self, place: Path, identity: ClusterIdentity) -> Provider:
        return CloudProvider(self.backend, identity, self.link, dates=self.dates)

    async def break_instance(self, place: Path, row: BackendInstance) -> None:
        self.backend.die(self.backend.living[row.native_id])


class TestLaggingCloudConforms(TestCloudConforms):
    """The same where listings show everything up to a second late."""

    def begin(self) -> None:
        self.backend = self.stage.cloud(machines=4, strangers=4, lag_s=1.0)
