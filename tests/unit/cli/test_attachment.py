"""Whose a cluster is whose head is a job: a file that changes as long as its command lives."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from heliostat.cli import attachment
from heliostat.cli.attachment import (
    SILENCE_S,
    attach,
    attached_file,
    detach,
    holder_elsewhere,
    is_attached,
    is_ours,
)
from heliostat.config.places import StatePlaces


class Looking:
    """A clock that moves by sleeping only, and calls `act` each time."""

    def __init__(self, act: Callable[[float], None] = lambda now_s: None) -> None:
        self.now_s = 0.0
        self._act = act

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds
        self._act(self.now_s)

    def holder(self, places: StatePlaces) -> str | None:
        return holder_elsewhere(places, monotonic_s=lambda: self.now_s, sleep=self.sleep)


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StatePlaces:
    monkeypatch.setattr(attachment, "_keep_touching", lambda path: None)
    return StatePlaces(tmp_path)


def test_it_is_attached_until_it_is_detached(places: StatePlaces) -> None:
    assert not is_attached(places)
    attach(places)
    assert attached_file(places).read_text() == f"{socket.gethostname()} {os.getpid()}"
    assert is_ours(places)
    attached_file(places).write_text(f"{socket.gethostname()} 1")
    assert not is_ours(places)
    detach(places)
    detach(places)
    assert not is_attached(places)


def test_this_hosts_own_is_not_looked_for(places: StatePlaces) -> None:
    attach(places)
    looking = Looking()
    assert looking.holder(places) is None
    assert looking.now_s == 0


def test_one_that_touches_it_holds_it(places: StatePlaces) -> None:
    path = attached_file(places)
    path.write_text("login2 17")

    def touch(now_s: float) -> None:
        if now_s >= 8:
            os.utime(path, (now_s, now_s))

    assert Looking(touch).holder(places) == "login2"


def test_one_that_is_silent_has_gone(places: StatePlaces) -> None:
    attached_file(places).write_text("login2 17")
    looking = Looking()
    assert looking.holder(places) is None
    assert looking.now_s >= SILENCE_S


def test_one_that_ends_while_we_look_has_gone(places: StatePlaces) -> None:
    attached_file(places).write_text("login2 17")
    looking = Looking(lambda now_s: detach(places))
    assert looking.holder(places) is None
    assert looking.now_s < SILENCE_S


def test_touching_goes_on_through_a_file_system_that_refuses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outcomes: list[Exception | None] = [None, OSError(5, "Input/output error"), None, FileNotFoundError()]

    def utime(path: Path) -> None:
        found = outcomes.pop(0)
        if found is not None:
            raise found

    monkeypatch.setattr(attachment.time, "sleep", lambda seconds: None)
    monkeypatch.setattr(attachment.os, "utime", utime)
    attachment._keep_touching(tmp_path / "attached")
    assert outcomes == []
