"""`heliostat sim`: figures as text and as JSON, a trace, and what it takes for bad input."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import pytest
from click.testing import CliRunner

from heliostat.cli.commands.sim import _Progress
from heliostat.cli.main import cli
from heliostat.sim.campaign import Campaign, Summary
from heliostat.sim.run import run
from heliostat.sim.seeds import scenario

T = TypeVar("T")

QUICK = 275
"""A seed whose run takes some milliseconds: another head answers early."""


def said(*words: str) -> tuple[int, str]:
    result = CliRunner().invoke(cli, ["sim", "faults", *words])
    return result.exit_code, result.output


def test_figures_are_printed() -> None:
    code, text = said("--seeds", str(QUICK))
    assert code == 0
    assert text.startswith("1 runs, ")
    assert "0 violations" in text


def test_a_long_run_says_how_far_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    told: list[str] = []
    heard = _Progress(400, told.append, aside=False)
    for seed in range(1, 9):
        failure: dict[str, object] | None = {"check": "limits", "text": "3 of cpu"} if seed == 5 else None
        heard(Summary(seed, 1000, "d", Campaign().faults, failure))
    assert [re.sub(r"\d+ steps|about .*", "…", one) for one in told] == [
        "4 of 400 seeds, … a second, 0 violations, …",
        "8 of 400 seeds, … a second, 1 violations, …",
    ]
    assert capsys.readouterr().out == "seed 5: limits: 3 of cpu\n"


def test_beside_json_a_violation_is_told_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    heard = _Progress(400, lambda _: None, aside=True)
    heard(Summary(5, 1000, "d", Campaign().faults, {"check": "limits", "text": "3 of cpu"}))
    assert capsys.readouterr() == ("", "seed 5: limits: 3 of cpu\n")


def test_a_short_run_says_nothing_meanwhile() -> None:
    told: list[str] = []
    heard = _Progress(9, told.append, aside=True)
    heard(Summary(1, 10, "d", Campaign().faults, None))
    assert told == []


def test_a_run_that_is_killed_leaves_no_process_behind() -> None:
    words = ["-m", "heliostat.cli.main", "sim", "faults", "--seeds", "1-100000", "--jobs", "2"]
    parent = subprocess.Popen([sys.executable, *words], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        children = _until(lambda: found if len(found := _children_of(parent.pid)) == 2 else None)
    finally:
        parent.kill()
        parent.wait()
    _until(lambda: True if not any(Path(f"/proc/{pid}").exists() for pid in children) else None)


def _children_of(pid: int) -> list[int]:
    return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _until(look: Callable[[], T | None]) -> T:
    deadline_s = time.monotonic() + 30
    while (found := look()) is None:
        assert time.monotonic() < deadline_s
        time.sleep(0.05)
    return found


def test_figures_as_json() -> None:
    code, text = said("--seeds", f"{QUICK}-{QUICK}", "--json")
    figures = json.loads(text)
    assert code == 0
    assert figures["runs"] == 1
    assert figures["violations"] == []
    assert figures["steps"] == run(scenario(QUICK)).steps
    assert sum(figures["faults"].values()) > 0
    assert {"steps_per_s", "commit"} <= figures.keys()


def test_a_trace_is_printed_for_one_seed() -> None:
    code, text = said("--seeds", str(QUICK), "--trace")
    assert code == 0
    assert "wrapper   starts controller 1" in text
    assert "every rule held" in text.splitlines()[-1]


@pytest.mark.parametrize("words", [["--seeds", "9-1"], ["--seeds", "x"], ["--seeds", "1-2", "--trace"], []])
def test_bad_input_is_2(words: list[str]) -> None:
    assert said(*words)[0] == 2


def test_a_violation_is_1_and_says_how_to_replay(monkeypatch: pytest.MonkeyPatch) -> None:
    failure: dict[str, object] = {"seed": 7, "check": "limits", "text": "3 of cpu, at most 2"}

    def broken(*_: object, heard: object, **__: object) -> Campaign:
        found = Campaign()
        one = Summary(7, 10, "d", Campaign().faults, failure)
        found.add(one)
        heard(one)  # type: ignore[operator]
        return found

    monkeypatch.setattr("heliostat.sim.campaign.campaign", broken)
    code, text = said("--seeds", "7")
    assert code == 1
    assert "seed 7: limits: 3 of cpu, at most 2" in text
    assert "replay: heliostat sim faults --seeds 7 --trace" in text
