"""Ray's own command line against a `heliostat` that only writes down what it was asked."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from heliostat.config.record import ClusterRecord, HeadJob, remove_record, write_record
from heliostat.launcher import heliostat_command
from heliostat.launcher.heliostat_command import Answer

Ray = Callable[..., Result]

FILE = """\
cluster_name: demo
max_workers: 2
provider:
  type: external
  module: heliostat.launcher.NodeProvider
  backends: {local: {}}
available_node_types:
  front: {resources: {CPU: 0}, node_config: {backend: local}}
  cpu: {resources: {CPU: 1}, node_config: {backend: local}}
head_node_type: front
setup_commands: []
head_setup_commands: []
worker_setup_commands: []
"""

RECORD = ClusterRecord(
    cluster_name="demo",
    cluster_uid="u1",
    owner="ada@here",
    created_at_s=1.0,
    source="/home/ada/cluster.yaml",
    host=socket.gethostname(),
    runtime_dir="/run/heliostat/1",
    token_path="/home/ada/.ray/auth_token",
    ray_version="2.60.0",
    python_version="3.11",
    phase="running",
    address="10.1.4.2:6379",
    dashboard_url="http://127.0.0.1:8266",
    session_name="session_1",
    python="/opt/venv/bin/python",
    head_temp_dir="/tmp/hel-1",
)


def worker(name: str, *, state: str = "running", host: str = "") -> dict[str, Any]:
    return {"instance_id": f"l1.{name}", "name": name, "node_type": "cpu", "state": state, "host": host}


@dataclass
class FakeHeliostat:
    """`asked` is each command that was run in front of the person; `codes` says how some of them end."""

    root: Path
    asked: list[tuple[str, ...]] = field(default_factory=list)
    codes: dict[str, int] = field(default_factory=dict)
    paths: list[str] = field(default_factory=list)
    workers: list[dict[str, Any]] = field(default_factory=list)
    queued: bool = False
    silent: str = ""
    record: ClusterRecord = RECORD

    def is_up(self) -> None:
        """Write the record down, as `up` does."""
        folder = self.root / self.record.cluster_name
        folder.mkdir(parents=True, exist_ok=True)
        write_record(folder / "cluster.json", self.record)

    def is_queued(self) -> None:
        self.queued = True
        self.record = replace(self.record, address="", session_name="", job=HeadJob("17", "/log"))
        self.is_up()

    def show(self, *words: str, environment: Mapping[str, str] | None = None) -> int:
        self.asked.append(words)
        self.paths.append((environment or os.environ)["PATH"])
        code = self.codes.get(words[0], 0)
        if words[0] == "up" and not code:
            self.is_queued() if self.queued else self.is_up()
        if words[0] == "down" and not code:
            remove_record(self.root / words[1] / "cluster.json", self.record.cluster_uid)
        return code

    def read(self, *words: str) -> Answer:
        assert words[0] == "status"
        if not (self.root / words[1] / "cluster.json").exists():
            return Answer(1, {}, f"{words[1]} does not run here: nothing runs")
        if self.silent:
            return Answer(1, {}, self.silent)
        if self.queued:
            return Answer(0, {"phase": "queued", "job_id": "17", "reason": "Priority"}, "")
        return Answer(0, {"phase": "running", "instances": self.workers}, "")


@pytest.fixture
def heliostat(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeHeliostat:
    fake = FakeHeliostat(tmp_path / "state")
    monkeypatch.setenv("HELIOSTAT_STATE_DIR", str(fake.root))
    monkeypatch.setattr(heliostat_command, "show", fake.show)
    monkeypatch.setattr(heliostat_command, "read", fake.read)
    return fake


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "cluster.yaml"
    path.write_text(FILE)
    return path


@pytest.fixture
def ray(heliostat: FakeHeliostat, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ray:
    """Run one of Ray's commands as a process of its own would: without what an earlier one has kept."""
    from ray.autoscaler._private import commands, providers
    from ray.scripts.scripts import cli

    monkeypatch.setattr(commands, "POLL_INTERVAL", 0)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("RAY_UP_enable_autoscaler_v2", "1")
    (tmp_path / "home").mkdir()

    def run(*words: str) -> Result:
        providers._clear_provider_cache()
        return CliRunner().invoke(cli, list(words))

    return run
