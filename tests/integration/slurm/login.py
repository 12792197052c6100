"""A login node of the tests' Slurm: commands as a person would run them, and the files they leave."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import pytest

from heliostat.cli.system import tagged_processes
from heliostat.config.places import StatePlaces
from heliostat.config.record import ClusterRecord, read_record, write_record
from tests import another_host
from tests.slurm_site import SlurmSite

T = TypeVar("T")
NAME = "hj"
FILE = """
cluster_name: {name}
max_workers: 2
provider:
  head_timeout_s: 20
  backends:
    slurm:
      network: 127.0.0.0/8
      time_limit: "00:10:00"
      memory_request: false
available_node_types:
  front: {{resources: {{CPU: 0}}, node_config: {{backend: slurm{head}}}}}
  cpu:
    resources: {{CPU: 1}}
    max_workers: 2
    idle_timeout_s: 3
    node_config: {{backend: slurm}}
head_node_type: front
"""
ELSEWHERE = "n1.cluster.invalid"


@dataclass
class Login:
    """A login node of the site: commands are run there as a person would."""

    site: SlurmSite
    folder: Path

    @property
    def places(self) -> StatePlaces:
        return StatePlaces(Path(os.environ["HELIOSTAT_STATE_DIR"]) / NAME)

    @property
    def record(self) -> ClusterRecord | None:
        return read_record(self.places.record)

    def file(self, *, head: str = "") -> Path:
        path = self.folder / "cluster.yaml"
        path.write_text(FILE.format(name=NAME, head=head))
        return path

    def start(self, *words: str, host: str = "") -> subprocess.Popen[str]:
        """Start a command; with `host` as on another login node, held back until `another_host.begin`."""
        here = [sys.executable, "-m", "heliostat.cli.main", *words]
        environment = self.site.environment
        return subprocess.Popen(
            another_host.command(host, *words) if host else here,
            env=another_host.environment(host, environment) if host else environment,
            stdin=subprocess.PIPE if host else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=self.folder,
        )

    def run(self, *words: str, code: int = 0, timeout_s: float = 120) -> str:
        process = self.start(*words)
        try:
            output, _ = process.communicate(timeout=timeout_s)
        finally:
            process.kill()
        assert process.returncode == code, output
        return output

    def living(self) -> list[str]:
        return [row.id for row in self.site.jobs(ended=False)]

    def pretend_to_be_elsewhere(self) -> ClusterRecord:
        """Let the head's record name another host, as it does where nodes are machines of their own."""
        record = self.record
        assert record is not None
        write_record(self.places.record, replace(record, host=ELSEWHERE))
        return record

    def nothing_is_left(self, record: ClusterRecord) -> None:
        assert self.living() == []
        assert self.record is None
        assert tagged_processes("HELIOSTAT_CLUSTER_UID", record.cluster_uid) == []


def until(look: Callable[[], T | None], what: str, seconds: float = 60) -> T:
    deadline_s = time.monotonic() + seconds
    while time.monotonic() < deadline_s:
        found = look()
        if found:
            return found
        time.sleep(0.2)
    pytest.fail(f"no {what} within {seconds:g} s")
