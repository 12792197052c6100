"""A real Hypha server for the gateway's tests, shared by all of them, and gateways and callers at it."""

from __future__ import annotations

import asyncio
import json
import tempfile
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from heliostat.gateway.hypha.connection import Connection, Place, connect
from heliostat.model.gateway import CallLimits, Right
from tests.gateway_parts import EVERYTHING, Gateway, RulesByName, WorkOnCall, gateway
from tests.hypha_server import HyphaServer, hypha_server_in, needed

OWNER = "owner"
WORKSPACE = f"ws-user-{OWNER}"
RIGHTS = {
    "owner@example.org": EVERYTHING,
    "ada@example.org": frozenset({Right.CALL, Right.RUN}),
}
HTTP_TIMEOUT_S = 30
UNTIL_S = 20.0


@pytest.fixture(scope="session")
def hypha() -> Iterator[HyphaServer]:
    needed()
    with tempfile.TemporaryDirectory(prefix="hel-hypha-") as folder, hypha_server_in(Path(folder)) as server:
        yield server


@dataclass
class Site:
    """A server with one gateway, and callers as they are asked for."""

    server: HyphaServer
    parts: Gateway
    connection: Connection
    service_id: str
    _stack: AsyncExitStack

    async def caller(self, user: str, *, token: str | None = None, **config: Any) -> Any:
        """Return a connection of a user's own to the server."""
        import hypha_rpc

        settings = {"server_url": self.server.url, "token": token or self.server.token(user), "logger": None}
        server = await hypha_rpc.connect_to_server({**settings, **config})
        self._stack.push_async_callback(server.disconnect)
        return server

    async def service(self, user: str, **more: Any) -> Any:
        """Return the gateway's service as a user sees it."""
        return await (await self.caller(user, **more)).get_service(self.service_id)

    async def http(self, user: str, function: str, body: Any = None, **more: Any) -> tuple[int, Any]:
        """Call a function over plain HTTP with JSON; return the status and the answer."""
        workspace, _, name = self.service_id.partition("/")
        url = f"{self.server.url}/{workspace}/services/{name}/{function}"
        token = more.get("token") or self.server.token(user)
        data = None if body is None else json.dumps(body).encode()
        return await asyncio.to_thread(_http, url, token, data)


def _http(url: str, token: str, data: bytes | None) -> tuple[int, Any]:
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    request = urllib.request.Request(url, data=data, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=HTTP_TIMEOUT_S) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


@pytest.fixture
async def site(hypha: HyphaServer, tmp_path: Path) -> AsyncIterator[Site]:
    """A gateway over stand-ins for the rules and the cluster, at the real server."""
    parts = gateway(tmp_path, RulesByName(RIGHTS, CallLimits()), WorkOnCall())
    async with AsyncExitStack() as stack:
        connection = await connect(Place(hypha.url, "heliostat-demo"), hypha.token(OWNER))
        stack.push_async_callback(connection.aclose)
        service_id = await connection.register(parts.services.definition("heliostat"))
        yield Site(hypha, parts, connection, service_id, stack)
        await parts.services.aclose(0)


async def until(what: str, holds: Callable[[], Awaitable[bool]] | Callable[[], bool]) -> None:
    """Wait until something holds; fails after `UNTIL_S`."""
    async with asyncio.timeout(UNTIL_S):
        while True:
            found = holds()
            if found if isinstance(found, bool) else await found:
                return
            await asyncio.sleep(0.02)
