"""What the gateway's process takes from its surroundings, and how it reaches the controller."""

from __future__ import annotations

import os
from dataclasses import replace

import pytest

from heliostat.cli import gateway_process
from heliostat.config.record import ClusterRecord


def test_the_token_is_the_gateways_and_no_childs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAB_TOKEN", "a token")
    assert gateway_process._environment_without("LAB_TOKEN")["LAB_TOKEN"] == "a token"
    assert "LAB_TOKEN" not in os.environ


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
