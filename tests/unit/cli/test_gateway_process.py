"""What the gateway's process takes from its surroundings."""

from __future__ import annotations

import os

import pytest

from heliostat.cli import gateway_process


def test_the_token_is_the_gateways_and_no_childs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAB_TOKEN", "a token")
    assert gateway_process._environment_without("LAB_TOKEN")["LAB_TOKEN"] == "a token"
    assert "LAB_TOKEN" not in os.environ
