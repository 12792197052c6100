"""A gateway that is kept up at a real server, and who opens its links."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from heliostat.cli.system import SystemClock
from heliostat.gateway.hypha import connection, sign_in
from heliostat.gateway.hypha.connection import Place
from heliostat.gateway.hypha.upkeep import Means, Upkeep
from tests.gateway_browser import open_link
from tests.gateway_parts import Gateway, RulesByName, WorkOnCall, gateway
from tests.hypha_server import HyphaServer
from tests.integration.gateway.conftest import OWNER, RIGHTS, WORKSPACE


@dataclass
class Browser:
    """Opens the link as a person would, and signs in as the owner. It is the display as well."""

    server: HyphaServer
    pages: int = 0

    def link(self, url: str, within_s: float) -> None:
        asyncio.get_running_loop().run_in_executor(None, self.open, url)

    def remaining(self, seconds: float) -> None: ...

    def done(self, words: str) -> None: ...

    def open(self, url: str) -> None:
        open_link(url, self.server, OWNER)
        self.pages += 1


@asynccontextmanager
async def kept_up(
    server: HyphaServer, folder: Path, environ: Mapping[str, str], *, parts: Gateway | None = None
) -> AsyncIterator[tuple[Upkeep, Browser]]:
    parts = parts or gateway(folder, RulesByName(RIGHTS), WorkOnCall(lambda script: script.text))
    place, browser = Place(server.url, "heliostat-kept", WORKSPACE), Browser(server)

    async def by_link() -> str:
        async def link(show: Any, within_s: float) -> str:
            return await connection.sign_in(place, show, timeout_s=within_s)

        return await sign_in.token_by_link(link, browser)

    means = Means(
        connect=lambda token: connection.connect(place, token),
        sign_in=by_link,
        service=lambda: parts.services.definition("heliostat"),
        environ=environ,
        variable="T",
        token_path=folder / "token",
    )
    kept = Upkeep(means, SystemClock())
    task = asyncio.create_task(kept.run())
    try:
        yield kept, browser
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
