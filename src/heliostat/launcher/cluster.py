"""One cluster as the launcher knows it: its record, and what `heliostat` says of it. Nothing is kept here."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from heliostat.config.places import StatePlaces, state_places, state_root
from heliostat.config.record import ClusterRecord, read_record
from heliostat.launcher import heliostat_command
from heliostat.launcher.asked import Refused
from heliostat.ports.errors import HeliostatError
from heliostat.raylink.ready import session_log_dir


@dataclass(frozen=True)
class Look:
    """What is there of a cluster: `facts` of `heliostat status`, or `words` that say why there are none."""

    is_up: bool
    facts: Mapping[str, Any]
    words: str

    @property
    def workers(self) -> list[Mapping[str, Any]]:
        return list(self.facts.get("instances", ()))


@dataclass(frozen=True)
class Cluster:
    """`name` is the file's, or what Ray's `--cluster-name` put in its place."""

    name: str

    @property
    def places(self) -> StatePlaces:
        return state_places(state_root(os.environ, home=Path.home()), self.name)

    def record(self) -> ClusterRecord | None:
        """Return what is written down of it. Raises Refused where that can't be read."""
        try:
            return read_record(self.places.record)
        except HeliostatError as error:
            raise Refused(str(error)) from error

    def look(self) -> Look:
        """Ask for its status; a head that waits in a queue is not up."""
        # Asked first: where this head is gone, the one that was to follow it is the cluster then.
        answer = heliostat_command.read("status", self.name)
        if answer.code:
            return Look(False, {}, answer.words if self.record() else f"{self.name} is not up")
        facts = answer.facts
        if facts.get("phase") == "queued":
            reason = f" ({facts['reason']})" if facts.get("reason") else ""
            return Look(False, facts, f"{self.name} waits for its head: Slurm job {facts['job_id']}{reason}")
        return Look(True, facts, "")

    def running_record(self) -> ClusterRecord:
        """Return the record of a cluster whose head has come up. Raises Refused for any other."""
        record = self.record()
        if record is None or not record.address:
            raise Refused(f"the head of {self.name} is not up")
        return record

    def head_ip(self) -> str:
        record = self.running_record()
        return record.node_ip or record.address.rpartition(":")[0]


def is_here(record: ClusterRecord) -> bool:
    """Say whether the head is on this host."""
    return record.host == socket.gethostname()


def ray_logs(record: ClusterRecord) -> str:
    """Return where Ray's logs are, on the head's host."""
    return session_log_dir(record.head_temp_dir, record.session_name)
