"""What the gateway makes of its Hypha client: its errors in our words, and its manners in our process."""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys

import pytest

from heliostat.gateway.hypha import connection
from heliostat.gateway.hypha.connection import Place
from heliostat.gateway.hypha.problems import HyphaError, NameTaken, NotInstalled, NotReached, SignInNeeded

PLACE = Place("http://127.0.0.1:1", "heliostat")


@pytest.mark.parametrize(
    ("error", "kind", "words"),
    [
        (
            ConnectionAbortedError("Authentication error: The token has expired"),
            SignInNeeded,
            "it has expired",
        ),
        (
            ConnectionAbortedError("Failed: Client already exists and is active: w/c"),
            NameTaken,
            "already exists",
        ),
        (ConnectionAbortedError("Authentication error: something new"), SignInNeeded, "something new"),
        (ConnectionAbortedError("Failed: Token has been revoked"), SignInNeeded, "it was revoked"),
        (ConnectionAbortedError("Failed: Client id mismatch: x"), SignInNeeded, "a client of another name"),
        (ConnectionAbortedError("Server busy, please retry"), NotReached, "no connection now: Server busy"),
        (ConnectionAbortedError("Connection limit exceeded: user u has 9/9"), NotReached, "limit exceeded"),
        (
            ConnectionAbortedError("Authentication error: <urlopen error timed out>"),
            NotReached,
            "takes no connection now",
        ),
        (ConnectionAbortedError("Failed to establish connection: redis"), NotReached, "redis"),
        (ConnectionRefusedError("Connect call failed"), NotReached, "can't be reached: Connect call failed"),
        (TimeoutError(), NotReached, "does not answer in time"),
        (Exception("RemoteError:No such thing\nTraceback …"), HyphaError, "says: No such thing$"),
        (AssertionError(), HyphaError, "says: AssertionError"),
    ],
)
def test_the_clients_errors_are_told_in_a_sentence(
    error: Exception, kind: type[HyphaError], words: str
) -> None:
    with pytest.raises(HyphaError, match=words) as told, connection._translated():
        raise error
    assert type(told.value) is kind
    assert told.value.__cause__ is error


def test_what_is_ours_already_and_what_is_no_error_passes() -> None:
    for error in (NameTaken("x"), asyncio.CancelledError(), KeyboardInterrupt()):
        with pytest.raises(type(error)) as passed, connection._translated():
            raise error
        assert passed.value is error


async def test_a_server_that_is_not_there_is_a_sentence() -> None:
    with pytest.raises(NotReached, match="the Hypha server can't be reached"):
        await connection.connect(PLACE, "token")


async def test_no_token_is_ever_in_an_address() -> None:
    """At a proxy that forbids everything: the client's second try would show the token to its log."""
    seen: list[bytes] = []

    async def forbid(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(forbid, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(NotReached, match=r"refuses the connection \(403\)"):
            await connection.connect(Place(f"http://127.0.0.1:{port}", "heliostat"), "secret-token")
    assert len(seen) == 1
    assert b"secret-token" not in seen[0]


async def test_without_the_client_it_is_said_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "hypha_rpc", None)
    with pytest.raises(NotInstalled, match=r"pip install 'heliostat\[hypha\]'"):
        await connection.connect(PLACE, "token")


def test_the_client_takes_over_neither_logging_nor_the_loops_errors() -> None:
    """In a Python of its own: the client does it once, when it is imported."""
    code = """
import asyncio, logging
from heliostat.gateway.hypha import connection
from heliostat.gateway.hypha.problems import NotReached
async def main():
    mine = lambda loop, context: None
    asyncio.get_running_loop().set_exception_handler(mine)
    try:
        await connection.connect(connection.Place("http://127.0.0.1:1", "x"), "secret-token")
    except NotReached:
        pass
    assert asyncio.get_running_loop().get_exception_handler() is mine
asyncio.run(main())
print(logging.getLogger().handlers, logging.getLogger().level)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=50
    )
    assert (done.stdout, done.stderr) == (f"[] {logging.WARNING}\n", "")
