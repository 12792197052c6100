from __future__ import annotations

import asyncio
import http.client
import json
import signal
import socket
import stat
from pathlib import Path
from typing import Any

import pytest

from heliostat.api import server
from heliostat.api.server import BODY_LIMIT_BYTES, SocketError, create_app, serve
from heliostat.ports.errors import ConfigError, HeliostatError, Refused
from tests.unit.api.fakes import FakeOperations, controller


def call(path: Path, method: str, target: str, body: bytes | None = None) -> tuple[int, Any]:
    connection = http.client.HTTPConnection("x", timeout=5)
    connection.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.sock.settimeout(5)
    connection.sock.connect(str(path))
    connection.request(method, target, body=body, headers={"Connection": "close"})
    response = connection.getresponse()
    answer = response.read()
    connection.close()
    return response.status, json.loads(answer)


def test_the_socket_is_for_its_owner_only_and_goes_with_the_server(
    folder: Path, operations: FakeOperations
) -> None:
    path = folder / "control.sock"
    with controller(operations, path):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert not path.exists()


def test_a_dead_controllers_socket_is_replaced(folder: Path, operations: FakeOperations) -> None:
    path = folder / "control.sock"
    with socket.socket(socket.AF_UNIX) as old:
        old.bind(str(path))
    with controller(operations, path):
        assert call(path, "GET", "/status")[0] == 200


async def test_a_folder_that_others_can_enter_is_refused(folder: Path, operations: FakeOperations) -> None:
    folder.chmod(0o755)
    with pytest.raises(SocketError, match=f"chmod 700 {folder}"):
        async with serve(create_app(operations), folder / "control.sock"):
            pass


async def test_a_path_that_is_too_long_says_what_to_set(folder: Path, operations: FakeOperations) -> None:
    with pytest.raises(SocketError, match="HELIOSTAT_RUNTIME_DIR"):
        async with serve(create_app(operations), folder / ("x" * 110)):
            pass


async def test_the_controllers_own_signal_handlers_stay(folder: Path, operations: FakeOperations) -> None:
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    async with serve(create_app(operations), folder / "control.sock"):
        await asyncio.sleep(0)
        assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before


@pytest.mark.parametrize(
    ("target", "body", "asked"),
    [
        ("/add", b"", ("add", None, 1)),
        ("/add", b'{"node_type": "gpu", "count": 3}', ("add", "gpu", 3)),
        ("/remove", b'{"id": "w1", "deadline_s": 600}', ("remove", "w1", 600)),
        ("/remove", b'{"id": "w1"}', ("remove", "w1", None)),
        ("/protect", b'{"id": "w1", "on": false}', ("protect", "w1", False)),
        ("/pause", b'{"on": true}', ("pause", True)),
        ("/apply", b"{}", ("apply",)),
    ],
)
def test_writes_reach_the_operations(
    socket_path: Path, operations: FakeOperations, target: str, body: bytes, asked: tuple[object, ...]
) -> None:
    assert call(socket_path, "POST", target, body)[0] == 200
    assert operations.asked == [asked]


def test_down_is_accepted_rather_than_done(socket_path: Path) -> None:
    assert call(socket_path, "POST", "/down")[0] == 202


@pytest.mark.parametrize(
    ("target", "body", "words"),
    [
        ("/add", b"{", "not JSON"),
        ("/add", b"[]", "JSON object is expected"),
        ("/add", b'{"count": 0}', "count is 0"),
        ("/add", b'{"count": true}', "int is expected"),
        ("/add", b'{"count": "2"}', "int is expected"),
        ("/add", b'{"node_type": 5}', "str is expected"),
        ("/remove", b"{}", "id is missing"),
        ("/remove", b'{"id": "w1", "deadline_s": -1}', "must not be negative"),
        ("/pause", b'{"on": "yes"}', "bool is expected"),
    ],
)
def test_bad_bodies_are_told_and_reach_nobody(
    socket_path: Path, operations: FakeOperations, target: str, body: bytes, words: str
) -> None:
    status, answer = call(socket_path, "POST", target, body)
    assert (status, answer["code"]) == (400, "invalid")
    assert words in answer["error"]
    assert operations.asked == []


def test_a_body_over_the_limit_is_refused(socket_path: Path, operations: FakeOperations) -> None:
    body = b'{"node_type": "' + b"x" * BODY_LIMIT_BYTES + b'"}'
    status, answer = call(socket_path, "POST", "/add", body)
    assert status == 413
    assert "bytes" in answer["error"]
    assert operations.asked == []


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (Refused("not_found", "no w9"), 404, "not_found"),
        (Refused("conflict", "no GPU is left"), 409, "conflict"),
        (Refused("invalid", "bad"), 400, "invalid"),
        (Refused("refused", "no"), 403, "refused"),
        (ConfigError(["a.yaml:1: x"]), 400, "invalid"),
        (HeliostatError("the journal is read-only"), 503, "refused"),
    ],
)
def test_refusals_keep_their_code_and_words(
    socket_path: Path, operations: FakeOperations, error: Exception, status: int, code: str
) -> None:
    operations.refusal = error
    assert call(socket_path, "POST", "/add") == (status, {"error": str(error), "code": code})


@pytest.mark.parametrize(("method", "target", "status"), [("GET", "/nothing", 404), ("GET", "/add", 405)])
def test_unknown_paths_and_methods_answer_in_json(
    socket_path: Path, method: str, target: str, status: int
) -> None:
    assert call(socket_path, method, target)[0] == status


def test_a_mistake_of_ours_is_a_500_in_words(socket_path: Path, operations: FakeOperations) -> None:
    operations.refusal = ZeroDivisionError("x")
    status, answer = call(socket_path, "POST", "/add")
    assert status == 500
    assert "ZeroDivisionError" in answer["error"]


def test_an_operation_that_hangs_is_given_up(
    socket_path: Path, operations: FakeOperations, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "OPERATION_TIMEOUT_S", 0.05)
    operations.hang = True
    status, answer = call(socket_path, "GET", "/status")
    assert status == 503
    assert "did not finish" in answer["error"]


@pytest.mark.parametrize("query", ["after=-1", "after=x", "limit=99999999", "limit=1.5"])
def test_queries_are_checked(socket_path: Path, query: str) -> None:
    assert call(socket_path, "GET", f"/events?{query}")[0] == 400


def test_events_are_filtered(socket_path: Path) -> None:
    _, answer = call(socket_path, "GET", "/events?after=1&limit=10&instance=lw1aaaa.0")
    assert [one["seq"] for one in answer["events"]] == [2]
