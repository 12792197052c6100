"""The local provider keeps the port's contract; real processes, a stand-in for the bootstrap."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

from heliostat.model.instance import BackendInstance
from heliostat.model.node_type import NodeType
from heliostat.model.resources import Resources
from heliostat.ports.errors import ProviderError, Unavailable
from heliostat.ports.provider import ClusterIdentity, Provider, ProviderContext
from heliostat.providers.local import create
from heliostat.providers.local.processes import families
from heliostat.testing.conformance import OURS, ProviderConformance

STAND_IN = Path(__file__).parent / "stand_in.py"


class TestLocalConforms(ProviderConformance):
    capacity = 3
    machine_examples = 10
    machine_steps = 20

    def make(self, place: Path, identity: ClusterIdentity) -> Provider:
        # Processes are found by the uid in their environment, and tests may run beside one another.
        own = replace(identity, cluster_uid=self.uid(place, identity))
        options = {"cpus": 4, "memory": "4GiB", "gpus": 0, "terminate_grace_s": 5}
        return create(
            ProviderContext(own, options, str(place), str(place / "logs"), str(STAND_IN), {"CPU": 1})
        )

    def uid(self, place: Path, identity: ClusterIdentity) -> str:
        return f"{identity.cluster_uid} {place}"

    def node_type(self) -> NodeType:
        return NodeType("cpu", "local", Resources.of({"CPU": 1}), shape_id="s1", max_workers=9)

    def impossible_type(self) -> NodeType:
        return NodeType("huge", "local", Resources.of({"CPU": 64}), shape_id="s2", max_workers=9)

    async def living(self, place: Path) -> list[str]:
        found = families(self.uid(place, OURS), {})
        return [instance_id for instance_id, family in found.items() for _ in family]

    async def break_instance(self, place: Path, row: BackendInstance) -> None:
        record = json.loads((place / "i" / row.instance_id / "slot.json").read_text())
        os.kill(record["process"]["pid"], signal.SIGKILL)

    @asynccontextmanager
    async def failing(self, place: Path, error: type[ProviderError]) -> AsyncIterator[NodeType]:
        if error is not Unavailable:
            async with super().failing(place, error) as node_type:
                yield node_type
            return
        records, away = place / "i", place / "away"
        records.mkdir(exist_ok=True)
        records.rename(away)
        records.touch()
        try:
            yield self.node_type()
        finally:
            records.unlink()
            away.rename(records)
