"""The ways to a controller: its socket on this host, or a relay that runs beside it on another.

Standard library only. A way carries one request and its answer at a time, within a deadline.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import select
import socket
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Protocol

HELLO = {"relay": 1}
"""A relay's first line: whatever a login shell prints comes before it."""

RELAY_START_S = 15.0
"""A step of a job starts within a second; a busy site may take its time."""

RELAY_MARGIN_S = 5.0
RELAY_END_S = 2.0
CHUNK_BYTES = 65_536
WORDS_BYTES = 2_000


class NobodyListens(Exception):
    """There is no controller at the other end, or it is being started again."""


class NotReached(ConnectionError):
    """There is no way to the head's host; the text says what was tried."""


class Transport(Protocol):
    def exchange(self, method: str, path: str, *, body: bytes | None, timeout_s: float) -> tuple[int, bytes]:
        """Return HTTP's status and the answer's body.

        Raises NobodyListens, TimeoutError, or OSError and HTTPException for a way that broke.
        """
        ...


class SocketTransport:
    """HTTP over the controller's own socket, a connection for each request."""

    def __init__(self, socket_path: Path | str) -> None:
        self.socket_path = Path(socket_path)

    def exchange(self, method: str, path: str, *, body: bytes | None, timeout_s: float) -> tuple[int, bytes]:
        connection = _UnixConnection(self.socket_path, timeout_s=timeout_s)
        try:
            connection.connect()
        except (FileNotFoundError, ConnectionRefusedError) as error:
            raise NobodyListens(str(error)) from error
        headers = {"Connection": "close", "Content-Type": "application/json"}
        try:
            connection.request(method, path, body=body, headers=headers)
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()


class RelayTransport:
    """Lines of JSON through a command that runs `python -m heliostat.api.relay` on the head's host.

    `commands` are tried in order until one says hello; it stays for the requests to come, and
    ends when this process does. `environment` None means this process's own.
    """

    def __init__(
        self, commands: Sequence[Sequence[str]], *, environment: Mapping[str, str] | None = None
    ) -> None:
        self._commands = commands
        self._environment = environment
        self._relay: _Relay | None = None

    def exchange(self, method: str, path: str, *, body: bytes | None, timeout_s: float) -> tuple[int, bytes]:
        relay = self._relay if self._relay is not None and self._relay.lives else self._started()
        self._relay = None
        try:
            text = None if body is None else body.decode()
            relay.send({"method": method, "path": path, "body": text, "timeout_s": timeout_s})
            answer = relay.receive(timeout_s + RELAY_MARGIN_S)
        except BaseException as error:
            # A late answer must not be taken for the next request's.
            words = relay.end()
            if words and isinstance(error, ConnectionError):
                raise ConnectionError(words) from error
            raise
        self._relay = relay
        return _answered(answer)

    def close(self) -> None:
        if self._relay is not None:
            self._relay.end()
            self._relay = None

    def _started(self) -> _Relay:
        refusals = []
        for command in self._commands:
            try:
                relay = _Relay(command, self._environment)
            except OSError as error:
                refusals.append(f"{command[0]}: {error.strerror}")
                continue
            try:
                while relay.receive(RELAY_START_S) != HELLO:
                    pass
            except BaseException as error:
                words = relay.end()
                if not isinstance(error, OSError):
                    raise
                said = words.removeprefix(f"{command[0]}: ") or str(error)
                refusals.append(f"{command[0]}: {said}")
            else:
                return relay
        raise NotReached(f"the head's host can't be reached: {'; '.join(refusals)}")


class _Relay:
    """One running command and the two lines to it."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str] | None) -> None:
        self._words: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115
        self._received = b""
        self._process = subprocess.Popen(
            list(command),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._words,
            env=None if environment is None else dict(environment),
            # A Ctrl-C in the terminal is ours: the way down still needs this line.
            start_new_session=True,
        )

    @property
    def lives(self) -> bool:
        return self._process.poll() is None

    def send(self, request: Mapping[str, object]) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(request).encode() + b"\n")
        self._process.stdin.flush()

    def receive(self, timeout_s: float) -> dict[str, Any]:
        """Return the next line that is a JSON object; what is none is not the relay's."""
        until_s = time.monotonic() + timeout_s
        while True:
            line = self._line(until_s)
            with contextlib.suppress(ValueError):
                found = json.loads(line)
                if isinstance(found, dict):
                    return found

    def _line(self, until_s: float) -> bytes:
        assert self._process.stdout is not None
        while b"\n" not in self._received:
            ready, _, _ = select.select([self._process.stdout], [], [], max(0.0, until_s - time.monotonic()))
            if not ready:
                raise TimeoutError("the relay did not answer in time")
            chunk = os.read(self._process.stdout.fileno(), CHUNK_BYTES)
            if not chunk:
                raise ConnectionError("the relay ended")
            self._received += chunk
        line, _, self._received = self._received.partition(b"\n")
        return line

    def end(self) -> str:
        """End the command; return its last words."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        try:
            self._process.wait(RELAY_END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()
        with self._words as words:
            words.seek(0)
            return " ".join(words.read(WORDS_BYTES).decode(errors="replace").split())


def _answered(answer: Mapping[str, Any]) -> tuple[int, bytes]:
    text = str(answer.get("text", ""))
    match answer.get("error"):
        case None:
            return int(answer["status"]), str(answer["body"]).encode()
        case "nobody":
            raise NobodyListens(text)
        case "timeout":
            raise TimeoutError(text)
        case _:
            raise ConnectionError(text)


class _UnixConnection(http.client.HTTPConnection):
    """HTTP over a unix socket; the deadline holds for connect and for each read."""

    def __init__(self, socket_path: Path, *, timeout_s: float) -> None:
        super().__init__("heliostat", timeout=timeout_s)
        self._socket_path = socket_path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        try:
            self.sock.connect(str(self._socket_path))
        except OSError:
            self.sock.close()
            raise
