"""What the gateway's process takes from its surroundings, and how it reaches the controller."""

from __future__ import annotations

import os
from dataclasses import replace

import pytest

from heliostat.cli import gateway_process
from heliostat.config.record import ClusterRecord
from heliostat.model.gateway import GatewaySettings, token_variables


def test_the_token_is_the_gateways_and_no_childs(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = GatewaySettings("https://hypha.example.org", token_env="LAB_TOKEN")
    for name in ("LAB_TOKEN", "HYPHA_TOKEN"):
        monkeypatch.setenv(name, "a token")
    own = gateway_process._environment_without(token_variables(settings))
    assert own["LAB_TOKEN"] == "a token"
    assert not os.environ.keys() & {"LAB_TOKEN", "HYPHA_TOKEN"}


def test_one_way_to_the_controller_is_kept_until_the_cluster_is_another(
    cluster: ClusterRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed: list[str] = []

    class Client:
        def __init__(self, record: ClusterRecord) -> None:
            self.host = record.host

        def close(self) -> None:
            closed.append(self.host)

    far = replace(cluster, host="n17")
    monkeypatch.setattr(gateway_process, "client_of", Client)
    monkeypatch.setattr(gateway_process, "pick", lambda name: far)
    controller = gateway_process._Controller("demo")
    first = controller.client()
    assert controller.client() is first
    far = replace(cluster, host="n18")
    assert controller.client() is not first
    assert closed == ["n17"]


@pytest.mark.parametrize("is_far", [False, True])
def test_only_a_driver_elsewhere_ends_when_it_hears_nothing(
    cluster: ClusterRecord, monkeypatch: pytest.MonkeyPatch, is_far: bool
) -> None:
    """One that is here outlives a gateway that somebody has stopped for a while, and so does what runs."""
    record = replace(cluster, host="n17") if is_far else cluster
    monkeypatch.setattr(gateway_process, "pick", lambda name: record)
    command = gateway_process._driver("demo", without=())
    assert (" --far" in " ".join(command.argv)) == is_far
