"""One real head for all tests of this folder, and bootstraps that go to it, one after another."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from heliostat.model.instance import NodeStatus
from heliostat.raylink.reader import GcsReader
from heliostat.raylink.ready import HeadReady
from tests.integration.real_head import real_head

BOOTSTRAP = Path(__file__).parents[3] / "src" / "heliostat" / "node" / "bootstrap.py"
UID = "uid-of-the-node-tests"
PUT = """
import sys
from ray._raylet import GcsClient
GcsClient(address=sys.argv[1]).internal_kv_put(sys.argv[2].encode(), sys.argv[3].encode(), True, b"heliostat")
"""


def until(what: str, holds: Callable[[], Any], *, timeout_s: float = 30.0) -> Any:
    """Return what `holds` returns once it is true; fail with `what` after the deadline."""
    until_s = time.monotonic() + timeout_s
    while not (found := holds()):
        assert time.monotonic() < until_s, f"not within {timeout_s:g} s: {what}"
        time.sleep(0.05)
    return found


@dataclass
class Bootstrap:
    """One bootstrap that was started, seen from outside: its status file, its log, its processes."""

    process: subprocess.Popen[bytes]
    folder: Path
    instance_id: str

    def status(self) -> dict[str, Any]:
        try:
            return dict(json.loads((self.folder / "status.json").read_text()))
        except FileNotFoundError:
            return {}

    def log(self) -> str:
        return (self.folder / "log").read_text(errors="replace")

    def reaches(self, state: str) -> None:
        until(
            f"{state}:\n{self.log()}",
            lambda: self.status().get("state") == state or self.process.poll() is not None,
        )
        assert self.status().get("state") == state, self.log()

    def child(self) -> int:
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return int(children[0])

    def processes(self) -> list[int]:
        """Return every process with this instance's tag."""
        tag = f"HELIOSTAT_INSTANCE_ID={self.instance_id}".encode()
        return [pid for pid in map(int, filter(str.isdigit, os.listdir("/proc"))) if tag in _environ(pid)]

    def ends(self, *, within_s: float) -> int:
        try:
            return self.process.wait(within_s)
        except subprocess.TimeoutExpired:
            pytest.fail(f"not ended within {within_s:g} s:\n{self.log()}")

    def leaves_nothing(self, *, within_s: float = 0.5) -> None:
        until("all processes gone", lambda: not self.processes(), timeout_s=within_s)
        assert not os.path.exists(self.status()["temp_dir"])


def _environ(pid: int) -> bytes:
    with suppress(OSError):
        return Path(f"/proc/{pid}/environ").read_bytes()
    return b""


@dataclass
class Head:
    ready: HeadReady
    environment: dict[str, str]
    folder: Path
    reader: GcsReader
    started: list[Bootstrap] = field(default_factory=list)

    def put(self, key: str, value: str) -> None:
        """Write a key of ours, in a process of its own: Ray reads the token once in each."""
        argv = [sys.executable, "-c", PUT, self.ready.address, key, value]
        subprocess.run(argv, env=self.environment, check=True, timeout=30)

    def node(self, instance_id: str) -> NodeStatus | None:
        nodes = self.reader.state().nodes
        return next((one.status for one in nodes if one.instance_id == instance_id), None)

    def start(self, instance_id: str, *, environment: dict[str, str] | None = None, **more: Any) -> Bootstrap:
        folder = Path(tempfile.mkdtemp(prefix=f"{instance_id}-", dir=self.folder))
        document = {
            "cluster_uid": UID,
            "session_name": self.ready.session_name,
            "gcs_address": self.ready.address,
            "instance_id": instance_id,
            "node_type": "small",
            "resources": {"CPU": 1, instance_id: 1, "object_store_memory": 80_000_000},
            "drain_grace_s": 3,
            "log_monitor": False,
            "temp_root": str(self.folder),
            "status_file": str(folder / "status.json"),
            **more,
        }
        (folder / "start.json").write_text(json.dumps(document))
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, str(BOOTSTRAP), str(folder / "start.json")],
                env=environment or self.environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.started.append(Bootstrap(process, folder, instance_id))
        return self.started[-1]

    def occupy(self, resource: str, seconds: float) -> subprocess.Popen[bytes]:
        """Start a driver whose one task holds `resource`; return it once the task runs."""
        driver, flag = self.submit(resource, seconds)
        until("the task runs", flag.exists)
        return driver

    def submit(self, resource: str, seconds: float) -> tuple[subprocess.Popen[bytes], Path]:
        """Start a driver whose one task holds `resource`; return it and the file that the task makes."""
        code = (
            "import ray, sys, time\nray.init(address='auto', logging_level='ERROR', log_to_driver=False)\n"
            f"@ray.remote(num_cpus=0, max_retries=0, resources={{{resource!r}: 1}})\n"
            "def hold(path, seconds):\n    open(path, 'w').close()\n    time.sleep(seconds)\n"
            "    return 'done'\n"
            "print(ray.get(hold.remote(sys.argv[1], float(sys.argv[2]))))\n"
        )
        flag = self.folder / f"flag-{resource}-{time.monotonic_ns()}"
        driver = subprocess.Popen(
            [sys.executable, "-c", code, str(flag), str(seconds)],
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        return driver, flag


@pytest.fixture(scope="module")
def running_head() -> Iterator[Head]:
    with real_head("hn-", resources={"object_store_memory": 80 * 2**20}) as found:
        reader = GcsReader(found.ready.address, found.token)
        head = Head(found.ready, found.environment, found.folder, reader)
        head.put("cluster_uid", UID)
        yield head


@pytest.fixture
def head(running_head: Head) -> Iterator[Head]:
    yield running_head
    for one in running_head.started:
        for pid in one.processes():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if one.process.poll() is None:
            one.process.kill()
            one.process.wait(4)
    running_head.started.clear()
