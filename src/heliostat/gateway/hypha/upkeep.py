"""Keeps the gateway reachable: a connection with its service registered, and a token that holds.

The client reconnects by itself after a short break, and calls in flight survive that. What it does not
notice is looked for here: a connection on which the server no longer answers, or a service that it no longer
knows. A silent line is cut, so that the client does reconnect; where that does not help a new connection is
made from nothing, and whoever waits for an answer over the old one sees its own client's deadline.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import structlog

from heliostat.gateway.hypha import token as tokens
from heliostat.gateway.hypha.clock import Time
from heliostat.gateway.hypha.presence import Presence
from heliostat.gateway.hypha.problems import HyphaError, NameTaken, NotInstalled, NotReached, SignInNeeded
from heliostat.gateway.hypha.token import Token, TokenFileError
from heliostat.gateway.hypha.token_source import Places, TokenSource

log = structlog.get_logger(__name__)

ECHO_EVERY_S = 5.0
ECHO_TIMEOUT_S = 5.0
MISSES_MAX = 2
"""Echoes in a row without an answer, after which a line is cut; as many more, and it is given up."""

LATE_MAX = 12
"""Echoes in a row that may be late while other messages come: large ones before them take their time on a
slow line. Beyond it, two minutes, a piece of such a message would be late, too."""

LOOK_EVERY = 6
"""At each so many echoes it is looked whether callers can still find the service."""

RETRY_MIN_S = 0.5
RETRY_MAX_S = 10.0
NAME_TAKEN_S = 60.0
"""The server takes so long at most to see that a client of our name has died."""

LIFETIME_S = 86_400.0
LIFETIME_MIN_S = 3600.0
"""For a new token when the old one does not say how long it holds, or holds for minutes only."""

RENEW_RETRY_S = 60.0


class Live(Protocol):
    """What is needed of `connection.Connection`."""

    @property
    def user(self) -> str: ...

    @property
    def workspace(self) -> str: ...

    @property
    def heard(self) -> int: ...

    async def register(self, service: Mapping[str, Any]) -> str: ...

    async def echo(self, timeout_s: float) -> None: ...

    def cut(self) -> None: ...

    async def has_service(self, full_id: str) -> bool: ...

    async def presence(self, peer: str) -> Presence: ...

    async def new_token(self, lifetime_s: float) -> str: ...

    async def revoke(self, token: str) -> None: ...

    async def aclose(self) -> None: ...


@dataclass(frozen=True)
class Means:
    """How to connect with a token and to have somebody sign in, what the service is, where tokens are."""

    connect: Callable[[str], Awaitable[Live]]
    sign_in: Callable[[], Awaitable[str]]
    service: Callable[[], Mapping[str, Any]]
    environ: Mapping[str, str]
    variable: str
    token_path: Path


class Upkeep:
    """The gateway's one connection, over all its lives. `service_id` is its full id once it is registered."""

    def __init__(self, means: Means, time: Time) -> None:
        self._means, self._time = means, time
        places = Places(means.environ, means.variable, means.token_path)
        self._source = TokenSource(places, means.sign_in, time=time, tell=self._tell)
        self._token: Token | None = None
        self._former: list[Token] = []
        self._made: set[str] = set()
        self._is_given_up = False
        self._live: Live | None = None
        self._renew_after_s = float("-inf")
        self.service_id: str | None = None
        self.problem: str | None = None

    async def run(self) -> None:
        """Stay connected until cancelled.

        Raises `NobodySignedIn`, `NameTaken`, `NotInstalled` or `TokenFileError`: what only a person can mend.
        """
        try:
            while True:
                live = self._live = await self._connected()
                try:
                    await self._stay(live)
                finally:
                    self._live = None
                    await live.aclose()
        finally:
            self.problem = "ended"

    @property
    def is_connected(self) -> bool:
        return self._live is not None and self.problem is None

    @property
    def token(self) -> str | None:
        """Return the token in use, a secret; None before there is one."""
        return None if self._token is None else self._token.text

    @property
    def token_expires_at_s(self) -> float | None:
        """Return Unix time; None where the token does not say."""
        return None if self._token is None else self._token.expires_at_s

    async def presence(self, peer: str) -> Presence:
        """Look whether a client is connected; without a connection of ours nobody is found missing."""
        if self._live is None or self.problem is not None:
            return Presence.THERE
        return await self._live.presence(peer)

    async def revoke(self, token: str) -> None:
        """Have the server refuse a token; raises `HyphaError`."""
        live = self._connection()
        if token == self.token:
            await self.revoke_own()
        else:
            await live.revoke(token)

    async def revoke_own(self) -> None:
        """Have the server refuse the token in use and those that it has replaced; raises `HyphaError`.

        The connection stays, and is no source of new tokens any more: the next one needs a sign-in.
        """
        live = self._connection()
        if self._token is None:
            raise HyphaError("the gateway has no token yet")
        self._is_given_up = True
        for one in [*self._former, self._token]:
            if one.text not in self._source.refused and one.holds(self._time.now_s()):
                await live.revoke(one.text)
                self._source.refused.add(one.text)

    def _connection(self) -> Live:
        if self._live is None:
            raise HyphaError("the gateway is not connected to its Hypha server")
        return self._live

    async def _connected(self) -> Live:
        retry_s, taken_s = RETRY_MIN_S, None
        while True:
            token = await self._current_token()
            try:
                live = await self._begin(token)
            except SignInNeeded as error:
                self._tell(f"the token from {token.source} can't be used: {error}")
                self._source.refused.add(token.text)
                self._token = None
                continue
            except NameTaken as error:
                taken_s = self._time.monotonic_s() if taken_s is None else taken_s
                if self._time.monotonic_s() - taken_s > NAME_TAKEN_S:
                    raise
                self._tell(f"{error}; waiting for it to go")
            except NotInstalled:
                raise
            except HyphaError as error:
                taken_s = None
                self._tell(f"{error}; trying again")
            else:
                self.problem = None
                log.info(
                    "gateway_connected", workspace=live.workspace, user=live.user, service=self.service_id
                )
                return live
            await self._time.sleep(retry_s)
            retry_s = min(2 * retry_s, RETRY_MAX_S)

    async def _begin(self, token: Token) -> Live:
        live = await self._means.connect(token.text)
        try:
            self.service_id = await live.register(self._means.service())
        except BaseException:
            await live.aclose()
            raise
        return live

    async def _stay(self, live: Live) -> None:
        """Return once the connection is of no use any more."""
        misses = late = echoes = 0
        while misses < 2 * MISSES_MAX:
            await self._time.sleep(ECHO_EVERY_S)
            echoes += 1
            heard = live.heard
            try:
                await live.echo(ECHO_TIMEOUT_S)
                if echoes % LOOK_EVERY == 0 and not await live.has_service(str(self.service_id)):
                    self._tell("the Hypha server no longer knows the service")
                    return
            except HyphaError as error:
                # An error that the server has sent is heard, too, and no answer that is late.
                is_late = isinstance(error, NotReached) and live.heard > heard
                late = late + 1 if is_late else 0
                if 0 < late <= LATE_MAX:
                    continue
                misses += 1
                self._tell(f"{error} ({misses} of {2 * MISSES_MAX})")
                if misses == MISSES_MAX:
                    live.cut()
                continue
            misses = late = 0
            self.problem = None
            await self._renew(live)

    async def _renew(self, live: Live) -> None:
        token = self._token
        renew_at_s = None if token is None else token.renew_at_s()
        now_s = self._time.now_s()
        if token is None or renew_at_s is None or now_s < max(renew_at_s, self._renew_after_s):
            return
        if self._is_given_up:
            return
        try:
            text = await live.new_token(max(token.lifetime_s or LIFETIME_S, LIFETIME_MIN_S))
        except HyphaError as error:
            self._renew_after_s = now_s + RENEW_RETRY_S
            self._tell(f"the token can't be renewed: {error}")
            return
        if self._is_given_up:
            # The owner has revoked ours meanwhile: this one must not be left over.
            await self._retire(live, tokens.parse(text, token.source))
            return
        self._former.append(token)
        self._token = self._kept(text)
        self._made.add(text)
        log.info("gateway_token_renewed", expires_at_s=self._token.expires_at_s)
        if token.text in self._made:
            # It was made here and is nobody else's. What was given to the gateway may be in use elsewhere.
            await self._retire(live, token)

    async def _retire(self, live: Live, token: Token) -> None:
        try:
            await live.revoke(token.text)
        except HyphaError as error:
            log.warning("gateway_connection", problem=f"the former token can't be revoked: {error}")
        else:
            self._source.refused.add(token.text)

    async def _current_token(self) -> Token:
        """Return a token that holds: ours, the variable's, the file's, or that of who signs in now."""
        token = self._token
        if token is None or token.text in self._source.refused or not token.holds(self._time.now_s()):
            token = self._token = self._source.found() or await self._awaited()
            self._is_given_up = False
        return token

    async def _awaited(self) -> Token:
        def appeared(source: str) -> None:
            log.info("gateway_token_found", source=source)

        return await self._source.awaited(self._kept, appeared=appeared)

    def _kept(self, text: str) -> Token:
        try:
            return self._source.keep(text)
        except TokenFileError as error:
            # It holds all the same; only the next start needs a link.
            self._tell(str(error))
            return self._source.of_file(text)

    def _tell(self, words: str) -> None:
        # Once for each new problem: a server that is away for a day is one line.
        if words != self.problem:
            log.warning("gateway_connection", problem=words)
        self.problem = words
