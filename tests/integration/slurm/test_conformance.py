"""The Slurm provider keeps the port's contract on a real Slurm; a stand-in for the bootstrap, no Ray."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from heliostat.model.instance import BackendInstance
from heliostat.model.node_type import NodeType
from heliostat.model.resources import Resources
from heliostat.ports.provider import ClusterIdentity, Provider, ProviderContext
from heliostat.providers.slurm import create
from heliostat.testing.conformance import ProviderConformance
from tests.slurm_site import SlurmSite

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]

STAND_IN = Path(__file__).parent / "stand_in.py"
OPTIONS = {"time_limit": 10, "partition": "main", "network": "127.0.0.0/8"}


class TestSlurmConforms(ProviderConformance):
    deadline_s = 90.0
    site: SlurmSite

    @pytest.fixture(autouse=True)
    def _on_a_site(self, slurm: SlurmSite, monkeypatch: pytest.MonkeyPatch) -> None:
        self.site = slurm
        for name, value in slurm.environment.items():
            monkeypatch.setenv(name, value)

    def make(self, place: Path, identity: ClusterIdentity) -> Provider:
        # Slurm lists the jobs of earlier tests for minutes.
        own = replace(identity, cluster_uid=f"{identity.cluster_uid}-{place.name}")
        folder, logs = place / identity.cluster_uid, place / "logs"
        return create(ProviderContext(own, OPTIONS, str(folder), str(logs), str(STAND_IN)))

    def node_type(self) -> NodeType:
        return NodeType("cpu", "slurm", Resources.of({"CPU": 1}), shape_id="s1", max_workers=9)

    def impossible_type(self) -> NodeType:
        return NodeType("huge", "slurm", Resources.of({"CPU": 64}), shape_id="s2", max_workers=9)

    def start_document(self) -> dict[str, object]:
        return {"gcs_address": "127.0.0.1:6379", "resources": {"CPU": 1}}

    async def break_instance(self, place: Path, row: BackendInstance) -> None:
        self.site.run("scancel", "--signal=KILL", "--full", row.native_id)
