"""The ways to a controller: its socket, and a relay beside it, however badly that behaves."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from heliostat.api import transport
from heliostat.api.client import ControllerClient, NoAnswer, NotRunning
from heliostat.api.transport import RelayTransport
from heliostat.ports.errors import ConfigError, Refused
from tests.unit.api.fakes import FakeOperations, report

RELAY = [sys.executable, "-m", "heliostat.api.relay"]
HELLO = "import sys; print('Welcome to login1'); print('{\"relay\": 1}', flush=True); "


def says(script: str) -> list[str]:
    return [sys.executable, "-S", "-c", HELLO + script]


@pytest.fixture
def way(socket_path: Path) -> Iterator[RelayTransport]:
    made = RelayTransport([[*RELAY, str(socket_path)]])
    yield made
    made.close()


def test_a_relay_answers_like_the_socket(way: RelayTransport, operations: FakeOperations) -> None:
    client = ControllerClient(way, cluster="demo")
    assert client.status() == report()
    assert client.add("gpu", 2)["names"] == ["w3"]
    assert operations.asked == [("add", "gpu", 2)]
    operations.refusal = Refused("conflict", "not now")
    with pytest.raises(Refused, match="not now"):
        client.pause()
    operations.refusal = ConfigError(["a.yaml:1: x", "a.yaml:2: y"])
    with pytest.raises(ConfigError):
        client.apply()


def test_one_relay_serves_many_requests_and_ends_with_its_client(way: RelayTransport) -> None:
    client = ControllerClient(way)
    client.status()
    relay = way._relay
    assert relay is not None
    client.cost()
    assert way._relay is relay
    way.close()
    assert relay._process.poll() == 0


def test_a_controller_that_is_away_is_told(folder: Path) -> None:
    way = RelayTransport([[*RELAY, str(folder / "control.sock")]])
    with pytest.raises(NotRunning, match="no controller of demo answers"):
        ControllerClient(way, cluster="demo").status()
    # The relay is well, and is kept.
    assert way._relay is not None
    way.close()


def test_a_silent_controller_has_a_deadline(way: RelayTransport, operations: FakeOperations) -> None:
    operations.hang = True
    with pytest.raises(NoAnswer, match=r"within 0\.1 s"):
        ControllerClient(way).status(timeout_s=0.1)
    operations.hang = False
    assert ControllerClient(way).status() == report()


def test_the_next_way_is_taken_when_the_first_does_not_work(socket_path: Path) -> None:
    refused = [sys.executable, "-S", "-c", "import sys; sys.exit('srun: error: Access/permission denied')"]
    way = RelayTransport([["/no/such/srun"], refused, [*RELAY, str(socket_path)]])
    assert ControllerClient(way).status() == report()
    way.close()


def test_without_any_way_each_ones_words_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "RELAY_END_S", 0.2)
    refused = [sys.executable, "-S", "-c", "import sys; sys.exit('srun: error: Access/permission denied')"]
    hangs = [sys.executable, "-S", "-c", "import time; time.sleep(300)"]
    # A start of Python takes longer than the deadline of the one that hangs.
    monkeypatch.setattr(transport, "RELAY_START_S", 3.0)
    way = RelayTransport([["/no/such/srun"], refused, hangs])
    with pytest.raises(NoAnswer) as caught:
        ControllerClient(way, cluster="demo").status()
    words = str(caught.value)
    assert "the head's host can't be reached: /no/such/srun: No such file or directory" in words
    assert "srun: error: Access/permission denied" in words
    assert "the relay did not answer in time" in words


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("input(); sys.exit('slurmstepd: error: *** STEP CANCELLED ***')", r"ConnectionError .*CANCELLED"),
        (
            '[print(\'{"error": "broken", "text": "PermissionError: no"}\', flush=True) for _ in sys.stdin]',
            "PermissionError: no",
        ),
    ],
)
def test_a_way_that_breaks_is_no_answer_and_is_made_anew(script: str, words: str) -> None:
    way = RelayTransport([says(script)])
    for _ in range(2):
        with pytest.raises(NoAnswer, match=words):
            ControllerClient(way).status()
    way.close()


def test_a_late_answer_is_not_the_next_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "RELAY_MARGIN_S", 0.0)
    monkeypatch.setattr(transport, "RELAY_END_S", 0.2)
    way = RelayTransport([says("input(); import time; time.sleep(300)")])
    with pytest.raises(NoAnswer, match="within"):
        ControllerClient(way).status(timeout_s=0.1)
    assert way._relay is None


def test_a_relay_has_the_environment_that_it_is_given(socket_path: Path) -> None:
    script = 'import os; input(); print(\'{"status": 200, "body": "{}"}\' if \'X\' not in os.environ else 1)'
    environment = {name: value for name, value in os.environ.items() if name != "X"}
    way = RelayTransport([says(script)], environment=environment)
    assert ControllerClient(way).cost() == {}
    way.close()
