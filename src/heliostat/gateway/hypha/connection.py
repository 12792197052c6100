"""One connection to a Hypha server. The only module that knows Hypha's client.

Every call has a deadline of ours: the client's own counts idle time only, and hangs for ever on a connection
that the server has forgotten. What the client sends in place of an error is made harmless here.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from heliostat.gateway.hypha.incoming import MESSAGE_MAX_BYTES, Incoming, TooMuch
from heliostat.gateway.hypha.presence import Presence
from heliostat.gateway.hypha.problems import HyphaError, NameTaken, NotInstalled, NotReached, SignInNeeded

CONNECT_TIMEOUT_S = 20.0
CALL_TIMEOUT_S = 15.0
PING_TIMEOUT_S = 5.0
CLOSE_TIMEOUT_S = 5.0
PIECE_TIMEOUT_S = 120.0
"""For the client's own calls, each piece of a large answer among them: a caller's line may be slow."""

TAKEN = "already exists and is active"
LOGGERS = ("websocket-client", "RPC")
"""Where the client tells what we tell ourselves, in our own words."""

NO_PEER = "is not connected"
NO_METHOD = ("Method not found", "Method expired or not found")
NO_MESSAGE = "Message with key"
"""The server's and the client's words for what can't be told by a type."""

UNREADABLE = "the gateway can't read this call: send JSON's types, bytes and NumPy arrays only"
GIVEN_UP = "the gateway has given this message up, as it came too slowly; try again"
UNKNOWN_FUNCTION = "the gateway has no such function"


@dataclass(frozen=True)
class Place:
    """Where the gateway is found: its name in a workspace of a server. `workspace` None is the token's.

    `message_max_bytes` is the longest message that is taken from anybody.
    """

    server_url: str
    client_id: str
    workspace: str | None = None
    message_max_bytes: int = MESSAGE_MAX_BYTES


@dataclass(frozen=True)
class Link:
    """What a person opens in a browser to sign in."""

    url: str


class Connection:
    """A connection that was made; `workspace` is where it is. Every method raises `HyphaError`."""

    def __init__(self, server: Any, *, message_max_bytes: int = MESSAGE_MAX_BYTES) -> None:
        self._server = server
        self.workspace = str(server.config.workspace)
        self.client_id = str(server.config.client_id)
        self.user = str(server.config.user.get("email") or server.config.user["id"])
        self.heard = 0
        _make_harmless(server, message_max_bytes)
        self._listen_in()

    def _listen_in(self) -> None:
        """Count in `heard` what comes in, of whomever."""
        line = self._server.rpc._connection
        handle = line._handle_message

        def counted(data: bytes) -> Any:
            self.heard += 1
            return handle(data)

        line.on_message(counted)

    async def register(self, service: Mapping[str, Any]) -> str:
        """Register a service, in place of one of the same id; return its full id."""
        with _translated():
            async with asyncio.timeout(CALL_TIMEOUT_S):
                info = await self._server.register_service(dict(service), {"overwrite": True})
        return str(info["id"])

    async def echo(self, timeout_s: float) -> None:
        """Return if the server answers on this connection; raises `NotReached` if it does not."""
        with _translated():
            async with asyncio.timeout(timeout_s):
                await self._server.echo("alive")

    def cut(self) -> None:
        """Cut the line. The client makes it anew by itself; what was asked over the old one stays asked.

        Where the client has noticed, and is about it, there is nothing to cut.
        """
        # There is no public way; and a server that has fallen silent answers no goodbye.
        transport = getattr(self._server.rpc._connection._websocket, "transport", None)
        if transport is not None:
            transport.abort()

    async def has_service(self, full_id: str) -> bool:
        """Say whether callers can find a service of ours."""
        try:
            with _translated():
                async with asyncio.timeout(CALL_TIMEOUT_S):
                    await self._server.get_service_info(full_id)
        except NotReached:
            raise
        except HyphaError:
            return False
        return True

    async def presence(self, peer: str) -> Presence:
        """Look whether a client is connected, of whichever workspace."""
        try:
            with _translated():
                await self._server.rpc.ping(peer, PING_TIMEOUT_S)
        except HyphaError as error:
            return Presence.GONE if NO_PEER in str(error) else Presence.SILENT
        return Presence.THERE

    async def has_client(self, client_id: str) -> bool:
        """Say whether a client of this name is connected to our workspace."""
        with _translated():
            async with asyncio.timeout(CALL_TIMEOUT_S):
                listed = await self._server.list_clients()
        # The server forgets nobody at once; and it never answers for a name that it has not heard of.
        names = {str(one["id"]).rpartition("/")[2] for one in listed}
        peer = f"{self.workspace}/{client_id}"
        return client_id in names and await self.presence(peer) is Presence.THERE

    async def new_token(self, lifetime_s: float) -> str:
        """Return a token for this workspace with this connection's rights."""
        wanted = {"workspace": self.workspace, "permission": "admin", "expires_in": int(lifetime_s)}
        with _translated():
            async with asyncio.timeout(CALL_TIMEOUT_S):
                return str(await self._server.generate_token(wanted))

    async def revoke(self, token: str) -> None:
        """Make the server refuse a token from now on; connections that were made with it stay."""
        with _translated():
            async with asyncio.timeout(CALL_TIMEOUT_S):
                await self._server.revoke_token(token)

    async def aclose(self) -> None:
        """End the connection; one that is broken already is no error."""
        try:
            with _translated():
                async with asyncio.timeout(CLOSE_TIMEOUT_S):
                    await self._server.disconnect()
        except HyphaError:
            return


async def connect(place: Place, token: str) -> Connection:
    """Connect; raises `SignInNeeded`, `NameTaken`, `NotReached` or `NotInstalled`.

    The name is looked up first: the server throws out whoever has it when another comes with it, and
    only then refuses the other.
    """
    server = await _connected(place, {"token": token})
    try:
        look = Connection(server)
        taken = await look.has_client(place.client_id)
    finally:
        await look.aclose()
    if taken:
        raise NameTaken(f"another gateway is connected as {place.client_id} to {look.workspace}")
    server = await _connected(place, {"token": token, "client_id": place.client_id})
    return Connection(server, message_max_bytes=place.message_max_bytes)


async def sign_in(place: Place, show: Callable[[Link], Awaitable[None]], *, timeout_s: float) -> str:
    """Return the token of whoever opens the link in time and signs in.

    Raises `SignInNeeded` if nobody does, or `NotReached`.
    """
    client = _client()

    async def shown(context: Mapping[str, Any]) -> None:
        await show(Link(str(context["login_url"])))

    config = {"server_url": place.server_url, "login_callback": shown, "login_timeout": int(timeout_s)}
    if place.workspace is not None:
        config["workspace"] = place.workspace
    with _quiet_loop(), _translated():
        async with asyncio.timeout(timeout_s + CONNECT_TIMEOUT_S):
            return str(await client.login(config))


async def _connected(place: Place, own: Mapping[str, Any]) -> Any:
    client = _client()
    config = {"server_url": place.server_url, "method_timeout": PIECE_TIMEOUT_S, "logger": None, **own}
    if place.workspace is not None:
        config["workspace"] = place.workspace
    with _quiet_loop(), _translated():
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            return await client.connect_to_server(config)


def _client() -> Any:
    """Import Hypha's client without what it does to this process's logging."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    try:
        import hypha_rpc
    except ModuleNotFoundError as error:
        raise NotInstalled("the gateway needs Hypha's client: pip install 'heliostat[hypha]'") from error
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
    for name in LOGGERS:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    # Where a proxy says 403 the client would try once more with the token in the address, which is logged
    # everywhere on its way, and then give up all the same.
    hypha_rpc.websocket_client.WebsocketRPCConnection._attempt_connection_with_query_params = _refused
    return hypha_rpc


async def _refused(*_: object) -> None:
    raise PermissionError("the server, or a proxy before it, refuses the connection (403)")


@contextmanager
def _quiet_loop() -> Iterator[None]:
    """Keep the loop's handler of errors that nobody awaits: the client's hides all of them."""
    loop = asyncio.get_running_loop()
    handler = loop.get_exception_handler()
    try:
        yield
    finally:
        loop.set_exception_handler(handler)


@contextmanager
def _translated() -> Iterator[None]:
    """Make one of our errors of whatever the client raises."""
    try:
        yield
    except HyphaError:
        raise
    except (TimeoutError, OSError) as error:
        # A refusal is one of these, too: ConnectionAbortedError.
        raise _translation(error) from error
    except Exception as error:  # the client raises bare Exception, and whatever websockets does
        raise _translation(error) from error


def _translation(error: Exception) -> HyphaError:
    words = str(error).strip().splitlines()
    said = words[0].removeprefix("RemoteError:") if words else type(error).__name__
    if TAKEN in said:
        return NameTaken(f"the Hypha server says: {said}")
    if isinstance(error, ConnectionAbortedError):
        return _refusal(said)
    if isinstance(error, TimeoutError):
        return NotReached("the Hypha server does not answer in time")
    if isinstance(error, OSError):
        return NotReached(f"the Hypha server can't be reached: {said}")
    return HyphaError(f"the Hypha server says: {said}")


def _refusal(said: str) -> HyphaError:
    """Say whether it is the token that the server won't have: only then is another one needed.

    It says in the same way that it is busy, or has lost its own database.
    """
    for known, words in REASONS.items():
        if known in said:
            return SignInNeeded(f"the Hypha server refuses the token: {words}")
    if said.startswith(AUTHENTICATION) and NO_KEYS not in said:
        return SignInNeeded(f"the Hypha server refuses the token: {said}")
    return NotReached(f"the Hypha server takes no connection now: {said}")


AUTHENTICATION = "Authentication error"
NO_KEYS = "urlopen error"
"""What the server says of a token whose maker's keys it could not fetch."""

REASONS = {
    "has expired": "it has expired",
    "revoked": "it was revoked",
    "Signature verification failed": "its signature is wrong (made for another server, or forged)",
    "Error decoding token": "it is no token",
    "does not match the specified workspace": "it is for another workspace",
    "Client id mismatch": "it is for a client of another name",
    "Specialized token": "it is for one purpose only, and not for this",
    "Permission denied": "it gives no rights in this workspace",
}
"""The server's words for a refusal, and ours."""


def _make_harmless(server: Any, message_max_bytes: int) -> None:
    """Send no traceback, make no models of what comes, and keep no more of it than there is room for."""
    # There is no public way to bound it.
    server.rpc._object_store["message_cache"] = Incoming(time.monotonic, message_max_bytes=message_max_bytes)
    server.rpc.register_codec({"name": "error", "type": Exception, "encoder": _short_error})
    server.rpc.register_codec({"name": "pydantic_model", "decoder": _no_model})


def _short_error(error: Exception) -> dict[str, Any]:
    # Of the client's own errors only one is told: all others show paths of this host, or what came in.
    text = UNKNOWN_FUNCTION if str(error).startswith(NO_METHOD) else UNREADABLE
    if isinstance(error, KeyError) and NO_MESSAGE in str(error):
        text = GIVEN_UP
    if isinstance(error, TooMuch):
        text = str(error)
    return {"_rtype": "error", "_rvalue": text, "_rtrace": ""}


def _no_model(_: Mapping[str, Any]) -> Any:
    raise ValueError(UNREADABLE)
