"""Real clusters for tests: brought up by the product's own start, taken down whatever happens."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import pytest

from heliostat.api.client import ControllerClient, NoAnswer, NotRunning
from heliostat.cli.driver import driver_environment
from heliostat.cli.start import StartOptions, start_cluster, stop_cluster
from heliostat.cli.system import tagged_processes
from heliostat.config.places import StatePlaces, state_places, state_root
from heliostat.config.record import ClusterRecord, read_record
from heliostat.model.report import StatusReport

T = TypeVar("T")

CLUSTER = """
cluster_name: {name}
max_workers: {workers}
idle_timeout_minutes: 1
provider:
  type: external
  module: heliostat.launcher.NodeProvider
  orphan_timeout_s: {orphan_timeout_s}
  head_timeout_s: 20
  backends: {{local: {{cpus: {workers}}}}}
available_node_types:
  head: {{resources: {{CPU: 0}}, node_config: {{backend: local}}}}
  worker:
    resources: {{CPU: 1}}
    min_workers: 0
    max_workers: {workers}
    idle_timeout_s: {idle_timeout_s}
    node_config: {{backend: local}}
head_node_type: head
"""


@dataclass
class Cluster:
    """One running cluster and the ways to look at it."""

    record: ClusterRecord
    path: Path

    @property
    def client(self) -> ControllerClient:
        return ControllerClient(Path(self.record.runtime_dir, "control.sock"))

    def status(self) -> StatusReport:
        """Return the status; a controller that is being restarted is waited for."""
        return until(self._status, "a controller that answers", 60)

    def _status(self) -> StatusReport | None:
        try:
            return self.client.status()
        except (NotRunning, NoAnswer):
            return None

    def running(self) -> list[str]:
        return [one.instance_id for one in self.status().instances if one.state == "running"]

    def processes(self) -> list[int]:
        return tagged_processes("HELIOSTAT_CLUSTER_UID", self.record.cluster_uid)

    def driver(self, script: str) -> subprocess.Popen[str]:
        """Start a driver with nothing but `ray.init(address="auto")` in front of `script`."""
        code = 'import ray, time, os\nray.init(address="auto", logging_level="ERROR")\n' + script
        return subprocess.Popen(
            [sys.executable, "-c", code],
            env=driver_environment(self.record),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def command(self, *words: str, timeout_s: float = 90) -> subprocess.CompletedProcess[str]:
        """Run the `heliostat` command; its words for the cluster come by the environment."""
        argv = [sys.executable, "-m", "heliostat.cli.main", *words]
        return subprocess.run(argv, capture_output=True, text=True, timeout=timeout_s, check=False)

    def wait_empty(self, seconds: float = 60) -> None:
        until(lambda: not self.status().instances or None, "zero workers", seconds)


def until(look: Callable[[], T | None], what: str, seconds: float) -> T:
    """Return what `look` finds within `seconds`; fail with `what` otherwise."""
    deadline_s = time.monotonic() + seconds
    while time.monotonic() < deadline_s:
        found = look()
        if found is not None:
            return found
        time.sleep(0.2)
    pytest.fail(f"no {what} within {seconds:g} s")


def finished(driver: subprocess.Popen[str], seconds: float) -> str:
    """Return what a driver printed; it must end with success."""
    output, _ = driver.communicate(timeout=seconds)
    assert driver.returncode == 0, output
    return output


@contextmanager
def cluster(folder: Path, text: str, **options: object) -> Iterator[Cluster]:
    path = folder / "cluster.yaml"
    path.write_text(text)
    record = start_cluster(path, options=StartOptions(**options), say=print)  # type: ignore[arg-type]
    found = Cluster(record, path)
    try:
        yield found
    finally:
        # Its record may be another by then: a cluster that crashed has come back.
        stop_cluster(found.record, say=print)
        assert tagged_processes("HELIOSTAT_CLUSTER_UID", record.cluster_uid) == []
        assert not Path(record.runtime_dir).exists()


def places_of(name: str) -> StatePlaces:
    return state_places(state_root(os.environ, home=Path.home()), name)


def came_up(name: str) -> ClusterRecord | None:
    """Return the record of the cluster of that name once it runs."""
    record = read_record(places_of(name).record)
    if record is None or record.wrapper is None:
        return None
    found = Cluster(record, Path(record.source))._status()
    return record if found is not None and found.phase == "running" else None


@dataclass
class Terminal:
    """A terminal with `heliostat up` in the foreground; `log` is what it has printed."""

    process: subprocess.Popen[bytes]
    name: str
    log: Path

    def output(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace")

    def cluster(self, seconds: float = 90) -> Cluster:
        """Return the cluster once it runs."""
        record = until(self._came_up, f"{self.name} that runs", seconds)
        return Cluster(record, Path(record.source))

    def _came_up(self) -> ClusterRecord | None:
        assert self.process.poll() is None, self.output()
        return came_up(self.name)

    def ended(self, seconds: float) -> int:
        """Wait for the command to end by itself, and return its exit code."""
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            pytest.fail(f"`heliostat up` has not ended within {seconds:g} s:\n{self.output()}")

    def interrupted(self, seconds: float = 90) -> int:
        """Press Ctrl-C."""
        self.process.send_signal(signal.SIGINT)
        return self.ended(seconds)


@contextmanager
def terminal(folder: Path, text: str, *, name: str, options: tuple[str, ...] = ()) -> Iterator[Terminal]:
    """Run `heliostat up` of the file `text`; what is left of it at the end fails the test."""
    path, log = folder / "cluster.yaml", folder / "up.log"
    path.write_text(text, encoding="utf-8")
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "heliostat.cli.main", "up", str(path), *options],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
    up = Terminal(process, name, log)
    try:
        yield up
    finally:
        if process.poll() is None:
            up.interrupted()
        record = read_record(places_of(name).record)
        if record is not None:
            left = Cluster(record, path)
            until(lambda: not left.processes() or None, "end of everything", 60)


def environment_of(pid: int) -> dict[str, str]:
    """Return a process's environment as it was at its start; nothing of one that is gone."""
    try:
        entries = Path(f"/proc/{pid}/environ").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return {}
    return dict(one.split("=", 1) for one in entries if "=" in one)


@pytest.fixture(scope="module")
def two_workers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A cluster of at most two workers, shared by the tests of one module."""
    text = CLUSTER.format(name=f"it-{os.getpid()}", workers=2, idle_timeout_s=3, orphan_timeout_s=60)
    with cluster(tmp_path_factory.mktemp("cluster"), text) as found:
        yield found
