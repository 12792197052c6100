"""The gateway put together: people at a Hypha server, the rules, and the cluster's work behind them.

One event loop holds all of it. It begins with what can fail (the log, the owner's socket), then connects,
and ends in the order that loses nothing: no call in, those in flight out, driver, connection, log.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from heliostat.api.server import serve
from heliostat.gateway.cluster_view import ClusterView, SharedLook, Status
from heliostat.gateway.desk import Desk, create_app
from heliostat.gateway.hypha import connection, sign_in
from heliostat.gateway.hypha.clock import Time
from heliostat.gateway.hypha.connection import Place
from heliostat.gateway.hypha.incoming import MESSAGE_MAX_BYTES
from heliostat.gateway.hypha.owners import Owners
from heliostat.gateway.hypha.services import Parts, Services
from heliostat.gateway.hypha.sign_in import Display
from heliostat.gateway.hypha.streams import CallsUnderway
from heliostat.gateway.hypha.token_source import Places, TokenSource
from heliostat.gateway.hypha.upkeep import Live, Means, Upkeep
from heliostat.gateway.rules.gate import open_gate
from heliostat.gateway.work.workplace import Workplace, WorkSettings
from heliostat.model.gateway import GatewaySettings, token_variables
from heliostat.ports.errors import HeliostatError

JOBS_FILE = "jobs"
TOKEN_FILE = "token"
CLOSE_TIMEOUT_S = 10.0
"""For the driver's own end, once no call is in flight any more."""

SIGN_OFF_S = 5.0
MESSAGE_PER_PAYLOAD = 1.5
"""JSON writes bytes and arrays in base64: four thirds of them, and the rest of the message."""


@dataclass(frozen=True)
class Alone:
    """What signing in needs where there is no gateway yet: a clock, and where the link is shown."""

    time: Time
    display: Display


@dataclass(frozen=True)
class Surroundings:
    """What the process gives its gateway.

    `folder` is there and the owner's alone; `client_id` is the gateway's name at the server, the same after
    every restart. `about` is shown to callers who say hello, `facts` to the owner. `metrics_port` None: any.
    """

    folder: Path
    socket_path: Path
    client_id: str
    environ: Mapping[str, str]
    display: Display
    time: Time
    new_id: Callable[[], str]
    about: Mapping[str, Any]
    facts: Mapping[str, Any]
    metrics_port: int | None = None


class Gateway:
    """One gateway of one cluster; use `run` once."""

    def __init__(
        self, settings: GatewaySettings, around: Surroundings, *, work: WorkSettings, status: Status
    ) -> None:
        # The token is the gateway's alone: beside the driver runs what callers bring.
        work = replace(work, withheld=token_variables(settings))
        self._settings, self._around = settings, around
        self._place = place_of(settings, around.client_id)
        self.gate = open_gate(settings, around.folder, now_s=around.time.now_s)
        self._hurried = asyncio.Event()
        self._underway = CallsUnderway(around.time.monotonic_s)
        look = SharedLook(status)
        self.workplace = Workplace(work, look)
        view = ClusterView(look, has_gpu_type=any(shape.get("GPU") for shape in work.shapes.values()))
        self._services = Services(self._parts(view))
        self.upkeep = Upkeep(self._means(), around.time)

    async def run(self, stop: asyncio.Event) -> None:
        """Serve until `stop`; raises HeliostatError where nobody can be served any more.

        Either way what runs has `drain_timeout_s` to come to its end.
        """
        port = self.gate.metrics.serve(self._around.metrics_port)
        desk = Desk(self.gate, self, {**self._around.facts, "metrics_port": port})
        async with contextlib.AsyncExitStack() as stack:
            stack.callback(self.gate.close)
            await stack.enter_async_context(serve(create_app(desk), self._around.socket_path))
            self.workplace.start()
            stack.push_async_callback(self.workplace.aclose, CLOSE_TIMEOUT_S)
            kept = await stack.enter_async_context(_in_background(self.upkeep.run()))
            watching = self._underway.watch(self.upkeep.presence, sleep=self._around.time.sleep)
            watched = await stack.enter_async_context(_in_background(watching))
            stack.push_async_callback(self._drain)
            self._services.start()
            stopped = asyncio.create_task(stop.wait())
            await asyncio.wait({kept, watched, stopped}, return_when=asyncio.FIRST_COMPLETED)
            stopped.cancel()
            for task in (kept, watched):
                # Neither ends by itself: without the one nobody comes in, without the other no slot is freed.
                if task.done():
                    task.result()

    def facts(self) -> Mapping[str, Any]:
        """Return how the gateway stands to its server and to its cluster, for its owner."""
        return {
            "connected": self.upkeep.is_connected,
            "problem": self.upkeep.problem,
            "server_url": self._settings.server_url,
            "workspace": self.gate.workspace or None,
            "service": self.upkeep.service_id,
            "token_expires_at_s": self.upkeep.token_expires_at_s,
            "driver": self.workplace.connected,
            "cluster_problem": self.workplace.absence or None,
            "functions_problem": self.workplace.trouble or None,
        }

    async def revoke_token(self, token: str | None) -> None:
        """Make the server refuse a token, None is the gateway's own. Raises HeliostatError."""
        if token is None:
            await self.upkeep.revoke_own()
        else:
            await self.upkeep.revoke(token)

    def hurry(self) -> None:
        """End now what `run` still lets come to its end."""
        self._hurried.set()

    async def _drain(self) -> None:
        self.gate.is_closing = True
        draining = asyncio.create_task(self._services.aclose(self._settings.drain_timeout_s))
        hurried = asyncio.create_task(self._hurried.wait())
        await asyncio.wait({draining, hurried}, return_when=asyncio.FIRST_COMPLETED)
        hurried.cancel()
        if not draining.done():
            await self._services.aclose(0.0)
        await draining

    def _parts(self, view: ClusterView) -> Parts:
        around = self._around
        return Parts(
            work=self.workplace,
            rules=self.gate,
            cluster=view,
            underway=self._underway,
            owners=Owners(around.folder / JOBS_FILE),
            new_id=around.new_id,
            about=around.about,
        )

    def _means(self) -> Means:
        around, settings = self._around, self._settings
        return Means(
            connect=self._connect,
            sign_in=lambda: sign_in.token_by_link(asking(self._place), around.display),
            service=lambda: self._services.definition(settings.service_id),
            environ=around.environ,
            variable=settings.token_env,
            token_path=token_path(settings, around.folder),
        )

    async def _connect(self, token: str) -> Live:
        live = await connection.connect(self._place, token)
        # Before the service is there: what callers may do depends on which workspace is ours.
        self.gate.workspace = live.workspace
        return live


async def sign_in_first(
    settings: GatewaySettings, folder: Path, *, client_id: str, environ: Mapping[str, str], shown: Alone
) -> None:
    """Return once there is a token that holds, for a gateway that begins later and without a terminal.

    Raises HeliostatError where nobody signs in, or the token can't be kept.
    """
    places = Places(environ, settings.token_env, token_path(settings, folder))
    asked = asking(place_of(settings, client_id))
    source = TokenSource(
        places,
        lambda: sign_in.token_by_link(asked, shown.display),
        time=shown.time,
        tell=_once(shown.display.done),
    )

    def appeared(source: str) -> None:
        shown.display.done(f"signed in by {source}")

    if source.found() is None:
        await source.awaited(source.keep, appeared=appeared)


def token_path(settings: GatewaySettings, folder: Path) -> Path:
    """Return where a gateway that keeps its own things in `folder` keeps its token."""
    return Path(settings.token_file).expanduser() if settings.token_file else folder / TOKEN_FILE


def place_of(settings: GatewaySettings, client_id: str) -> Place:
    """Return where a gateway is found. A message holds a payload and what is around it."""
    payload = max((one.limits.payload_bytes for one in settings.allow), default=0)
    most = max(MESSAGE_MAX_BYTES, int(MESSAGE_PER_PAYLOAD * payload))
    return Place(settings.server_url, client_id, settings.workspace, message_max_bytes=most)


def asking(place: Place) -> sign_in.SignIn:
    """Return how somebody is asked to sign in at a place."""

    async def ask(show: Any, timeout_s: float) -> str:
        return await connection.sign_in(place, show, timeout_s=timeout_s)

    return ask


def _once(tell: Callable[[str], None]) -> Callable[[str], None]:
    """Return what tells the same only once: it is looked for a token again and again."""
    told: set[str] = set()

    def tell_once(words: str) -> None:
        if words not in told:
            told.add(words)
            tell(words)

    return tell_once


@contextlib.asynccontextmanager
async def _in_background(work: Any) -> AsyncIterator[asyncio.Task[None]]:
    task: asyncio.Task[None] = asyncio.create_task(work)
    try:
        yield task
    finally:
        task.cancel()
        with contextlib.suppress(TimeoutError, asyncio.CancelledError, HeliostatError):
            await asyncio.wait_for(asyncio.shield(task), SIGN_OFF_S)


__all__ = ["Alone", "Gateway", "Surroundings", "sign_in_first"]
