"""A real Ray head for tests, started by our own command in a folder and on ports of its own."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from heliostat.raylink.free_port import PortClaims
from heliostat.raylink.head import HeadOptions, choose_ports, driver_environment, head_command
from heliostat.raylink.ready import HeadReady, wait_until_ready
from heliostat.raylink.token import ensure_token, read_token

READY_S = 60.0
# A drained worker's `ray start --block` never returns, so waiting longer helps nobody.
END_S = 4.0


@dataclass(frozen=True)
class RealHead:
    """A head that answers. `environment` is a driver's; `folder` goes with the head."""

    ready: HeadReady
    token: str
    environment: dict[str, str]
    folder: Path
    process: subprocess.Popen[bytes]


@contextmanager
def real_head(
    prefix: str,
    *,
    resources: Mapping[str, float],
    labels: Mapping[str, str] | None = None,
    port: int | None = None,
    token: Path | None = None,
) -> Iterator[RealHead]:
    """Run a head while the block runs; `prefix` is of its folder in /tmp, and short for the sockets' sake.

    Its port and its token are its own unless others are given.
    """
    folder = Path(tempfile.mkdtemp(prefix=prefix, dir="/tmp"))
    # Every other variable of Ray would change what is tested.
    environ = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    token_path = ensure_token({**environ, "RAY_AUTH_TOKEN_PATH": str(token or folder / "auth_token")})
    options = HeadOptions(
        temp_dir=str(folder / "h"),
        token_path=token_path,
        node_type="head",
        resources=dict(resources),
        labels=dict(labels or {}),
        port=free_port(),
        dashboard_port=free_port(),
        client_port=free_port(),
    )
    claims = PortClaims()
    ports = choose_ports(options, claims)
    if port is not None:
        # A stranger's head knows nothing of claims.
        ports = replace(ports, gcs=port)
    command = head_command(options, ports, environment=environ)
    with (folder / "head.log").open("wb") as log:
        process = subprocess.Popen(
            command.argv, env=command.environment, stdout=log, stderr=log, start_new_session=True
        )
    try:
        address, token = f"127.0.0.1:{ports.gcs}", read_token(token_path)
        ready = wait_until_ready(
            address,
            token=token,
            temp_dir=options.temp_dir,
            deadline_s=READY_S,
            alive=lambda: process.poll() is None,
        )
        driver = driver_environment(address=address, dashboard_url=ready.dashboard_url, token_path=token_path)
        yield RealHead(ready, token, {**environ, **driver}, folder, process)
    finally:
        end(process)
        claims.close()
        shutil.rmtree(folder, ignore_errors=True)


def end(process: subprocess.Popen[bytes]) -> None:
    """TERM, then kill what is left of the process's own group."""
    process.terminate()
    with suppress(subprocess.TimeoutExpired):
        process.wait(END_S)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait(END_S)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
