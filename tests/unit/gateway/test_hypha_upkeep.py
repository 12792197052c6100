"""Staying connected: on a virtual clock, with a server that fails in every way that is known."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from heliostat.gateway.hypha import token as tokens
from heliostat.gateway.hypha import upkeep as module
from heliostat.gateway.hypha.presence import Presence
from heliostat.gateway.hypha.problems import HyphaError, NameTaken, NotReached, SignInNeeded
from heliostat.gateway.hypha.upkeep import Means, Upkeep
from tests.hypha_server import signed

DAY_S = 86_400.0


class Over(Exception):
    """The time of a test is over."""


@dataclass
class VirtualTime:
    end_s: float
    time_s: float = 0.0

    def now_s(self) -> float:
        return 1_000_000.0 + self.time_s

    def monotonic_s(self) -> float:
        return self.time_s

    async def sleep(self, seconds: float) -> None:
        self.time_s += seconds
        await asyncio.sleep(0)
        if self.time_s >= self.end_s:
            raise Over


@dataclass
class Server:
    """What happens at it.

    While it is `away` nobody gets through; one that `is_new` afterwards knows no client of before. While it
    is `busy` echoes are late, and other messages come.
    """

    time: VirtualTime
    away: list[tuple[float, float]] = field(default_factory=list)
    taken_until_s: float = 0.0
    refused: set[str] = field(default_factory=set)
    forgotten_s: float = float("inf")
    is_new: bool = False
    busy: list[tuple[float, float]] = field(default_factory=list)
    log: list[str] = field(default_factory=list)

    async def connect(self, token: str) -> Line:
        if self.is_away():
            raise NotReached("away")
        if token in self.refused:
            self.log.append("refused")
            raise SignInNeeded("it was revoked")
        if self.time.time_s < self.taken_until_s:
            raise NameTaken("taken")
        self.log.append(f"connected at {self.time.time_s:.0f}")
        return Line(self, self.time.time_s)

    def is_away(self) -> bool:
        return any(begin <= self.time.time_s < end for begin, end in self.away)


@dataclass
class Line:
    server: Server
    begun_s: float
    user: str = "owner"
    workspace: str = "w"
    heard: int = 0

    async def register(self, service: Mapping[str, Any]) -> str:
        return f"w/c:{service['id']}"

    async def echo(self, timeout_s: float) -> None:
        # A connection from before an outage stays silent for ever.
        if any(begin <= self.server.time.time_s and self.begun_s < end for begin, end in self.server.away):
            self.server.time.time_s += timeout_s
            raise NotReached("silence")
        if any(begin <= self.server.time.time_s < end for begin, end in self.server.busy):
            self.server.time.time_s += timeout_s
            self.heard += 7
            raise NotReached("not in time")

    def cut(self) -> None:
        self.server.log.append("cut")
        if not self.server.is_new and not self.server.is_away():
            self.begun_s = self.server.time.time_s

    async def has_service(self, full_id: str) -> bool:
        return self.begun_s > self.server.forgotten_s or self.server.time.time_s < self.server.forgotten_s

    async def presence(self, peer: str) -> Presence:
        return Presence.GONE

    async def new_token(self, lifetime_s: float) -> str:
        self.server.log.append(f"renewed at {self.server.time.time_s:.0f} for {lifetime_s:.0f}")
        return made(self.server.time, lifetime_s)

    async def revoke(self, token: str) -> None:
        self.server.refused.add(token)

    async def aclose(self) -> None:
        self.server.log.append("closed")


def made(time: VirtualTime, life_s: float) -> str:
    return signed("secret", {"iat": time.now_s(), "exp": time.now_s() + life_s})


async def run(
    folder: Path, server: Server, *, token: str | None = None, links: list[str] | None = None
) -> Upkeep:
    async def sign_in() -> str:
        server.log.append("link")
        return (links or []).pop(0)

    environ = {} if token is None else {"T": token}
    service = {"id": "heliostat"}
    means = Means(server.connect, sign_in, lambda: service, environ, "T", folder / "token")
    upkeep = Upkeep(means, server.time)
    with pytest.raises((Over, NameTaken)) as ended:
        await upkeep.run()
    upkeep.ended = ended.type  # type: ignore[attr-defined]
    return upkeep


def what(server: Server) -> list[str]:
    """Return what happened, without the times: these go on while somebody is asked to sign in."""
    return [line.partition(" at ")[0] for line in server.log]


async def test_all_is_well_and_nothing_happens(tmp_path: Path) -> None:
    server = Server(VirtualTime(600))
    upkeep = await run(tmp_path, server, token=made(server.time, DAY_S))
    assert server.log == ["connected at 0", "closed"]
    assert upkeep.service_id == "w/c:heliostat"


async def test_a_silent_line_is_cut_and_what_waits_over_it_stays(tmp_path: Path) -> None:
    server = Server(VirtualTime(300), away=[(50.0, 55.0)])
    upkeep = await run(tmp_path, server, token=made(server.time, DAY_S))
    assert server.log == ["connected at 0", "cut", "closed"]
    assert upkeep.problem == "ended"


async def test_a_line_that_a_large_answer_holds_up_is_let_be(tmp_path: Path) -> None:
    each_s = module.ECHO_EVERY_S + module.ECHO_TIMEOUT_S
    server = Server(VirtualTime(600), busy=[(50.0, 50.0 + (module.LATE_MAX - 1) * each_s)])
    await run(tmp_path, server, token=made(server.time, DAY_S))
    assert server.log == ["connected at 0", "closed"]


async def test_a_line_on_which_the_server_sends_errors_is_built_anew_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = Server(VirtualTime(300))

    async def echo(self: Line, timeout_s: float) -> None:
        if self.begun_s < 50 <= server.time.time_s:
            self.heard += 1
            raise HyphaError("the Hypha server says: Service not found")

    monkeypatch.setattr(Line, "echo", echo)
    monkeypatch.setattr(Line, "cut", lambda _: server.log.append("cut"))
    await run(tmp_path, server, token=made(server.time, DAY_S))
    assert what(server) == ["connected", "cut", "closed", "connected", "closed"]
    assert float(server.log[3].rpartition(" ")[2]) <= 50 + 2 * module.MISSES_MAX * module.ECHO_EVERY_S


async def test_a_line_that_answers_nothing_for_minutes_is_cut_whatever_else_comes(tmp_path: Path) -> None:
    server = Server(VirtualTime(600), busy=[(50.0, 400.0)])
    await run(tmp_path, server, token=made(server.time, DAY_S))
    assert what(server)[:3] == ["connected", "cut", "closed"]


@pytest.mark.parametrize(("until_s", "is_new"), [(55.0, True), (110.0, False)])
async def test_where_a_cut_does_not_help_the_connection_is_built_anew(
    tmp_path: Path, until_s: float, is_new: bool
) -> None:
    server = Server(VirtualTime(300), away=[(50.0, until_s)], is_new=is_new)
    await run(tmp_path, server, token=made(server.time, DAY_S))
    assert what(server) == ["connected", "cut", "closed", "connected", "closed"]
    each_s = module.ECHO_EVERY_S + module.ECHO_TIMEOUT_S
    given_up_s = 50 + 2 * module.MISSES_MAX * each_s - module.ECHO_EVERY_S
    again_s = float(server.log[3].rpartition(" ")[2])
    assert max(given_up_s, until_s) <= again_s <= max(given_up_s, until_s) + module.RETRY_MAX_S


async def test_a_service_that_the_server_has_forgotten_is_registered_anew(tmp_path: Path) -> None:
    server = Server(VirtualTime(300), forgotten_s=100.0)
    await run(tmp_path, server, token=made(server.time, DAY_S))
    assert [line.split()[0] for line in server.log] == ["connected", "closed", "connected", "closed"]


async def test_a_name_that_is_taken_is_waited_for(tmp_path: Path) -> None:
    server = Server(VirtualTime(300), taken_until_s=20.0)
    await run(tmp_path, server, token=made(server.time, DAY_S))
    assert 20 <= float(server.log[0].rpartition(" ")[2]) <= 31


async def test_a_name_that_stays_taken_is_told(tmp_path: Path) -> None:
    server = Server(VirtualTime(300), taken_until_s=1000.0)
    upkeep = await run(tmp_path, server, token=made(server.time, DAY_S))
    assert upkeep.ended is NameTaken  # type: ignore[attr-defined]
    assert server.time.time_s <= module.NAME_TAKEN_S + module.RETRY_MAX_S


async def test_no_token_or_one_that_is_refused_leads_to_the_link_and_is_kept(tmp_path: Path) -> None:
    server = Server(VirtualTime(100))
    bad, good = made(server.time, DAY_S), made(server.time, 2 * DAY_S)
    server.refused.add(bad)
    await run(tmp_path, server, token=bad, links=[good])
    assert what(server) == ["refused", "link", "connected", "closed"]
    assert tokens.read(tmp_path / "token") == f"{good}\n"

    again = Server(VirtualTime(100))
    await run(tmp_path, again)
    assert again.log == ["connected at 0", "closed"]


async def test_a_token_that_is_put_there_while_a_link_is_shown_is_taken(tmp_path: Path) -> None:
    server = Server(VirtualTime(200))
    good, path = made(server.time, DAY_S), tmp_path / "token"
    shown = asyncio.Event()

    async def sign_in() -> str:
        # Half done at first: others can read it.
        path.write_text("half")
        path.chmod(0o644)
        shown.set()
        while server.time.time_s < 50:
            await asyncio.sleep(0)
        tokens.keep(path, good)
        server.log.append("put")
        try:
            await asyncio.Event().wait()
        finally:
            server.log.append("link taken away")
        return "never"

    means = Means(server.connect, sign_in, lambda: {"id": "heliostat"}, {}, "T", path)
    upkeep = Upkeep(means, server.time)
    with pytest.raises(Over):
        await upkeep.run()
    assert what(server) == ["put", "link taken away", "connected", "closed"]
    assert upkeep.token == good


async def test_a_token_is_renewed_and_the_new_one_kept(tmp_path: Path) -> None:
    server = Server(VirtualTime(3000))
    old = made(server.time, 3600.0)
    await run(tmp_path, server, token=old)
    renewed = [line for line in server.log if line.startswith("renewed")]
    assert renewed == ["renewed at 1800 for 3600"]
    assert tokens.read(tmp_path / "token") not in (None, f"{old}\n")


async def test_a_token_that_was_made_here_is_revoked_once_it_is_replaced(tmp_path: Path) -> None:
    server = Server(VirtualTime(7000))
    given = made(server.time, 3600.0)
    await run(tmp_path, server, token=given)
    assert len([line for line in server.log if line.startswith("renewed")]) == 3
    # The one that was given to it may be in use elsewhere; of its own only the last one holds.
    assert len(server.refused) == 2
    assert given not in server.refused
    assert (tokens.read(tmp_path / "token") or "").strip() not in server.refused


@pytest.mark.parametrize("by_text", [False, True])
async def test_revoking_its_own_token_leaves_no_other_and_no_way_to_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by_text: bool
) -> None:
    server = Server(VirtualTime(12_000), away=[(9000.0, 9100.0)])
    given, again = made(server.time, 10_000.0), made(server.time, DAY_S)
    real = Line.echo

    async def echo(self: Line, timeout_s: float) -> None:
        # The owner revokes it after the first renewal.
        if server.time.time_s >= 6000 and not server.refused:
            await (upkeep.revoke(str(upkeep.token)) if by_text else upkeep.revoke_own())
        await real(self, timeout_s)

    async def sign_in() -> str:
        server.log.append("link")
        return again

    monkeypatch.setattr(Line, "echo", echo)
    means = Means(server.connect, sign_in, lambda: {"id": "h"}, {"T": given}, "T", tmp_path / "token")
    upkeep = Upkeep(means, server.time)
    with pytest.raises(Over):
        await upkeep.run()
    assert what(server) == ["connected", "renewed", "cut", "closed", "link", "connected", "closed"]
    assert given in server.refused
    assert len(server.refused) == 2
    assert upkeep.token == again


async def test_a_token_that_is_made_while_its_own_is_revoked_is_revoked_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = Server(VirtualTime(3000))
    real, given, late = Line.new_token, made(server.time, 3600.0), list[str]()

    async def slow(self: Line, lifetime_s: float) -> str:
        late.append(await real(self, lifetime_s))
        await upkeep.revoke_own()
        return late[0]

    monkeypatch.setattr(Line, "new_token", slow)

    async def sign_in() -> str:
        raise AssertionError("the connection stays")

    means = Means(server.connect, sign_in, lambda: {"id": "h"}, {"T": given}, "T", tmp_path / "token")
    upkeep = Upkeep(means, server.time)
    with pytest.raises(Over):
        await upkeep.run()
    assert server.refused == {given, *late}
    assert len(late) == 1


async def test_a_renewal_that_fails_is_tried_again_but_not_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries = []

    async def refuse(self: Line, lifetime_s: float) -> str:
        tries.append(self.server.time.time_s)
        raise HyphaError("only admins may")

    monkeypatch.setattr(Line, "new_token", refuse)
    server = Server(VirtualTime(2000))
    await run(tmp_path, server, token=made(server.time, 3600.0))
    assert tries == [1800.0, 1860.0, 1920.0, 1980.0]


async def test_a_token_that_cannot_be_kept_is_used_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, text: str) -> None:
        raise tokens.TokenFileError("the token file can't be written: no space left on device")

    monkeypatch.setattr(tokens, "keep", full)
    server = Server(VirtualTime(100))
    good = made(server.time, DAY_S)
    upkeep = await run(tmp_path, server, links=[good])
    assert what(server) == ["link", "connected", "closed"]
    assert upkeep.service_id is not None


async def test_without_a_connection_nobody_is_found_missing(tmp_path: Path) -> None:
    upkeep = await run(tmp_path, Server(VirtualTime(10)), token="opaque")
    assert await upkeep.presence("w/someone") is Presence.THERE
    assert not upkeep.is_connected
