"""A host of a test's own for `doctor`: its roots, and processes that are the test's alone."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from heliostat.cli import leftovers
from heliostat.cli.doctor import folders, jobs, living
from heliostat.cli.head_queue import HeadLook
from heliostat.cli.launch_file import LaunchFile
from heliostat.cli.main import cli
from heliostat.cli.system import process_start_ticks
from heliostat.config.record import ClusterRecord, ProcessMark, write_record
from heliostat.model.instance import BackendState
from tests.unit.cli.fake_slurm import FakeSlurm

GONE = ProcessMark(2**22 + 1, 1)
"""No process can have this number: the kernel's highest is one less."""

# It waits for its end: gently (the folder that it was given is removed then), or not at all.
SLEEPER = """
import shutil, signal, sys
def leave(*_):
    shutil.rmtree(sys.argv[-1], ignore_errors=True)
    sys.exit(0)
signal.signal(signal.SIGTERM, signal.SIG_IGN if "stubborn" in sys.argv else leave)
print("ready", flush=True)
signal.pause()
while True:
    signal.pause()
"""

CLUSTER = """
cluster_name: {name}
max_workers: 2
provider:
  backends: {{local: {{cpus: 2}}{more}}}
available_node_types:
  head: {{resources: {{CPU: 0}}, node_config: {{backend: local}}}}
  worker: {{resources: {{CPU: 1}}, max_workers: 2, node_config: {{backend: local}}}}
head_node_type: head
"""


@dataclass
class Place:
    """Roots in one folder, and everything that a test puts there."""

    folder: Path
    processes: list[subprocess.Popen[str]] = field(default_factory=list)

    @property
    def state(self) -> Path:
        return self.folder / "state"

    @property
    def run(self) -> Path:
        return self.folder / "run"

    @property
    def temp(self) -> Path:
        return self.folder / "tmp"

    def record(self, name: str, uid: str, **changes: Any) -> ClusterRecord:
        """Write the record of a cluster of this host whose wrapper is gone, with its launch file."""
        found = ClusterRecord(
            cluster_name=name,
            cluster_uid=uid,
            owner="ada@here",
            created_at_s=1.0,
            source=str(self.folder / "cluster.yaml"),
            host=socket.gethostname(),
            runtime_dir=str(self.run / uid[:8]),
            token_path=str(self.folder / "token"),
            ray_version="2.60.0",
            python_version="3.11",
            address="127.0.0.1:1",
            wrapper=GONE,
        )
        found = replace(found, **changes)
        home = self.state / name
        (home / "logs").mkdir(parents=True)
        (home / "config.yaml").write_text(CLUSTER.format(name=name, more=", slurm: {}"))
        write_record(home / "cluster.json", found)
        self.launch(home, found)
        return found

    def launch(self, home: Path, record: ClusterRecord) -> None:
        home.mkdir(parents=True, exist_ok=True)
        temp = str(self.temp / f"hel-{record.cluster_uid[:8]}")
        LaunchFile([], {}, temp, "", record.cluster_uid, record.runtime_dir, str(home)).write(home)

    def start(self, uid: str, *argv: str, instance: str = "", **environment: str) -> int:
        """Start a process with the tags of a cluster, and of an instance; return its pid."""
        tags = {"HELIOSTAT_CLUSTER_UID": uid, **({"HELIOSTAT_INSTANCE_ID": instance} if instance else {})}
        return self.start_untagged(*argv, **tags, **environment)

    def start_untagged(self, *argv: str, **environment: str) -> int:
        process = subprocess.Popen(
            [sys.executable, "-c", SLEEPER, *argv],
            env={**os.environ, **environment},
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self.processes.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        return process.pid

    def slot(self, runtime: Path, instance: str, uid: str, *, pid: int = 0, temp_dir: str = "") -> None:
        """Write down a worker as the local backend does."""
        place = runtime / "i" / instance
        place.mkdir(parents=True)
        mark = {"pid": pid, "start_ticks": process_start_ticks(pid)} if pid else None
        (place / "slot.json").write_text(json.dumps({"cluster_uid": uid, "process": mark}))
        (place / "status").write_text(json.dumps({"state": "running", "temp_dir": temp_dir}))

    def session(self, name: str, session: str) -> Path:
        """Make one of Ray's temp folders, long ago."""
        made = self.temp / name
        (made / session / "logs").mkdir(parents=True)
        (made / session / "logs" / "raylet.out").write_text("x" * 100)
        os.utime(made, (1.0, 1.0))
        return made

    def lives(self, pid: int) -> bool:
        process = next(one for one in self.processes if one.pid == pid)
        return process.poll() is None


class RunningHead:
    """A queue that has the job of whatever head is looked for."""

    def look(self, cluster_uid: str) -> HeadLook:
        return HeadLook("12", BackendState.RUNNING, "")


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    found = Place(tmp_path)
    for folder in (found.state, found.run, found.temp):
        folder.mkdir(mode=0o700)
    monkeypatch.setenv("HELIOSTAT_STATE_DIR", str(found.state))
    monkeypatch.delenv("HELIOSTAT_RUNTIME_DIR", raising=False)
    monkeypatch.setenv("HELIOSTAT_SITE_FILE", "")
    monkeypatch.setattr("heliostat.cli.commands.doctor.runtime_root", lambda *_, **__: found.run)
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path / "raytmp"))
    monkeypatch.setattr(folders, "TEMP_ROOT", str(found.temp))
    monkeypatch.setattr(jobs.shutil, "which", lambda _: None)
    for module in (jobs, leftovers):
        monkeypatch.setattr(module, "brief_runner", lambda _: contextlib.nullcontext(FakeSlurm()))
    monkeypatch.setattr(jobs, "queue_at", lambda _: RunningHead())
    # Other tests run here, too, with processes that have tags.
    monkeypatch.setattr(living, "own_pids", lambda: [one.pid for one in found.processes])
    yield found
    for process in found.processes:
        process.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(10)
        assert process.stdout is not None
        process.stdout.close()


Doctor = Callable[..., tuple[int, list[Mapping[str, Any]]]]


@pytest.fixture
def doctor(place: Place) -> Doctor:
    """Run `heliostat doctor --json` with more arguments; returns its exit code and what it found."""

    def run(*arguments: str) -> tuple[int, list[Mapping[str, Any]]]:
        result: Result = CliRunner().invoke(cli, ["doctor", "--json", *arguments])
        return result.exit_code, json.loads(result.stdout)

    return run


def kinds(found: Sequence[Mapping[str, Any]]) -> list[str]:
    return [str(one["kind"]) for one in found]
