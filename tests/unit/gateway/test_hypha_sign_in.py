"""Signing in by a link: what is shown, and what happens if nobody comes."""

from __future__ import annotations

import io
from collections.abc import Awaitable, Callable

import pytest

from heliostat.gateway.hypha import sign_in
from heliostat.gateway.hypha.connection import Link
from heliostat.gateway.hypha.problems import HyphaError, NobodySignedIn, NotReached

URL = "https://hypha.example/public/apps/hypha-login/?key=abc"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def links(*outcomes: str | HyphaError) -> sign_in.SignIn:
    coming = list(outcomes)

    async def show_one(show: Callable[[Link], Awaitable[None]], within_s: float) -> str:
        await show(Link(URL))
        outcome = coming.pop(0)
        if isinstance(outcome, HyphaError):
            raise outcome
        return outcome

    return show_one


@pytest.mark.parametrize(("stream", "has_code"), [(io.StringIO(), False), (Terminal(), True)])
async def test_the_link_is_shown_and_the_token_never(stream: io.StringIO, has_code: bool) -> None:
    token = await sign_in.token_by_link(links("to-ken"), sign_in.TextDisplay(stream))
    shown = stream.getvalue()
    assert token == "to-ken"
    assert f"  {URL}\n" in shown
    assert "within 3:00" in shown
    assert ("█" in shown or "▄" in shown or "▀" in shown) is has_code
    assert "to-ken" not in shown


async def test_a_link_that_lapses_is_followed_by_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sign_in, "RETRY_S", 0.0)
    stream = io.StringIO()
    outcomes = links(HyphaError("Login timeout"), NotReached("away"), "ok")
    assert await sign_in.token_by_link(outcomes, sign_in.TextDisplay(stream)) == "ok"
    assert stream.getvalue().count(URL) == 3


async def test_if_nobody_ever_comes_it_is_said() -> None:
    never = links(*[HyphaError("Login timeout")] * sign_in.LINKS_MAX)
    with pytest.raises(NobodySignedIn, match="480 links have lapsed"):
        await sign_in.token_by_link(never, sign_in.TextDisplay(io.StringIO()))


def test_the_countdown_runs_on_a_terminal_and_is_sparse_in_a_log() -> None:
    for stream, lines in ((Terminal(), 120), (io.StringIO(), 2)):
        display = sign_in.TextDisplay(stream)
        for second in range(120):
            display.remaining(180.0 - second)
        assert stream.getvalue().count("waiting for") == lines
