"""The Slurm provider keeps the port's contract on a real Slurm; a stand-in for the bootstrap, no Ray."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from heliostat.model.instance import BackendInstance
from heliostat.model.node_type import NodeType
from heliostat.model.resources import Resources
from heliostat.ports.errors import InsufficientCapacity, ProviderError, Unavailable
from heliostat.ports.provider import ClusterIdentity, Provider, ProviderContext
from heliostat.providers.slurm import SlurmProvider
from heliostat.providers.slurm.jobs import squeue_command
from heliostat.providers.slurm.runner import LocalRunner, Output
from heliostat.providers.slurm.tags import parse_comment
from heliostat.testing.conformance import OURS, ProviderConformance
from tests.slurm_site import SlurmSite

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]

STAND_IN = Path(__file__).parent / "stand_in.py"
OPTIONS = {"time_limit": 10, "partition": "main", "network": "127.0.0.0/8", "command_deadline_s": 5}


class ShowsAnOldListing(LocalRunner):
    """Runs everything, but answers `squeue` with `shown` where that is set, as one slurmctld behind."""

    shown: Output | None = None

    async def run(self, argv: Sequence[str], *, stdin: str = "", deadline_s: float) -> Output:
        if argv[0] == "squeue" and self.shown is not None:
            return self.shown
        return await super().run(argv, stdin=stdin, deadline_s=deadline_s)


class TestSlurmConforms(ProviderConformance):
    deadline_s = 90.0
    crashes = 3
    # Slurm has no idempotency key: a second job for an instance is cancelled while it waits, and
    # ends by itself where the first one has claimed the instance.
    doubles_gone_s = 5.0
    largest_gang = 4
    machine_examples = 4
    machine_steps = 10
    site: SlurmSite
    runner: ShowsAnOldListing

    @pytest.fixture(autouse=True)
    def _on_a_site(self, slurm: SlurmSite) -> None:
        self.site = slurm
        self.runner = ShowsAnOldListing(slurm.environment)

    def make(self, place: Path, identity: ClusterIdentity) -> Provider:
        own = replace(identity, cluster_uid=self.uid(place, identity))
        paths = (str(place / identity.cluster_uid), str(place / "logs"), str(STAND_IN))
        context = ProviderContext(own, OPTIONS, *paths)
        return SlurmProvider(context, runner=self.runner, environment=self.site.environment)

    def uid(self, place: Path, identity: ClusterIdentity) -> str:
        # Slurm lists the jobs of earlier tests for minutes.
        return f"{identity.cluster_uid}-{place.parent.name}-{place.name}"

    def node_type(self) -> NodeType:
        return NodeType("cpu", "slurm", Resources.of({"CPU": 1}), shape_id="s1", max_workers=9)

    def impossible_type(self) -> NodeType:
        return NodeType("huge", "slurm", Resources.of({"CPU": 64}), shape_id="s2", max_workers=9)

    def leased_type(self) -> NodeType:
        return self.node_type()

    def start_document(self) -> Mapping[str, object]:
        return {"gcs_address": "127.0.0.1:6379", "resources": {"CPU": 1}, "claims": True}

    async def living(self, place: Path) -> list[str]:
        found = []
        for row in self.site.jobs(ended=False):
            tag = parse_comment(row.comment)
            if tag is not None and tag.cluster_uid == self.uid(place, OURS):
                tasks = range(tag.count) if tag.together else [int(row.id.partition("_")[2])]
                found += [tag.instance_id(task) for task in tasks]
        return found

    async def break_instance(self, place: Path, row: BackendInstance) -> None:
        self.site.run("scancel", "--signal=KILL", "--full", row.native_id)

    @asynccontextmanager
    async def failing(self, place: Path, error: type[ProviderError]) -> AsyncIterator[NodeType]:
        if error is Unavailable:
            self.site.stop_controller()
            try:
                yield self.node_type()
            finally:
                self.site.start_controller()
        elif error is InsufficientCapacity:
            self.site.run("scontrol", "update", "PartitionName=main", "State=INACTIVE")
            try:
                yield self.node_type()
            finally:
                self.site.run("scontrol", "update", "PartitionName=main", "State=UP")
        else:
            async with super().failing(place, error) as node_type:
                yield node_type

    @asynccontextmanager
    async def lagging(self, place: Path) -> AsyncIterator[None]:
        shown = await self.runner.run(squeue_command(), deadline_s=10)
        self.runner.shown = shown
        try:
            yield
        finally:
            self.runner.shown = None
