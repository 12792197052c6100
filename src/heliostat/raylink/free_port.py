"""Ports for the head: the wanted one if it can be bound now and no other head of ours will bind it, else
one near it.
"""

from __future__ import annotations

import socket
import sys
from collections.abc import Iterable
from types import TracebackType
from typing import Self

from heliostat.ports.errors import ConfigError

TRIED = 50
"""How many ports near the wanted one are tried."""


class PortClaims:
    """Ports that one head has to itself among ours on this host, while this object or a child has it open.

    Seconds pass until Ray binds a port that was found free, and again when a head is started anew: without
    a claim a second head takes the same, and Ray (2.60) ends one of the two a minute later. A claim is a
    name among Linux's abstract Unix sockets: these belong to the network namespace, as ports do, and go with
    the last process that has them open. Elsewhere than on Linux nothing is claimed.
    """

    def __init__(self) -> None:
        self._held: dict[int, socket.socket] = {}

    def take(self, port: int) -> bool:
        """Claim `port`; False if another has it. One that is ours already stays so."""
        if port in self._held:
            return True
        held = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            if sys.platform == "linux":
                held.bind(f"\0heliostat-port-{port}")
        except OSError as error:
            # Where such names are forbidden there are no claims, and heads start all the same.
            if error.errno in _IN_USE:
                held.close()
                return False
        self._held[port] = held
        return True

    def holds(self, port: int) -> bool:
        return port in self._held

    def release(self, port: int) -> None:
        self._held.pop(port).close()

    def filenos(self) -> list[int]:
        """Return what a child must inherit to hold the claims beyond our end."""
        return [held.fileno() for held in self._held.values()]

    def close(self) -> None:
        for port in list(self._held):
            self.release(port)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def is_free(port: int, *, host: str | None = None) -> bool:
    """Say whether `port` can be bound on `host`, or on every interface, IPv4 and IPv6, as Ray does."""
    wanted = [(socket.AF_INET, host)] if host else [(socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::")]
    return all(_binds(family, address, port) for family, address in wanted)


def near(
    wanted: int, *, claims: PortClaims, taken: Iterable[int] = (), host: str | None = None, step: int = 1
) -> int:
    """Return `wanted` or the next free port in direction `step`, none of `taken`, and claim it.

    Raises ConfigError when none of `TRIED` is free.
    """
    avoided = frozenset(taken)
    for port in range(wanted, wanted + TRIED * step, step):
        if not 0 < port < 65536 or port in avoided:
            continue
        ours = claims.holds(port)
        if not claims.take(port):
            continue
        if is_free(port, host=host):
            return port
        if not ours:
            claims.release(port)
    raise ConfigError([f"no port near {wanted} is free ({TRIED} were tried)"])


def _binds(family: socket.AddressFamily, host: str, port: int) -> bool:
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            # A port whose last connections only linger is free; one that is listened on never is.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family is socket.AF_INET6:
                probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            probe.bind((host, port))
    except PermissionError:
        return False
    except OSError as error:
        # A host without IPv6 has nobody there who could hold the port.
        return family is socket.AF_INET6 and error.errno not in _IN_USE
    return True


_IN_USE = frozenset({98, 48})
"""EADDRINUSE on Linux and on macOS."""
