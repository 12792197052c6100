"""One real head for all tests of this folder, started by our own command, and workers where needed."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import pytest

from heliostat.cli.system import SystemClock
from heliostat.raylink.gcs import GcsCluster, GcsSettings
from heliostat.raylink.head import HeadOptions, choose_ports, driver_environment, head_command
from heliostat.raylink.ready import HeadReady, wait_until_ready
from heliostat.raylink.token import ensure_token, read_token

UID = "uid-of-these-tests"
READY_S = 60.0
# A drained worker's `ray start --block` never returns, so waiting longer helps nobody.
END_S = 4.0
T = TypeVar("T")


@dataclass(frozen=True)
class Head:
    ready: HeadReady
    token: str
    environment: dict[str, str]
    folder: Path
    process: subprocess.Popen[bytes]

    def cluster(self, *, uid: str = UID, session: str | None = "", logs: bool = True) -> GcsCluster:
        """Return a fresh link; an empty `session` stands for this head's own."""
        return GcsCluster(
            GcsSettings(
                address=self.ready.address,
                cluster_uid=uid,
                started_by="heliostat test",
                token=lambda: self.token,
                clock=SystemClock(),
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


def end(process: subprocess.Popen[bytes]) -> None:
    """TERM, then kill what is left of the process's own group."""
    process.terminate()
    with suppress(subprocess.TimeoutExpired):
        process.wait(END_S)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait(END_S)


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


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="session")
def head() -> Iterator[Head]:
    folder = Path(tempfile.mkdtemp(prefix="hrl-", dir="/tmp"))
    # Every other variable of Ray would change what is tested.
    environ = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    token_path = ensure_token({**environ, "RAY_AUTH_TOKEN_PATH": str(folder / "auth_token")})
    options = HeadOptions(
        temp_dir=str(folder / "h"),
        token_path=token_path,
        node_type="head",
        resources={"anchor": 1, "object_store_memory": 100 * 2**20},
        labels={"place": "front"},
        port=free_port(),
        dashboard_port=free_port(),
        client_port=free_port(),
    )
    ports = choose_ports(options)
    command = head_command(options, ports, environment=environ)
    with (folder / "head.log").open("wb") as log:
        process = subprocess.Popen(
            command.argv,
            env=command.environment,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        address = f"127.0.0.1:{ports.gcs}"
        token = read_token(token_path)
        ready = wait_until_ready(
            address,
            token=token,
            temp_dir=options.temp_dir,
            deadline_s=READY_S,
            alive=lambda: process.poll() is None,
        )
        driver = driver_environment(address=address, dashboard_url=ready.dashboard_url, token_path=token_path)
        yield Head(ready, token, {**environ, **driver}, folder, process)
    finally:
        end(process)
        shutil.rmtree(folder, ignore_errors=True)
