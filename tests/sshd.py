"""A real sshd on loopback for tests, with keys, a port and a folder of its own."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from heliostat.providers.slurm.keys import Ssh
from tests.packages import lacking, which

COMMANDS = ("ssh", "sshd", "ssh-keygen")
PACKAGES = ("openssh-client", "openssh-server")
START_S = 10.0


def obstacle() -> str | None:
    """Return why no sshd can run here, or None; on a Debian, root installs what is missing."""
    missing = lacking(COMMANDS, PACKAGES)
    if missing:
        return f"no {', '.join(missing)} here; on a Debian: apt-get install {' '.join(PACKAGES)}"
    return None


@dataclass
class Server:
    """A running sshd; `log` has a line for each login."""

    process: subprocess.Popen[bytes]
    port: int
    folder: Path

    def ssh(self, *options: str, key: str = "key") -> Ssh:
        """Return how to get there as the user who runs the tests, untouched by that user's own settings."""
        wishes = {
            "IdentitiesOnly": "yes",
            "IdentityAgent": "none",
            "StrictHostKeyChecking": "no",
            "UserKnownHostsFile": str(self.folder / "known"),
        }
        given = [part for name, value in wishes.items() for part in ("-o", f"{name}={value}")]
        base = ("-F", "none", "-i", str(self.folder / key), *given)
        return Ssh("127.0.0.1", port=self.port, options=(*base, *options))

    def logins(self) -> int:
        return (self.folder / "log").read_text(errors="replace").count("Accepted publickey")

    def cut(self) -> None:
        """End every connection, as a broken network would."""
        for path in Path("/proc").glob("[0-9]*/stat"):
            with suppress(OSError, IndexError):
                if int(path.read_text().rpartition(")")[2].split()[1]) == self.process.pid:
                    os.kill(int(path.parent.name), signal.SIGKILL)


@contextmanager
def start(folder: Path, *, environment: Mapping[str, str] | None = None) -> Iterator[Server]:
    """Run an sshd while the block runs; `environment` is added to that of every login."""
    port = free_port()
    for name in ("host", "key", "stranger"):
        make = ("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name))
        subprocess.run(make, check=True, timeout=30)
    (folder / "authorized").write_bytes((folder / "key.pub").read_bytes())
    settings = " ".join(f'"{name}={value}"' for name, value in (environment or {}).items())
    (folder / "conf").write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {folder}/host\nPidFile none\n"
        f"AuthorizedKeysFile {folder}/authorized\nStrictModes no\nUsePAM no\nUseDNS no\n"
        "PasswordAuthentication no\nKbdInteractiveAuthentication no\nPermitRootLogin prohibit-password\n"
        f"LogLevel VERBOSE\nMaxSessions 50\n{'SetEnv ' + settings if settings else ''}\n"
    )
    if os.getuid() == 0:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen((str(which("sshd")), "-D", "-e", "-f", str(folder / "conf")), stderr=log)
    server = Server(process, port, folder)
    try:
        _wait(server)
        yield server
    finally:
        server.cut()
        process.terminate()
        process.wait(timeout=10)


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def _wait(server: Server) -> None:
    end_s = time.monotonic() + START_S
    while time.monotonic() < end_s:
        if server.process.poll() is not None:
            raise RuntimeError(f"sshd ended: {(server.folder / 'log').read_text(errors='replace').strip()}")
        with suppress(OSError), socket.create_connection(("127.0.0.1", server.port), timeout=1):
            return
        time.sleep(0.02)
    raise TimeoutError("sshd does not listen")
