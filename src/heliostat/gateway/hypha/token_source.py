"""Where a gateway's tokens come from: the places where they are kept, or somebody who opens a link.

Both are looked at together: whoever puts a token where it is kept, while a link is shown, need not sign in.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from heliostat.gateway.hypha import token as tokens
from heliostat.gateway.hypha.clock import Time
from heliostat.gateway.hypha.token import Token, TokenFileError

LOOK_FOR_TOKEN_S = 5.0
"""How often it is looked, while links are shown, whether somebody has put a token where they are kept."""


@dataclass(frozen=True)
class Places:
    """Where tokens are kept: a variable of `environ`, then a file that nobody else may read."""

    environ: Mapping[str, str]
    variable: str
    path: Path


class TokenSource:
    """`sign_in` shows links until somebody signs in; `tell` hears what is wrong with what is kept.

    `refused` are the tokens that the server does not take: they are not found any more.
    """

    def __init__(
        self,
        places: Places,
        sign_in: Callable[[], Awaitable[str]],
        *,
        time: Time,
        tell: Callable[[str], None],
    ) -> None:
        self._places, self._sign_in, self._time, self._tell = places, sign_in, time, tell
        self.refused: set[str] = set()

    def found(self) -> Token | None:
        """Return the best token that is kept and holds; raises `TokenFileError`."""
        places = self._places
        found = tokens.find(places.environ, places.variable, places.path, now_s=self._time.now_s())
        for words in found.refusals:
            self._tell(words)
        return next((one for one in found.tokens if one.text not in self.refused), None)

    async def awaited(self, keep: Callable[[str], Token], *, appeared: Callable[[str], None]) -> Token:
        """Wait until somebody signs in, whose token `keep` takes, or puts one where they are kept.

        `appeared` hears where the latter was found. Raises `NobodySignedIn`, and what `keep` does.
        """
        signing = asyncio.ensure_future(self._sign_in())
        appearing = asyncio.ensure_future(self._appearing())
        try:
            await asyncio.wait({signing, appearing}, return_when=asyncio.FIRST_COMPLETED)
            if signing.done():
                return keep(signing.result())
            found = appearing.result()
        finally:
            for task in (signing, appearing):
                task.cancel()
            await asyncio.gather(signing, appearing, return_exceptions=True)
        appeared(found.source)
        return found

    def keep(self, text: str) -> Token:
        """Write a token to its file; raises `TokenFileError`."""
        tokens.keep(self._places.path, text)
        return self.of_file(text)

    def of_file(self, text: str) -> Token:
        return tokens.parse(text, f"the file {self._places.path}")

    async def _appearing(self) -> Token:
        while True:
            await self._time.sleep(LOOK_FOR_TOKEN_S)
            try:
                found = self.found()
            except TokenFileError as error:
                # It may be half written, or not yet of its mode; and there is the link.
                self._tell(str(error))
                continue
            if found is not None:
                return found
