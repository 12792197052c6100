"""How the gateway's driver is known to the cluster."""

from __future__ import annotations

from typing import Any

import pytest
import ray

from heliostat.gateway.work import driver


def test_it_is_told_from_drivers_of_people(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the namespace that `raylink` does not count: a gateway without a call uses no cluster."""
    asked: dict[str, Any] = {}
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    monkeypatch.setattr(ray, "init", lambda address, **more: asked.update(more, address=address))
    driver._connect()
    assert (asked["address"], asked["namespace"]) == ("10.0.0.1:6379", "heliostat_gateway")
