"""Which address a head gets: by interface, by network, by the host's name, by its default route."""

from __future__ import annotations

import socket

import pytest

from heliostat.cli import addresses
from heliostat.cli.addresses import Interface, address_in, is_network, known_address, reachable_address
from heliostat.ports.errors import ConfigError

LO = Interface("lo", "127.0.0.1")
OUT = Interface("eth0", "203.0.113.7")
IN = Interface("eth1", "10.1.4.2")
ALIAS = Interface("eth1", "10.9.0.1")
FAST = Interface("ib0", "10.2.4.2")
LOGIN = (LO, OUT, IN, ALIAS, FAST)


@pytest.mark.parametrize(
    ("networks", "address"),
    [
        (["ib0"], "10.2.4.2"),
        (["10.1.0.0/16"], "10.1.4.2"),
        (["10.9.0.0/24"], "10.9.0.1"),
        # A host's part in a network is no mistake: people copy their own address.
        (["10.2.4.99/24"], "10.2.4.2"),
        (["203.0.113.7"], "203.0.113.7"),
        (["ib1", "ib0", "eth0"], "10.2.4.2"),
        (["eth1", "ib0"], "10.1.4.2"),
        (["127.0.0.0/8"], "127.0.0.1"),
        (["lo"], "127.0.0.1"),
        (["ib1"], None),
        (["192.168.0.0/16", "fe80::/10"], None),
    ],
)
def test_the_first_name_or_network_that_fits_decides(networks: list[str], address: str | None) -> None:
    assert address_in(networks, LOGIN) == address


@pytest.mark.parametrize(
    ("found", "resolved", "routed", "address"),
    [
        # Compute nodes know a login node by its name; its default route leads elsewhere.
        (LOGIN, ["10.1.4.2"], "203.0.113.7", "10.1.4.2"),
        (LOGIN, ["127.0.1.1"], "203.0.113.7", "203.0.113.7"),
        (LOGIN, ["127.0.1.1", "10.2.4.2"], None, "10.2.4.2"),
        # A name that stands for an address outside (a load balancer's) is not this host's.
        (LOGIN, ["198.51.100.9"], "10.1.4.2", "10.1.4.2"),
        ((LO, IN), [], None, "10.1.4.2"),
        (LOGIN, [], None, None),
        ((LO,), ["127.0.0.1"], None, None),
        ((LO,), ["127.0.0.1"], "127.0.0.1", None),
        ((), [], None, None),
    ],
)
def test_a_host_is_known_by_its_name_else_by_its_route_else_by_its_only_address(
    found: tuple[Interface, ...], resolved: list[str], routed: str | None, address: str | None
) -> None:
    assert known_address(found, resolved=resolved, routed=routed) == address


@pytest.fixture
def login(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(addresses, "interfaces", lambda: LOGIN)
    monkeypatch.setattr(addresses, "resolved", lambda name: ("127.0.1.1",))
    monkeypatch.setattr(addresses, "routed", lambda: None)


@pytest.mark.usefixtures("login")
def test_what_is_asked_for_is_looked_for_on_this_host() -> None:
    assert reachable_address(["ib0"], key="network") == "10.2.4.2"


@pytest.mark.usefixtures("login")
@pytest.mark.parametrize(
    ("networks", "trouble"),
    [
        (["ib7", "172.16.0.0/12"], "no address of this host is in ib7 or 172.16.0.0/12"),
        ([], "it can't be told by which address other machines reach this host"),
    ],
)
def test_without_an_address_the_interfaces_are_named(networks: list[str], trouble: str) -> None:
    with pytest.raises(ConfigError) as caught:
        reachable_address(networks, key="provider.backends.slurm.network")
    assert str(caught.value) == (
        f"provider.backends.slurm.network: {trouble}; allowed is the name or a network of one of: "
        "lo (127.0.0.1), eth0 (203.0.113.7), eth1 (10.1.4.2), eth1 (10.9.0.1), ib0 (10.2.4.2)"
    )


def test_the_systems_interfaces_are_read() -> None:
    found = addresses.interfaces()
    assert LO in found
    assert {one.name for one in found} <= {name for _, name in socket.if_nameindex()}
    # Each is an address of this host, so it can be bound.
    for one in found:
        with socket.socket() as probe:
            probe.bind((one.address, 0))


def test_names_are_resolved_without_raising() -> None:
    assert addresses.resolved("localhost") == ("127.0.0.1",)
    assert addresses.resolved("no-such-host.invalid") == ()


def test_the_default_routes_address_is_this_hosts() -> None:
    assert addresses.routed() in {None, *(one.address for one in addresses.interfaces())}


@pytest.mark.parametrize(
    ("text", "network"),
    [("10.1.0.0/16", True), ("10.1.4.2", True), ("fe80::/10", True), ("ib0", False), ("eth0/1", False)],
)
def test_a_network_is_told_from_a_name(text: str, network: bool) -> None:
    assert is_network(text) is network
