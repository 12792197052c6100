"""Ports for the head: the wanted one if it can be bound now, else one near it, and what to say then."""

from __future__ import annotations

import socket
from collections.abc import Iterable

from heliostat.ports.errors import ConfigError

TRIED = 50
"""How many ports near the wanted one are tried."""


def is_free(port: int, *, host: str | None = None) -> bool:
    """Say whether `port` can be bound on `host`, or on every interface, IPv4 and IPv6, as Ray does."""
    wanted = [(socket.AF_INET, host)] if host else [(socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::")]
    return all(_binds(family, address, port) for family, address in wanted)


def near(wanted: int, *, taken: Iterable[int] = (), host: str | None = None, step: int = 1) -> int:
    """Return `wanted` or the next free port in direction `step`, none of `taken`.

    Raises ConfigError when none of `TRIED` is free.
    """
    avoided = frozenset(taken)
    for port in range(wanted, wanted + TRIED * step, step):
        if 0 < port < 65536 and port not in avoided and is_free(port, host=host):
            return port
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
