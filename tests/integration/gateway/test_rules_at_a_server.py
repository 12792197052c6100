"""The rules behind the real services, at a real Hypha server, with what that says of callers."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from heliostat.gateway.hypha.connection import Place, connect
from heliostat.gateway.rules.audit import lines_in
from heliostat.gateway.rules.gate import Gate, open_gate
from heliostat.model.gateway import Allowance, CallLimits, GatewaySettings, Right, Sandbox, SandboxKind
from tests.gateway_parts import Arrived, WorkOnCall, gateway
from tests.hypha_server import HyphaServer
from tests.integration.gateway.conftest import OWNER, WORKSPACE, Site, until

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]

ADA = "ada@example.org"
ALLOW = (
    Allowance(people=frozenset({"owner@example.org"}), rights=frozenset({Right.CALL, Right.ADMIN})),
    Allowance(people=frozenset({ADA}), rights=frozenset({Right.RUN}), limits=CallLimits(calls_at_a_time=1)),
    Allowance(workspaces=frozenset({"ws-user-eve"}), rights=frozenset({Right.CALL, Right.RUN})),
)


@dataclass
class Ruled:
    """A gateway with real rules at a real server, over a cluster that does what a test says."""

    site: Site
    gate: Gate
    work: WorkOnCall
    folder: Path

    async def outcome(self, token: str, function: str = "hello") -> str:
        """Call over HTTP; return "ok" or the error's code."""
        status, answer = await self.site.http("", function, token=token)
        assert status == 200, answer
        return "ok" if answer["ok"] else str(answer["error"]["code"])

    def lines(self, event: str) -> list[dict[str, Any]]:
        assert self.gate.audit.settle(10)
        return [one for one in lines_in(self.folder / "audit.jsonl") if one["event"] == event]


@pytest.fixture
async def ruled(hypha: HyphaServer, tmp_path: Path) -> AsyncIterator[Ruled]:
    from contextlib import AsyncExitStack

    sandbox = Sandbox(SandboxKind.BWRAP)
    settings = GatewaySettings(hypha.url, ALLOW, workspace=WORKSPACE, sandbox=sandbox)
    gate, work = open_gate(settings, tmp_path, now_s=time.time), WorkOnCall()
    parts = gateway(tmp_path, gate, work)  # type: ignore[arg-type]
    async with AsyncExitStack() as stack:
        connection = await connect(Place(hypha.url, "heliostat-ruled"), hypha.token(OWNER))
        stack.push_async_callback(connection.aclose)
        service_id = await connection.register(parts.services.definition("heliostat"))
        yield Ruled(Site(hypha, parts, connection, service_id, stack), gate, work, tmp_path)
        await parts.services.aclose(0)
    gate.close()


async def lent(ruled: Ruled, user: str, permission: str) -> str:
    """Return a token that `user` has made from their own, for their own workspace."""
    connection = await ruled.site.caller(user, client_id=f"{user}-{permission}")
    token = await connection.generate_token({"permission": permission, "expires_in": 600})
    return str(token)


async def test_trap_1_only_a_token_that_may_act_here_speaks_for_its_maker(ruled: Ruled) -> None:
    server = ruled.site.server
    found = {
        "owner": await ruled.outcome(server.token(OWNER)),
        "owner's, to read": await ruled.outcome(await lent(ruled, OWNER, "read")),
        "owner's, to write": await ruled.outcome(await lent(ruled, OWNER, "read_write")),
        "owner's, for all": await ruled.outcome(await lent(ruled, OWNER, "admin")),
        "ada": await ruled.outcome(server.token("ada")),
        "ada's, for her workspace": await ruled.outcome(await lent(ruled, "ada", "read_write")),
        "eve's, for hers": await ruled.outcome(await lent(ruled, "eve", "read_write")),
        "eve's, to read hers": await ruled.outcome(await lent(ruled, "eve", "read")),
        "mallory": await ruled.outcome(server.token("mallory")),
        "mallory as ada": await ruled.outcome(server.token("mallory", email="Ada@example.org", scope="")),
    }
    assert found == {
        "owner": "ok",
        "owner's, to read": "sign_in",
        "owner's, to write": "ok",
        "owner's, for all": "ok",
        "ada": "ok",
        "ada's, for her workspace": "sign_in",
        "eve's, for hers": "ok",
        "eve's, to read hers": "sign_in",
        "mallory": "not_allowed",
        # Whose an address is, the server says: this one has signed in with it.
        "mallory as ada": "ok",
    }


@pytest.mark.parametrize(("user", "function"), [(OWNER, "calls"), ("eve", "run_python")])
async def test_trap_1_a_token_to_read_is_worth_no_more_for_making_others_of_it(
    ruled: Ruled, user: str, function: str
) -> None:
    """The server lets it: the holder of a workspace's owner's token counts as its owner there."""
    reader = await ruled.site.caller(user, client_id="reader", token=await lent(ruled, user, "read"))
    made = await reader.generate_token({"workspace": f"ws-user-{user}", "permission": "admin"})
    service = await ruled.site.service(user, client_id="maker", token=made)
    arguments = {"script": "result = 1"} if function == "run_python" else {}
    assert (await getattr(service, function)(**arguments))["error"]["code"] == "sign_in"
    assert ruled.lines("begun") == []


async def test_trap_2_an_open_connection_is_refused_once_its_token_has_expired(ruled: Ruled) -> None:
    ends_s = int(time.time()) + 3
    service = await ruled.site.service("ada", token=ruled.site.server.token("ada", exp=ends_s))
    assert (await service.hello())["ok"]
    await until("the token to expire", lambda: time.time() > ends_s)
    answer = await service.hello()
    assert answer["error"] == {
        "code": "sign_in",
        "message": "your sign-in has expired; sign in and call again",
    }


async def begun(ruled: Ruled, service: Any, script: str = "result = 1") -> tuple[asyncio.Task[Any], Arrived]:
    task = asyncio.ensure_future(service.run_python(script=script, timeout_s=30))
    return task, await asyncio.wait_for(ruled.work.arrived.get(), 20)


async def test_who_is_shut_out_loses_what_runs_and_gets_nothing_more(ruled: Ruled) -> None:
    service = await ruled.site.service("ada")
    task, _ = await begun(ruled, service)
    assert ruled.gate.shut_out(ADA) == 1
    answer = await asyncio.wait_for(task, 20)
    assert answer["error"] == {"code": "stopped", "message": "the owner has revoked your access"}
    assert ruled.work.cancelled == 1
    assert (await service.hello())["error"]["code"] == "not_allowed"
    assert await ruled.outcome(ruled.site.server.token("ada")) == "not_allowed"
    assert ruled.gate.usage.calls(ADA) == 0


async def test_a_slot_comes_back_when_its_call_ends_and_all_is_written(ruled: Ruled) -> None:
    service = await ruled.site.service("ada")
    task, first = await begun(ruled, service)
    refused = await service.run_python(script="result = 2", timeout_s=30)
    assert refused["error"]["code"] == "limit"
    first.end.set_result(1)
    assert (await asyncio.wait_for(task, 20))["value"] == 1
    task, second = await begun(ruled, service, "result = 3")
    second.end.set_result(3)
    assert (await asyncio.wait_for(task, 20))["value"] == 3
    assert [one["outcome"] for one in ruled.lines("ended")] == ["ok", "ok"]
    assert [one["who"] for one in ruled.lines("begun")] == [ADA, ADA]
    assert [one["outcome"] for one in ruled.lines("refused")] == ["limit"]
    assert "result = 3" not in json.dumps(ruled.lines("begun"))


async def test_an_administrator_sees_everybodys_calls_and_others_see_their_own(ruled: Ruled) -> None:
    service, owner = await ruled.site.service("ada"), await ruled.site.service(OWNER)
    task, first = await begun(ruled, service)
    assert [one["who"] for one in (await owner.calls())["value"]] == [ADA]
    assert (await service.calls())["error"]["code"] == "not_allowed"
    assert len((await service.status())["value"]["calls"]) == 1
    assert (await owner.status())["value"]["calls"] == []
    first.end.set_result(1)
    await asyncio.wait_for(task, 20)
