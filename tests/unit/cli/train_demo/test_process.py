"""The driver's process, played by a few lines: heard, told, and ended whatever it does."""

from __future__ import annotations

import os
import signal
import sys
import time

import pytest

from heliostat.cli.train_demo import process
from heliostat.cli.train_demo.process import DriverProcess
from heliostat.ports.errors import HeliostatError

WAIT_S = 20.0


class Player(DriverProcess):
    """A driver whose text is given."""

    def __init__(self, text: str) -> None:
        super().__init__({"steps": 1}, dict(os.environ))
        self._argv = [sys.executable, "-c", text]


def heard(player: DriverProcess, count: int) -> list[dict[str, object]]:
    """Return `count` facts, waiting for them."""
    found: list[dict[str, object]] = []
    deadline_s = time.monotonic() + WAIT_S
    while len(found) < count and time.monotonic() < deadline_s:
        found += player.facts()
        time.sleep(0.01)
    return found


def ended(player: DriverProcess) -> DriverProcess:
    deadline_s = time.monotonic() + WAIT_S
    while not player.has_ended() and time.monotonic() < deadline_s:
        time.sleep(0.01)
    assert player.has_ended()
    return player


def test_it_is_started_as_a_module_with_its_options() -> None:
    argv = DriverProcess({"steps": 8, "cuda": False}, {})._argv
    assert argv == [sys.executable, "-m", "heliostat.cli.train_demo.driver", '{"steps": 8, "cuda": false}']


def test_what_it_tells_is_heard_and_it_hears_that_it_is_enough() -> None:
    text = """
import json, sys
print("not JSON"); print(json.dumps({"kind": "began"}), flush=True)
print(json.dumps({"kind": sys.stdin.readline().strip()}), flush=True)
"""
    with Player(text) as player:
        assert heard(player, 1) == [{"kind": "began"}]
        player.enough()
        assert heard(player, 1) == [{"kind": "enough"}]
        ended(player).check()


def test_one_that_fails_is_told_with_its_last_words() -> None:
    with Player("raise SystemExit('no GPU')") as player:
        with pytest.raises(HeliostatError, match=r"the training failed \(exit code 1\):\nno GPU"):
            ended(player).check()
        player.enough()


def test_at_the_end_of_the_block_it_is_ended() -> None:
    text = 'import time; print(\'{"kind": "up"}\', flush=True); time.sleep(60)'
    with Player(text) as player:
        heard(player, 1)
    assert player.has_ended()


def test_one_that_does_not_listen_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "END_TIMEOUT_S", 0.2)
    text = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
        ' print(\'{"kind": "up"}\', flush=True); time.sleep(60)'
    )
    with Player(text) as player:
        assert heard(player, 1)
    assert player._process.returncode == -signal.SIGKILL


def test_it_hears_when_nobody_listens_any_more() -> None:
    text = 'import sys; print(\'{"kind": "up"}\', flush=True); sys.stdin.read()'
    with Player(text) as player:
        heard(player, 1)
        assert player._process.stdin is not None
        player._process.stdin.close()
        ended(player)
