"""The local provider keeps the port's contract; real processes, a stand-in for the bootstrap."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

from heliostat.model.instance import BackendInstance
from heliostat.model.node_type import NodeType
from heliostat.model.resources import Resources
from heliostat.ports.provider import ClusterIdentity, Provider, ProviderContext
from heliostat.providers.local import create
from heliostat.testing.conformance import ProviderConformance

STAND_IN = Path(__file__).parent / "stand_in.py"


class TestLocalConforms(ProviderConformance):
    capacity = 3

    def make(self, place: Path, identity: ClusterIdentity) -> Provider:
        options = {"cpus": 4, "memory": "4GiB", "gpus": 0, "terminate_grace_s": 5}
        return create(
            ProviderContext(identity, options, str(place), str(place / "logs"), str(STAND_IN), {"CPU": 1})
        )

    def node_type(self) -> NodeType:
        return NodeType("cpu", "local", Resources.of({"CPU": 1}), shape_id="s1", max_workers=9)

    def impossible_type(self) -> NodeType:
        return NodeType("huge", "local", Resources.of({"CPU": 64}), shape_id="s2", max_workers=9)

    async def break_instance(self, place: Path, row: BackendInstance) -> None:
        record = json.loads((place / "i" / row.instance_id / "slot.json").read_text())
        os.kill(record["process"]["pid"], signal.SIGKILL)
