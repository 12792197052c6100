"""The gateway's connection over what happens to it: links that are opened, servers that come back."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from heliostat.cli.system import SystemClock
from heliostat.gateway.hypha import connection, upkeep
from heliostat.gateway.hypha import token as tokens
from heliostat.gateway.hypha.connection import Link, Place
from heliostat.gateway.hypha.upkeep import Upkeep
from tests.hypha_server import HyphaServer, hypha_server_in, needed
from tests.integration.gateway.conftest import OWNER, until
from tests.integration.gateway.keeping import kept_up

pytestmark = [pytest.mark.integration, pytest.mark.timeout(180)]


@pytest.fixture(scope="module")
def own_server() -> Iterator[HyphaServer]:
    """A server that may be killed."""
    needed()
    with tempfile.TemporaryDirectory(prefix="hel-hypha-") as folder, hypha_server_in(Path(folder)) as server:
        yield server


async def hello(server: HyphaServer, kept: Upkeep) -> Any:
    """Call the gateway as a colleague who has just come."""
    import hypha_rpc

    config = {"server_url": server.url, "token": server.token("ada"), "logger": None, "method_timeout": 5}
    async with hypha_rpc.connect_to_server(config) as caller:
        return await (await caller.get_service(kept.service_id)).hello()


async def answers(server: HyphaServer, kept: Upkeep) -> bool:
    # While a server comes back, callers get all sorts of errors.
    try:
        return bool((await hello(server, kept))["ok"])
    except Exception:
        return False


async def test_the_link_is_opened_once_and_a_restart_needs_none(
    own_server: HyphaServer, tmp_path: Path
) -> None:
    expired = own_server.token(OWNER, exp=1000)
    async with kept_up(own_server, tmp_path, {"T": expired}) as (kept, browser):
        await until("the gateway to be connected", lambda: kept.is_connected)
        assert (await hello(own_server, kept))["ok"]
        first = kept.service_id
    assert browser.pages == 1
    assert (tmp_path / "token").stat().st_mode & 0o777 == 0o600
    async with kept_up(own_server, tmp_path, {}) as (kept, browser):
        await until("the gateway to be connected", lambda: kept.is_connected)
        assert (kept.service_id, browser.pages) == (first, 0)


async def test_a_token_is_renewed_at_a_real_server(
    own_server: HyphaServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upkeep, "ECHO_EVERY_S", 0.1)
    clock = SystemClock()
    # Beyond half of its life.
    old = own_server.token(OWNER, iat=clock.now_s() - 3000, exp=clock.now_s() + 1000)
    async with kept_up(own_server, tmp_path, {"T": old}):
        await until("the new token to be kept", (tmp_path / "token").exists)
    text = tokens.read(tmp_path / "token")
    assert text is not None
    new = tokens.parse(text.strip(), "the file")
    assert new.expires_at_s is not None
    assert new.expires_at_s - clock.now_s() > 3900
    async with kept_up(own_server, tmp_path, {}) as (kept, browser):
        await until("the gateway to be connected with it", lambda: kept.is_connected)
        assert browser.pages == 0


async def test_trap_5_a_server_that_comes_back_with_another_secret_finds_us_again(
    own_server: HyphaServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The client would hang on its old connection for ever; a silent one is built anew, with a new link."""
    monkeypatch.setattr(upkeep, "ECHO_EVERY_S", 0.5)
    monkeypatch.setattr(upkeep, "ECHO_TIMEOUT_S", 1.0)
    async with kept_up(own_server, tmp_path, {"T": own_server.token(OWNER)}) as (kept, browser):
        await until("the gateway to be connected", lambda: kept.is_connected)
        own_server.kill()
        # Its client is at it all the while, and has no line to cut.
        await until("it to be given up", lambda: "trying again" in str(kept.problem))
        own_server.secret = own_server.secret[::-1]
        await asyncio.to_thread(own_server.start)
        await until("callers to be answered", lambda: answers(own_server, kept))
        assert browser.pages == 1


@pytest.mark.nightly
async def test_a_server_that_comes_back_as_it_was_needs_nobody(
    own_server: HyphaServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upkeep, "ECHO_EVERY_S", 0.5)
    async with kept_up(own_server, tmp_path, {"T": own_server.token(OWNER)}) as (kept, browser):
        await until("the gateway to be connected", lambda: kept.is_connected)
        own_server.kill()
        await asyncio.to_thread(own_server.start)
        await until("callers to be answered", lambda: answers(own_server, kept))
        assert browser.pages == 0


async def test_a_link_that_nobody_opens_lapses(hypha: HyphaServer) -> None:
    shown: list[Link] = []

    async def show(link: Link) -> None:
        shown.append(link)

    with pytest.raises(connection.HyphaError):
        await connection.sign_in(replace(Place(hypha.url, "x"), workspace=None), show, timeout_s=1.0)
    assert len(shown) == 1
