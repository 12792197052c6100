"""The owner's way to a running gateway: HTTP and JSON over a unix socket that only they can open.

Who calls, what it is doing, and making it refuse somebody at once. Callers have no way here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Protocol

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from heliostat.api import wire
from heliostat.gateway.rules.gate import Gate
from heliostat.gateway.rules.revoked import id_in
from heliostat.ports.errors import HeliostatError

BODY_BYTES_MAX = 64 * 1024
ANSWER_TIMEOUT_S = 30.0


class Server(Protocol):
    """The Hypha side, as the owner sees it."""

    def facts(self) -> Mapping[str, Any]:
        """Return plain values: `connected`, `server_url`, `workspace`, `service`, `token_expires_at_s`, …"""
        ...

    async def revoke_token(self, token: str | None) -> None:
        """Make the server refuse a token, None is the gateway's own. Raises HeliostatError."""
        ...


@dataclass(frozen=True)
class Desk:
    """What the owner may ask of a running gateway. `about` is what does not change: cluster, file, pid, …"""

    gate: Gate
    server: Server
    about: Mapping[str, Any]

    def status(self) -> dict[str, Any]:
        """Return what runs, who is shut out, and how the gateway stands to its server."""
        gate = self.gate
        return {
            **self.about,
            "now_s": gate.now_s(),
            "connection": dict(self.server.facts()),
            "calls": [one.facts() for one in gate.register.in_flight()],
            "lately": [one.facts() for one in gate.register.lately()],
            "revoked": [asdict(one) for one in gate.revocations.all()],
            "audit_is_behind": gate.audit.is_behind,
        }

    def revoke(self, who: str) -> dict[str, Any]:
        """Shut somebody out, by e-mail address or id; return how many calls that has ended."""
        return {"who": who, "ended": self.gate.shut_out(who)}

    async def revoke_token(self, token: str | None) -> dict[str, Any]:
        """Make the server refuse a token. A caller's (None is the gateway's own) is shut out here as well.

        A connection that was made with it goes on at the server, so what counts for it is what is done here.
        """
        if token is None:
            await self.server.revoke_token(None)
            self.gate.write("own_token_revoked")
            return {"who": None, "ended": 0, "at_server": ""}
        answer = self.revoke(id_in(token))
        try:
            await self.server.revoke_token(token)
        except HeliostatError as error:
            return {**answer, "at_server": str(error)}
        return {**answer, "at_server": ""}

    def let_back(self, who: str) -> dict[str, Any]:
        return {"who": who, "was_revoked": self.gate.let_back(who)}


def create_app(desk: Desk) -> Starlette:
    """Return the ASGI app over `desk`, for `api.server.serve`. Every answer is a JSON object."""

    async def status(_: Request) -> Response:
        return _json(desk.status())

    async def revoke(request: Request) -> Response:
        body = await _body(request)
        if "who" in body:
            return _json(desk.revoke(_text(body, "who")))
        token = None if body.get("own") is True else _text(body, "token")
        return await _answer(desk.revoke_token(token))

    async def let_back(request: Request) -> Response:
        return _json(desk.let_back(_text(await _body(request), "who")))

    posts = {"/revoke": revoke, "/let-back": let_back}
    routes = [Route("/status", status, methods=["GET"])]
    routes += [Route(path, one, methods=["POST"]) for path, one in posts.items()]
    return Starlette(routes=routes, exception_handlers=_HANDLERS)


async def _answer(operation: Awaitable[object]) -> Response:
    async with asyncio.timeout(ANSWER_TIMEOUT_S):
        return _json(await operation)


def _json(value: object, *, status: int = 200) -> Response:
    return Response(wire.dumps(value), status_code=status, media_type="application/json")


async def _body(request: Request) -> dict[str, Any]:
    received = bytearray()
    async for chunk in request.stream():
        received += chunk
        if len(received) > BODY_BYTES_MAX:
            raise HTTPException(413, f"the request is over {BODY_BYTES_MAX} bytes")
    return wire.loads(bytes(received))


def _text(body: Mapping[str, Any], key: str) -> str:
    value = body.get(key)
    if not isinstance(value, str) or not value.strip():
        raise HTTPException(400, f"{key} is missing: text is expected")
    return value.strip()


async def _failed(_: Request, error: Exception) -> Response:
    return _json({"error": str(error)}, status=409)


async def _too_slow(_: Request, __: Exception) -> Response:
    return _json({"error": f"the Hypha server did not answer within {ANSWER_TIMEOUT_S:g} s"}, status=504)


async def _http_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return _json({"error": str(error.detail)}, status=error.status_code)


_HANDLERS: Mapping[Any, Callable[[Request, Exception], Awaitable[Response]]] = {
    HeliostatError: _failed,
    TimeoutError: _too_slow,
    HTTPException: _http_error,
}
