"""Signing in for a gateway that begins later: by a link, or by a token that is put into its file."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from heliostat.gateway.app import Alone, sign_in_first
from heliostat.gateway.hypha import connection
from heliostat.gateway.hypha import token as tokens
from heliostat.gateway.hypha.connection import Link
from heliostat.gateway.hypha.sign_in import TextDisplay
from heliostat.model.gateway import GatewaySettings
from tests.hypha_server import signed

NOW_S = 1_000_000.0
EXPIRED = signed("secret", {"iat": NOW_S - 200, "exp": NOW_S - 100})

Step = Callable[[], object]


class Steps:
    """A time in which something happens at each sleep, and nothing any more once all of it has."""

    def __init__(self, steps: Iterable[Step]) -> None:
        self._steps = iter(steps)

    def now_s(self) -> float:
        return NOW_S

    def monotonic_s(self) -> float:
        return 0.0

    async def sleep(self, seconds: float) -> None:
        step = next(self._steps, None)
        if step is None:
            await asyncio.Event().wait()
        else:
            await asyncio.sleep(0)
            step()


class Browser:
    """Whoever opens the link; `token` is theirs once they have signed in."""

    token = ""

    async def sign_in(self, _: Any, show: Callable[[Link], Awaitable[None]], *, timeout_s: float) -> str:
        await show(Link("http://h/login"))
        while not self.token:
            await asyncio.sleep(0)
        return self.token


@pytest.fixture
def browser(monkeypatch: pytest.MonkeyPatch) -> Browser:
    made = Browser()
    monkeypatch.setattr(connection, "sign_in", made.sign_in)
    return made


async def signed_in(folder: Path, *steps: Step, token: str = "") -> str:
    """Return what was shown until there was a token."""
    shown = io.StringIO()
    settings, alone = GatewaySettings("http://h"), Alone(Steps(steps), TextDisplay(shown))
    environ = {"HYPHA_TOKEN": token}
    await asyncio.wait_for(sign_in_first(settings, folder, client_id="c", environ=environ, shown=alone), 10)
    return shown.getvalue()


async def test_a_token_that_holds_needs_no_link(tmp_path: Path, browser: Browser) -> None:
    assert await signed_in(tmp_path, token="opaque") == ""


async def test_whoever_opens_the_link_gives_the_token(tmp_path: Path, browser: Browser) -> None:
    shown = await signed_in(tmp_path, lambda: setattr(browser, "token", "theirs"), token=EXPIRED)
    assert tokens.read(tmp_path / "token") == "theirs\n"
    assert "http://h/login" in shown
    assert shown.endswith("signed in\n")


async def test_a_token_that_is_put_into_the_file_meanwhile_is_taken(tmp_path: Path, browser: Browser) -> None:
    path = tmp_path / "token"

    def half() -> None:
        # Others can read it, which is said once.
        path.write_text("secret")
        path.chmod(0o644)

    shown = await signed_in(tmp_path, half, lambda: None, lambda: tokens.keep(path, "put there"))
    assert tokens.read(path) == "put there\n"
    assert shown.count("others can read the token file") == 1
    assert shown.endswith(f"signed in by the file {path}\n")
    assert "secret" not in shown
    assert "put there" not in shown
