"""A few commands to a Redis or Valkey server (RESP2), each within a deadline.

Enough to see whether the server takes us, and to delete a cluster's keys: Ray's own client retries for
minutes before it says anything. https://valkey.io/topics/protocol/
"""

from __future__ import annotations

import contextlib
import socket
import ssl
from typing import Self

from heliostat.model.gcs_storage import GcsStorage
from heliostat.ports.errors import StorageError

DEADLINE_S = 5.0

Reply = str | bytes | int | None | list["Reply"]


class _Refused(Exception):
    """The server's own words."""


class RespLink:
    """One connection, logged in; use it as a context manager. Whatever goes wrong is a StorageError.

    `deadline_s` is for the connection, and for each reply.
    """

    def __init__(self, storage: GcsStorage, password: str, *, deadline_s: float = DEADLINE_S) -> None:
        self._storage = storage
        self._password = password
        self._deadline_s = deadline_s

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as closing:
            self._socket = closing.enter_context(self._connected())
            self._replies = closing.enter_context(self._socket.makefile("rb"))
            if self._password:
                user = [self._storage.username] if self._storage.username else []
                self.call("AUTH", *user, self._password)
            self._closing = closing.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.close()

    def call(self, *words: str | bytes) -> Reply:
        """Send one command and return its reply; the server's refusal is a StorageError in its words."""
        parts = [word.encode() if isinstance(word, str) else word for word in words]
        lines = [b"*%d\r\n" % len(parts), *(b"$%d\r\n%b\r\n" % (len(part), part) for part in parts)]
        try:
            self._socket.sendall(b"".join(lines))
            return self._reply()
        except _Refused as error:
            raise StorageError(f"{self._storage.address} says to {_shown(words)}: {error}") from error
        except (OSError, EOFError, ValueError) as error:
            raise self._failed(error) from error

    def _connected(self) -> socket.socket:
        storage = self._storage
        plain: socket.socket | None = None
        try:
            plain = socket.create_connection((storage.host, storage.port), timeout=self._deadline_s)
            if not storage.tls:
                return plain
            trust = ssl.create_default_context(cafile=storage.ca_cert)
            return trust.wrap_socket(plain, server_hostname=storage.host)
        except OSError as error:
            if plain is not None:
                plain.close()
            raise self._failed(error) from error

    def _reply(self) -> Reply:
        line = self._replies.readline()
        kind, rest = line[:1], line[1:-2]
        if not line.endswith(b"\r\n"):
            raise EOFError
        if kind == b"+":
            return rest.decode(errors="replace")
        if kind == b"-":
            raise _Refused(rest.decode(errors="replace"))
        if kind == b":":
            return int(rest)
        if kind == b"$":
            return None if rest == b"-1" else self._bulk(int(rest) + 2)[:-2]
        if kind == b"*":
            return None if rest == b"-1" else [self._reply() for _ in range(int(rest))]
        raise ValueError(kind)

    def _bulk(self, size: int) -> bytes:
        found = self._replies.read(size)
        if len(found) < size:
            raise EOFError
        return found

    def _failed(self, error: Exception) -> StorageError:
        if isinstance(error, TimeoutError):
            why = f"no answer within {self._deadline_s:g} s"
        elif isinstance(error, ssl.SSLCertVerificationError):
            why = f"its certificate is not to be trusted: {error.verify_message}"
        elif isinstance(error, OSError):
            why = error.strerror or str(error)
        elif isinstance(error, EOFError):
            why = "it closed the connection"
        else:
            why = "it does not speak Redis's protocol"
        return StorageError(f"{self._storage.address}: {why}")


def _shown(words: tuple[str | bytes, ...]) -> str:
    """Return a command for people: its name and its key, and nothing of a login."""
    first, *rest = words
    return str(first) if first == "AUTH" else " ".join(map(str, (first, *rest[:1])))
