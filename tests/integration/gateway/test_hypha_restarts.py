"""Calls in flight while the Hypha server dies and comes back: each has an answer or an error, none hangs."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from heliostat.gateway.hypha import upkeep
from tests.gateway_parts import RulesByName, WorkOnCall, gateway
from tests.hypha_server import HyphaServer, hypha_server_in
from tests.integration.gateway.conftest import OWNER, RIGHTS, until
from tests.integration.gateway.keeping import kept_up

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240), pytest.mark.nightly]

CALLS = 10
HANG_S = 90.0
"""The client's own deadline is 30 s after it last heard of a call."""


async def test_calls_in_flight_over_a_restart_are_answered_or_fail(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upkeep, "ECHO_EVERY_S", 0.5)
    parts = gateway(tmp_path, RulesByName(RIGHTS), WorkOnCall())
    with hypha_server_in(tmp_path / "server") as server:
        async with kept_up(server, tmp_path, {"T": server.token(OWNER)}, parts=parts) as (kept, _):
            await until("the gateway to be connected", lambda: kept.is_connected)
            outcomes, later = await _over_a_restart(server, parts.work, str(kept.service_id))
    assert len(outcomes) == CALLS
    assert later["ok"], "what nobody waited for can be had afterwards"


async def _over_a_restart(server: HyphaServer, work: WorkOnCall, service_id: str) -> tuple[list[Any], Any]:
    import hypha_rpc

    config = {"server_url": server.url, "token": server.token("ada"), "logger": None}
    caller = await hypha_rpc.connect_to_server(config)
    service = await caller.get_service(service_id)
    begun = await service.run_python("1", wait=False)
    asked = [asyncio.ensure_future(service.run_python("1")) for _ in range(CALLS)]
    arrived = [await work.arrived.get() for _ in range(CALLS + 1)]
    server.kill()
    await asyncio.to_thread(server.start)
    for one in arrived:
        if not one.end.done():
            one.end.set_result("late")
    done, hanging = await asyncio.wait(asked, timeout=HANG_S)
    assert not hanging
    outcomes = [one.exception() or one.result() for one in done]
    await caller.disconnect()

    async with hypha_rpc.connect_to_server(config) as again:
        look: Any = {"value": None}

        async def looked() -> bool:
            try:
                look["value"] = await (await again.get_service(service_id)).progress(begun["call_id"])
            except Exception:
                return False
            return bool(look["value"]["ok"])

        await until("the call to be looked at", looked)
        return outcomes, look["value"]["value"]["answer"]
