"""The real rules behind a real Hypha server: who is let in is decided by what the server has verified."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from heliostat.gateway.hypha.connection import Place, connect
from heliostat.model.gateway import Allowance, CallLimits, GatewaySettings, Right, Sandbox, SandboxKind
from tests.gateway_parts import WorkOnCall, gateway
from tests.hypha_server import HyphaServer
from tests.integration.gateway.conftest import OWNER, WORKSPACE, until

# The rules come from another part of the gateway, which this one does not need.
gates = pytest.importorskip("heliostat.gateway.rules.gate", reason="the gateway's rules are not there")
pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]

ALLOW = (
    Allowance(people=frozenset({"owner@example.org"}), rights=frozenset(Right)),
    Allowance(
        people=frozenset({"ada@example.org"}),
        rights=frozenset({Right.RUN}),
        limits=CallLimits(calls_at_a_time=1),
    ),
)


@pytest.fixture
async def guarded(hypha: HyphaServer, tmp_path: Path) -> AsyncIterator[tuple[Any, WorkOnCall, str]]:
    """A gateway with the real gate over a cluster on call."""
    settings = GatewaySettings(hypha.url, ALLOW, WORKSPACE, sandbox=Sandbox(SandboxKind.NONE))
    (tmp_path / "rules").mkdir(mode=0o700)
    gate, work = gates.open_gate(settings, tmp_path / "rules", now_s=time.time), WorkOnCall()
    parts = gateway(tmp_path, gate, work)
    live = await connect(Place(hypha.url, "heliostat-guarded"), hypha.token(OWNER))
    try:
        yield gate, work, await live.register(parts.services.definition("heliostat"))
    finally:
        await parts.services.aclose(0)
        await live.aclose()
        gate.close()


async def service(hypha: HyphaServer, service_id: str, token: str) -> Any:
    import hypha_rpc

    caller = await hypha_rpc.connect_to_server({"server_url": hypha.url, "token": token, "logger": None})
    return await caller.get_service(service_id)


async def test_a_read_token_of_the_owners_lets_nobody_in(hypha: HyphaServer, guarded: Any) -> None:
    _, _, service_id = guarded
    own = await service(hypha, service_id, hypha.token(OWNER))
    assert (await own.calls())["ok"]
    live = await connect(Place(hypha.url, "lender"), hypha.token(OWNER))
    lent = {}
    for permission in ("read", "read_write"):
        wanted = {"workspace": WORKSPACE, "permission": permission, "expires_in": 600}
        lent[permission] = await live._server.generate_token(wanted)
    await live.aclose()
    answers = {}
    for permission, token in lent.items():
        other = await service(hypha, service_id, token)
        answers[permission] = await other.hello()
    assert answers["read"]["error"]["code"] in ("sign_in", "not_allowed")
    assert answers["read_write"]["ok"]


async def test_a_connection_that_outlives_its_token_is_shut_out(hypha: HyphaServer, guarded: Any) -> None:
    _, _, service_id = guarded
    ends_s = int(time.time()) + 3
    ada = await service(hypha, service_id, hypha.token("ada", exp=ends_s))
    assert (await ada.hello())["ok"]
    await until("the token to expire", lambda: time.time() > ends_s + 0.5)
    assert (await ada.hello())["error"]["code"] == "sign_in"


async def test_a_stranger_a_limit_and_a_revocation(hypha: HyphaServer, guarded: Any) -> None:
    gate, work, service_id = guarded
    eve = await service(hypha, service_id, hypha.token("eve"))
    refused = await eve.run_python("result = 1")
    assert refused["error"]["code"] == "not_allowed"
    assert "Traceback" not in json.dumps(refused)

    ada = await service(hypha, service_id, hypha.token("ada"))
    first = asyncio.ensure_future(ada.run_python("result = 1"))
    await work.arrived.get()
    assert (await ada.run_python("result = 2"))["error"]["code"] == "limit"
    assert gate.shut_out("ada@example.org") == 1
    assert (await first)["error"]["code"] == "stopped"
    assert (await ada.hello())["error"]["code"] == "not_allowed"
