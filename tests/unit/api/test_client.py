from __future__ import annotations

import socket
import threading
from pathlib import Path

import pytest

from heliostat.api.client import ControllerClient, NoAnswer, NotRunning
from heliostat.api.wire import WireError
from heliostat.ports.errors import ConfigError, Refused
from tests.unit.api.fakes import CALLS, EVENTS, LIFETIMES, FakeOperations, report


def test_status_comes_back_typed(socket_path: Path) -> None:
    assert ControllerClient(socket_path).status() == report()


def test_every_call_reaches_its_operation(socket_path: Path, operations: FakeOperations) -> None:
    client = ControllerClient(socket_path)
    assert client.add("gpu", 2)["names"] == ["w3"]
    client.remove("w1", deadline_s=60.0)
    client.protect("w1", on=False)
    client.pause(on=True)
    assert client.apply()["changes"]
    client.down()
    assert operations.asked == [
        ("add", "gpu", 2),
        ("remove", "w1", 60.0),
        ("protect", "w1", False),
        ("pause", True),
        ("apply",),
        ("down",),
    ]


def test_reads_come_back(socket_path: Path) -> None:
    client = ControllerClient(socket_path)
    assert client.explain("a b&c")["subject"] == "a b&c"
    assert client.explain()["kind"] == "cluster"
    assert client.events(after=1) == EVENTS[1:]
    assert client.calls(limit=1) == CALLS[-1:]
    assert client.lifetimes() == LIFETIMES
    assert client.cost()["total"]["cost_usd"] == 5.0


def test_a_refusal_keeps_code_and_words(socket_path: Path, operations: FakeOperations) -> None:
    operations.refusal = Refused("conflict", "no GPU is left: 0 is taken by head")
    with pytest.raises(Refused, match="no GPU is left") as caught:
        ControllerClient(socket_path).add()
    assert caught.value.code == "conflict"


def test_a_bad_file_keeps_every_line(socket_path: Path, operations: FakeOperations) -> None:
    operations.refusal = ConfigError(["a.yaml:1: x", "a.yaml:2: y"])
    with pytest.raises(ConfigError) as caught:
        ControllerClient(socket_path).apply()
    assert caught.value.problems == ["a.yaml:1: x", "a.yaml:2: y"]


def test_no_socket_says_what_to_do(folder: Path) -> None:
    with pytest.raises(NotRunning, match=r"no controller of demo answers here.*heliostat up"):
        ControllerClient(folder / "control.sock", cluster="demo").status()


def test_a_socket_without_a_listener_is_not_running(folder: Path) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(folder / "control.sock"))
    with pytest.raises(NotRunning):
        ControllerClient(folder / "control.sock").status()


def test_a_silent_controller_has_a_deadline(socket_path: Path, operations: FakeOperations) -> None:
    operations.hang = True
    with pytest.raises(NoAnswer, match=r"within 0\.1 s"):
        ControllerClient(socket_path).status(timeout_s=0.1)


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (b"hello", NoAnswer),
        (b"", NoAnswer),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]", WireError),
        (
            b'HTTP/1.1 404 No\r\nContent-Length: 41\r\n\r\n{"error":"Not Found","code":"not_found"}\r\n',
            WireError,
        ),
        (b"HTTP/1.1 503 Busy\r\nContent-Length: 4\r\n\r\nbusy", NoAnswer),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{}", NoAnswer),
    ],
)
def test_nonsense_is_a_typed_error(folder: Path, answer: bytes, error: type[Exception]) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(folder / "control.sock"))
        listener.listen(1)

        def serve_one() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(answer)

        thread = threading.Thread(target=serve_one)
        thread.start()
        with pytest.raises(error):
            ControllerClient(folder / "control.sock").cost()
        thread.join(5)
