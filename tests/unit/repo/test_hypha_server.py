"""The Hypha server for the tests: what is pinned, and a set-up that goes on without it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tools import beside_lock, environment, hypha_server


def test_everything_is_pinned_and_what_was_asked_for_is_there() -> None:
    pins = hypha_server.WANTED.read_text(encoding="utf-8").splitlines()
    assert [line for line in pins if not re.fullmatch(r"[\w.-]+(\[\w+\])?==[\w.]+( ;.*)?", line)] == []
    asked = hypha_server.WANTED.with_suffix(".in").read_text(encoding="utf-8").splitlines()
    assert {line.replace("[s3]", "") for line in asked if not line.startswith("#")} <= set(pins)
    assert hypha_server.place("3.12") == environment.TOOLS / "hypha-server-0.21.137-python3.12"


def test_where_it_cannot_be_had_the_reason_is_left_for_the_tests(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(command: list[str], **_: object) -> str:
        if "-c" in command:
            return "3.11\n"
        raise beside_lock.NotHadError("no index")

    monkeypatch.setattr(beside_lock, "output", refuse)
    monkeypatch.setattr(environment, "TOOLS", environment.ROOT / "nowhere")
    assert hypha_server.provide(tmp_path, "uv") == "no index"
    assert (tmp_path / hypha_server.MISSING).read_text() == "no index\n"
