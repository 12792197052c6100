"""Signing in by a link: shown with a QR code, waited for with a countdown.

Whoever opens the link signs in in their own browser; the token comes back through the server. It is never
shown.
"""

from __future__ import annotations

import asyncio
import io
from collections.abc import Awaitable, Callable
from typing import Any, Protocol, TextIO

from heliostat.gateway.hypha.connection import Link
from heliostat.gateway.hypha.problems import HyphaError, NobodySignedIn, NotReached

LINK_S = 180.0
"""So long the server keeps a link."""

LINKS_MAX = 480
"""Links that are shown one after the other: a day. A server that has forgotten us at night finds us there."""

TICK_S = 1.0
PLAIN_TICK_S = 60.0
"""How often the countdown is told on a terminal, and where each tick is a line of a log."""

RETRY_S = 5.0

SignIn = Callable[[Callable[[Link], Awaitable[None]], float], Awaitable[str]]
"""Shows a link and returns the token, within so many seconds: `connection.sign_in` for a place."""


class Display(Protocol):
    """Where the link is shown."""

    def link(self, url: str, within_s: float) -> None: ...

    def remaining(self, seconds: float) -> None: ...

    def done(self, words: str) -> None: ...


class TextDisplay:
    """A link on a stream; on a terminal with a QR code and a countdown that runs."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._is_terminal = stream.isatty()
        self._last_s: float | None = None

    def link(self, url: str, within_s: float) -> None:
        self._last_s = None
        code = qr_code(url) if self._is_terminal else ""
        self._write(f"Sign in to Hypha within {_clock(within_s)}:\n\n  {url}\n{code}\n")

    def remaining(self, seconds: float) -> None:
        if self._is_terminal:
            self._write(f"\r\033[Kwaiting for you to sign in: {_clock(seconds)} ")
        elif self._last_s is None or self._last_s - seconds >= PLAIN_TICK_S:
            self._last_s = seconds
            self._write(f"waiting for somebody to sign in: {_clock(seconds)}\n")

    def done(self, words: str) -> None:
        self._write(f"\r\033[K{words}\n" if self._is_terminal else f"{words}\n")

    def _write(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()


async def token_by_link(sign_in: SignIn, display: Display) -> str:
    """Show links until somebody signs in; raises `NobodySignedIn`."""
    for _ in range(LINKS_MAX):
        try:
            token = await _with_countdown(sign_in, display)
        except NotReached as error:
            display.done(f"{error}; trying again")
            await asyncio.sleep(RETRY_S)
        except HyphaError as error:
            # The server's own word for a link that lapsed is a plain error, as for any other.
            display.done(f"nobody signed in ({error}); here is a new link")
        else:
            display.done("signed in")
            return token
    raise NobodySignedIn(f"nobody signed in: {LINKS_MAX} links have lapsed")


async def _with_countdown(sign_in: SignIn, display: Display) -> str:
    countdown: list[asyncio.Task[None]] = []

    async def show(link: Link) -> None:
        display.link(link.url, LINK_S)
        countdown.append(asyncio.create_task(_count(display)))

    try:
        return await sign_in(show, LINK_S)
    finally:
        for task in countdown:
            task.cancel()
        await asyncio.gather(*countdown, return_exceptions=True)


async def _count(display: Display) -> None:
    loop = asyncio.get_running_loop()
    end_s = loop.time() + LINK_S
    while (left_s := end_s - loop.time()) > 0:
        display.remaining(left_s)
        await asyncio.sleep(TICK_S)


def qr_code(url: str) -> str:
    """Return a QR code for a terminal, in half blocks; empty where the package for it is missing."""
    try:
        import segno
    except ModuleNotFoundError:
        return ""
    drawn: Any = io.StringIO()
    segno.make(url, micro=False, error="l").terminal(drawn, compact=True, border=2)
    return f"\n{drawn.getvalue()}"


def _clock(seconds: float) -> str:
    whole = max(0, round(seconds))
    return f"{whole // 60}:{whole % 60:02d}"
