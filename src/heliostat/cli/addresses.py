"""Which of this host's addresses other machines reach: in a network, on an interface, or as it is known.

IPv4, as in Ray's own search. `interfaces`, `resolved` and `routed` ask the system; the rest is pure.
"""

from __future__ import annotations

import ctypes
import ipaddress
import socket
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from heliostat.ports.errors import ConfigError

LOOPBACK = "127.0.0.1"
FAR_AWAY = ("198.51.100.1", 9)
"""A documentation address (RFC 5737): the way to it is the default route."""

_UP = 0x1


@dataclass(frozen=True)
class Interface:
    """One address of an interface that is up; one with several addresses is there several times."""

    name: str
    address: str

    def __str__(self) -> str:
        return f"{self.name} ({self.address})"


def reachable_address(networks: Sequence[str], *, key: str) -> str:
    """Return this host's address in the first of `networks` that fits, without any the one it is known by.

    `networks` holds interface names and CIDRs; `key` is what a user sets. Raises ConfigError,
    with the interfaces that are there.
    """
    found = interfaces()
    if networks:
        address = address_in(networks, found)
        wanted = " or ".join(networks)
        trouble = f"no address of this host is in {wanted}"
    else:
        address = known_address(found, resolved=resolved(socket.gethostname()), routed=routed())
        trouble = "it can't be told by which address other machines reach this host"
    if address is None:
        there = ", ".join(map(str, found)) or "none"
        raise ConfigError([f"{key}: {trouble}; allowed is the name or a network of one of: {there}"])
    return address


def address_in(networks: Sequence[str], found: Sequence[Interface]) -> str | None:
    """Return the first address that the first fitting name or CIDR has; None if none fits."""
    for network in networks:
        for one in found:
            if _is_in(one, network):
                return one.address
    return None


def known_address(found: Sequence[Interface], *, resolved: Sequence[str], routed: str | None) -> str | None:
    """Return what the host's name stands for, else the default route's address, else the only one there is.

    The name comes first: on a login node the default route leads to the world, and compute
    nodes know the host by its name. Never a loopback address, nor one that is not this host's.
    """
    own = [one.address for one in found if not is_loopback(one.address)]
    sole = own if len(own) == 1 else []
    return next((one for one in (*resolved, routed, *sole) if one in own), None)


def is_loopback(address: str) -> bool:
    return ipaddress.ip_address(address).is_loopback


def is_network(text: str) -> bool:
    """Say whether `text` is an address or a CIDR, not an interface's name."""
    try:
        ipaddress.ip_network(text, strict=False)
    except ValueError:
        return False
    return True


def _is_in(one: Interface, network: str) -> bool:
    if not is_network(network):
        return one.name == network
    return ipaddress.ip_address(one.address) in ipaddress.ip_network(network, strict=False)


def resolved(name: str) -> tuple[str, ...]:
    """Return the addresses that a host name stands for; none where it has none."""
    try:
        found = socket.getaddrinfo(name, None, socket.AF_INET, socket.SOCK_STREAM)
    except OSError:
        return ()
    return tuple(dict.fromkeys(str(one[4][0]) for one in found))


def routed() -> str | None:
    """Return this host's address on the default route, if there is one. No packet is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(FAR_AWAY)
        except OSError:
            return None
        return str(probe.getsockname()[0])


class _Address(ctypes.Structure):
    """The kernel's `struct sockaddr_in`."""

    _fields_ = (("family", ctypes.c_ushort), ("port", ctypes.c_ushort), ("address", ctypes.c_ubyte * 4))


class _Entry(ctypes.Structure):
    """The C library's `struct ifaddrs` (getifaddrs(3)), as far as it is read here."""


_Entry._fields_ = [
    ("next", ctypes.POINTER(_Entry)),
    ("name", ctypes.c_char_p),
    ("flags", ctypes.c_uint),
    ("address", ctypes.POINTER(_Address)),
]


def interfaces() -> tuple[Interface, ...]:
    """Return this host's IPv4 addresses, in the system's order. Raises OSError."""
    library = ctypes.CDLL(None, use_errno=True)
    first = ctypes.POINTER(_Entry)()
    if library.getifaddrs(ctypes.byref(first)):
        raise OSError(ctypes.get_errno(), "the interfaces of this host can't be listed")
    try:
        return tuple(_listed(first))
    finally:
        library.freeifaddrs(first)


def _listed(entry: ctypes._Pointer[_Entry]) -> Iterator[Interface]:
    while bool(entry):
        one = entry.contents
        # An interface without an address has a null pointer here.
        if one.flags & _UP and one.address and one.address.contents.family == socket.AF_INET:
            yield Interface(one.name.decode(), socket.inet_ntoa(bytes(one.address.contents.address)))
        entry = one.next
