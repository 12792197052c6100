"""The simulated backends' providers keep the port's contract, as the real ones do."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from heliostat.model.instance import BackendInstance
from heliostat.model.node_type import NodeType
from heliostat.model.resources import Resources
from heliostat.ports.provider import ClusterIdentity, Provider
from heliostat.sim.clock import Dates
from heliostat.sim.scenario import BackendScenario
from heliostat.sim.world.batch_provider import BatchProvider
from heliostat.sim.world.cloud_provider import CloudProvider
from heliostat.sim.world.ends import Cause
from heliostat.sim.world.link import Link
from heliostat.testing.conformance import ProviderConformance
from tests.unit.sim.world.stage import CPU, Stage


class Simulated(ProviderConformance):
    deadline_s = 10.0
    stage: Stage

    @pytest.fixture(autouse=True)
    def _in_a_world(self) -> None:
        self.stage = Stage()
        self.begin()

    def begin(self) -> None:
        raise NotImplementedError

    def link(self, scenario: BackendScenario) -> Link:
        return Link(self.stage.dice.stream("calls"), scenario.call_s)

    def node_type(self) -> NodeType:
        return CPU

    def impossible_type(self) -> NodeType:
        return NodeType("huge", "b", Resources.of({"CPU": 9999}), "s2", max_workers=9)

    def start_document(self) -> dict[str, object]:
        return {"cluster_uid": self.stage.ray.kv["cluster_uid"]}

    async def pass_time(self) -> None:
        self.stage.agenda.advance(1.0)
        await asyncio.sleep(0)


class TestBatchConforms(Simulated):
    def begin(self) -> None:
        self.batch = self.stage.batch(queue_s=(0.0, 4.0), strangers=4, lease_s=600.0)
        self.stops: dict[str, set[str]] = {}

    def make(self, place: Path, identity: ClusterIdentity) -> Provider:
        stops = self.stops.setdefault(identity.cluster_uid, set())
        return BatchProvider(
            self.batch,
            identity,
            self.link(self.batch.scenario),
            stops=stops,
            dates=Dates(self.batch.agenda.now_s, None),
        )

    async def break_instance(self, place: Path, row: BackendInstance) -> None:
        self.batch.bootstraps[row.native_id].end(Cause.EXITED, "exit code 14: ray start ended")


class TestCloudConforms(Simulated):
    capacity = 4

    def begin(self) -> None:
        self.cloud = self.stage.cloud(submitted_most=4, strangers=4)

    def make(self, place: Path, identity: ClusterIdentity) -> Provider:
        return CloudProvider(
            self.cloud, identity, self.link(self.cloud.scenario), dates=Dates(self.cloud.agenda.now_s, None)
        )

    async def break_instance(self, place: Path, row: BackendInstance) -> None:
        self.cloud.die(self.cloud.living[row.native_id])


class TestLaggingCloudConforms(TestCloudConforms):
    """The same where listings show everything up to a second late."""

    def begin(self) -> None:
        self.cloud = self.stage.cloud(machines=4, strangers=4, lag_s=1.0)
