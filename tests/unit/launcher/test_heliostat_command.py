from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from heliostat.launcher import heliostat_command


def stand_in(monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    monkeypatch.setattr(
        heliostat_command, "argv", lambda words: [sys.executable, "-c", code, *map(str, words)]
    )


@pytest.mark.parametrize(("code", "found"), [("0", 0), ("7", 7)])
def test_the_exit_code_comes_through(monkeypatch: pytest.MonkeyPatch, code: str, found: int) -> None:
    stand_in(monkeypatch, "import sys; sys.exit(int(sys.argv[1]))")
    assert heliostat_command.show(code) == found


def test_what_ended_by_a_signal(monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(monkeypatch, "import os; os.kill(os.getpid(), 9)")
    assert heliostat_command.show() == 137


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_for_us_is_the_childs(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, number: signal.Signals
) -> None:
    code = (
        "import pathlib, signal, sys, time\n"
        "signal.signal(int(sys.argv[1]), lambda *_: sys.exit(5))\n"
        "pathlib.Path(sys.argv[2]).touch()\ntime.sleep(30)"
    )
    stand_in(monkeypatch, code)
    monkeypatch.setattr(heliostat_command.sys, "stdin", io.StringIO())
    there = tmp_path / "there"

    def send() -> None:
        end_s = time.monotonic() + 20
        while not there.exists() and time.monotonic() < end_s:
            time.sleep(0.01)
        os.kill(os.getpid(), number)

    before = signal.getsignal(number)
    thread = threading.Thread(target=send)
    thread.start()
    assert heliostat_command.show(str(int(number)), str(there)) == 5
    thread.join()
    assert signal.getsignal(number) is before


def test_it_can_be_run_beside_the_main_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(monkeypatch, "")
    codes: list[int] = []
    thread = threading.Thread(target=lambda: codes.append(heliostat_command.show()))
    thread.start()
    thread.join()
    assert codes == [0]


def test_facts_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(
        monkeypatch, "import json, sys; print(json.dumps(sys.argv[1:][0:1] and {'words': sys.argv[1:]}))"
    )
    answer = heliostat_command.read("status", "demo")
    assert (answer.code, answer.facts) == (0, {"words": ["status", "demo", "--json"]})


def test_words_of_a_failure_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(
        monkeypatch, "import sys; print('heliostat: one\\nheliostat: two', file=sys.stderr); sys.exit(1)"
    )
    answer = heliostat_command.read("status")
    assert (answer.code, answer.facts, answer.words) == (1, {}, "one\ntwo")


def test_who_does_not_answer_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    def late(argv: Sequence[str], *, timeout: float, **_: object) -> None:
        raise subprocess.TimeoutExpired(list(argv), timeout)

    monkeypatch.setattr(heliostat_command.subprocess, "run", late)
    assert (
        heliostat_command.read("status", "demo").words == "`heliostat status demo` did not answer within 60 s"
    )


def test_no_file_of_the_current_folder_is_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "click.py").write_text("raise SystemExit(9)")
    monkeypatch.chdir(tmp_path)
    assert heliostat_command.show("--version") == 0
