"""The address of a head on this host: loopback while all workers are here, else one that they reach."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from heliostat.cli import addresses
from heliostat.cli.addresses import Interface
from heliostat.cli.head import HeadPlan, head_host, networks, place_here, plan_head
from heliostat.model.gateway import GatewaySettings
from heliostat.model.node_type import ClusterSpec, HeadPorts, NodeType, Policy
from heliostat.model.resources import Resources
from heliostat.ports.errors import ConfigError
from heliostat.raylink.free_port import PortClaims

HOST = (Interface("lo", "127.0.0.1"), Interface("eth0", "10.1.4.2"), Interface("ib0", "10.2.4.2"))


@pytest.fixture(autouse=True)
def login(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(addresses, "interfaces", lambda: HOST)
    monkeypatch.setattr(addresses, "resolved", lambda name: ("10.1.4.2",))
    monkeypatch.setattr(addresses, "routed", lambda: None)


def cluster(backends: Mapping[str, Mapping[str, object]]) -> ClusterSpec:
    return ClusterSpec(
        name="demo",
        policy=Policy(node_types=(), max_workers=2, idle_timeout_s=60.0),
        head_type=NodeType("head", "local", Resources(), shape_id="s"),
        backends={"local": {"gpus": 0}, **backends},
    )


def plan(backends: Mapping[str, Mapping[str, object]]) -> HeadPlan:
    spec = cluster(backends)
    with PortClaims() as claims:
        return plan_head(
            spec,
            place_here(spec),
            cluster_uid="u" * 32,
            token_path=Path("/t/token"),
            port=None,
            claims=claims,
        )


def node_ip_of(made: HeadPlan) -> list[str]:
    return [one.partition("=")[2] for one in made.argv if one.startswith("--node-ip-address")]


@pytest.mark.parametrize(
    "backends", [{}, {"slurm": {"network": "127.0.0.0/8"}}, {"slurm": {"network": "lo"}}]
)
def test_a_head_whose_workers_are_all_here_is_on_loopback(
    backends: Mapping[str, Mapping[str, object]],
) -> None:
    made = plan(backends)
    assert made.address.startswith("127.0.0.1:")
    # Ray finds the node's address then; it would replace a loopback one anyway.
    assert (made.node_ip, node_ip_of(made)) == ("", [])


@pytest.mark.parametrize(
    ("section", "host"),
    [
        ({}, "10.1.4.2"),
        ({"network": "ib0"}, "10.2.4.2"),
        ({"network": ["ib1", "10.2.0.0/16"]}, "10.2.4.2"),
        ({"network": []}, "10.1.4.2"),
        ({"network": None}, "10.1.4.2"),
    ],
)
def test_a_head_with_workers_elsewhere_has_an_address_that_they_reach(
    section: Mapping[str, object], host: str
) -> None:
    made = plan({"slurm": section})
    assert made.address.startswith(f"{host}:")
    assert (made.node_ip, node_ip_of(made)) == (host, [host])


def test_the_dashboard_stays_on_loopback() -> None:
    made = plan({"slurm": {}})
    assert made.dashboard_url.startswith("http://127.0.0.1:")
    assert "--dashboard-host=127.0.0.1" in made.argv


def test_a_head_has_the_ports_that_the_file_wishes_where_they_are_free() -> None:
    with socket.socket() as busy:
        busy.bind(("127.0.0.1", 0))
        taken = busy.getsockname()[1]
        wished = HeadPorts(gcs=23451, ray_client=9871, dashboard=taken)
        spec = replace(cluster({}), head_ports=wished)
        with PortClaims() as claims:
            made = plan_head(
                spec, place_here(spec), cluster_uid="u" * 32, token_path=Path("/t"), port=None, claims=claims
            )
    assert (made.address, made.client_port) == ("127.0.0.1:23451", 9871)
    assert not made.dashboard_url.endswith(f":{taken}")
    (note,) = made.notes
    assert note.startswith(f"port {taken} is in use: the dashboard takes ")


@pytest.mark.parametrize("served", [True, False])
def test_the_token_of_the_clusters_gateway_stays_behind(
    monkeypatch: pytest.MonkeyPatch, served: bool
) -> None:
    monkeypatch.setenv("LAB_TOKEN", "secret")
    monkeypatch.setenv("HYPHA_TOKEN", "of another, or of one that comes later")
    settings = GatewaySettings("https://hypha.example.org", token_env="LAB_TOKEN")
    spec = replace(cluster({}), gateway=settings if served else None)
    with PortClaims() as claims:
        made = plan_head(
            spec, place_here(spec), cluster_uid="u" * 32, token_path=Path("/t"), port=None, claims=claims
        )
    environment = {**made.environment, **made.head_environment}
    assert ("LAB_TOKEN" in environment) is not served
    assert "HYPHA_TOKEN" not in environment


def test_one_backends_network_serves_all() -> None:
    assert head_host(cluster({"kubernetes": {}, "slurm": {"network": "ib0"}})) == "10.2.4.2"


def test_two_networks_that_disagree_are_refused() -> None:
    wanted = {"kubernetes": {"network": "eth0"}, "slurm": {"network": "ib0"}}
    with pytest.raises(ConfigError) as caught:
        head_host(cluster(wanted))
    assert str(caught.value) == (
        "a head has one address, and provider.backends.kubernetes.network gives 10.1.4.2, "
        "provider.backends.slurm.network gives 10.2.4.2: name the same network in both"
    )


def test_a_network_that_is_not_here_names_its_key() -> None:
    with pytest.raises(ConfigError, match=r"provider\.backends\.slurm\.network: no address .* in ib7"):
        plan({"slurm": {"network": "ib7"}})


@pytest.mark.parametrize(
    ("section", "found"),
    [({}, ()), ({"network": "ib0"}, ("ib0",)), ({"network": ["a", "b"]}, ("a", "b")), ({"network": 7}, ())],
)
def test_networks_are_one_or_several(section: Mapping[str, object], found: tuple[str, ...]) -> None:
    assert networks(section) == found
