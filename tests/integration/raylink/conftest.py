"""One real head for all tests of this folder, started by our own command, and workers where needed."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import pytest

from heliostat.cli.system import SystemClock
from heliostat.control.steady_clock import SteadyClock
from heliostat.raylink.gcs import GcsCluster, GcsSettings
from tests.integration.real_head import RealHead, end, real_head

UID = "uid-of-these-tests"
T = TypeVar("T")


@dataclass(frozen=True)
class Head(RealHead):
    def cluster(self, *, uid: str = UID, session: str | None = "", logs: bool = True) -> GcsCluster:
        """Return a fresh link; an empty `session` stands for this head's own."""
        return GcsCluster(
            GcsSettings(
                address=self.ready.address,
                cluster_uid=uid,
                started_by="heliostat test",
                token=lambda: self.token,
                clock=SteadyClock(SystemClock()),
                session_name=self.ready.session_name if session == "" else session,
                log_dir=self.ready.log_dir if logs else None,
            )
        )

    def run(self, *argv: str, timeout_s: float = 30.0) -> str:
        """Run a command with a driver's environment; return its output."""
        done = subprocess.run(
            argv, env=self.environment, capture_output=True, text=True, timeout=timeout_s, check=True
        )
        return done.stdout + done.stderr

    @contextmanager
    def driver(self, script: str) -> Iterator[Driver]:
        path = self.folder / f"driver-{time.monotonic_ns()}.log"
        with path.open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-u", "-c", script],
                env=self.environment,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            yield Driver(process, path)
        finally:
            end(process)

    @contextmanager
    def worker(self, instance_id: str, *args: str) -> Iterator[subprocess.Popen[bytes]]:
        temp_dir = self.folder / instance_id
        with (self.folder / f"{instance_id}.log").open("wb") as log:
            process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "ray.scripts.scripts", "start", "--block"),
                    f"--address={self.ready.address}",
                    f"--temp-dir={temp_dir}",
                    *("--dashboard-agent-listen-port=0", "--min-worker-port=0", "--max-worker-port=0"),
                    *args,
                ],
                env={
                    **self.environment,
                    "RAY_CLOUD_INSTANCE_ID": instance_id,
                    "RAY_NODE_TYPE_NAME": "small",
                    "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "1",
                },
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            yield process
        finally:
            end(process)


@dataclass(frozen=True)
class Driver:
    process: subprocess.Popen[bytes]
    log: Path

    def output(self) -> str:
        return self.log.read_text(errors="replace")

    def wait_for(self, text: str, *, timeout_s: float = 30.0) -> str:
        until_s = time.monotonic() + timeout_s
        while text not in self.output():
            assert self.process.poll() is None, f"the driver ended:\n{self.output()}"
            assert time.monotonic() < until_s, f"no «{text}» in:\n{self.output()}"
            time.sleep(0.05)
        return self.output()

    def go_on(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(b"\n")
        self.process.stdin.flush()


async def until(
    read: Callable[[], Awaitable[T]], holds: Callable[[T], bool], *, timeout_s: float = 20.0
) -> T:
    """Read until it holds; fail with the last value read."""
    until_s = time.monotonic() + timeout_s
    while True:
        value = await read()
        if holds(value):
            return value
        assert time.monotonic() < until_s, f"still not so: {value}"
        await asyncio.sleep(0.05)


@pytest.fixture(scope="session")
def head() -> Iterator[Head]:
    resources = {"anchor": 1, "object_store_memory": 100 * 2**20}
    with real_head("hrl-", resources=resources, labels={"place": "front"}) as found:
        yield Head(found.ready, found.token, found.environment, found.folder, found.process)
