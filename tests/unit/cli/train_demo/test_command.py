"""What `heliostat train-demo` takes, refuses before anything is started, and how it ends."""

from __future__ import annotations

from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from heliostat.cli import train_demo
from heliostat.cli.commands import train_demo as command
from heliostat.cli.train_demo import Wishes, story
from tests.unit.cli.conftest import Invoke

GOOD: dict[str, Any] = {
    "steps": 160,
    "lost_steps": 0,
    "sizes": [1, 2, 3, 2],
    "throughput": {"1": 181.0, "3": 502.3},
    "final_accuracy": 0.971,
    "fixed_accuracy": 0.969,
}


@pytest.fixture
def wishes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Wishes]:
    """Let nothing be started, and everything that is needed be there; what is asked for comes here."""
    asked: list[Wishes] = []

    def run(found: Wishes) -> int:
        asked.append(found)
        return 0

    monkeypatch.setattr(train_demo, "run", run)
    monkeypatch.setattr(command, "find_spec", lambda name: ModuleSpec(name, None))
    monkeypatch.chdir(tmp_path)
    return asked


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        ([], Wishes(auto=False, steps=400, picture=Path("train-demo.png"), as_json=False)),
        (["--auto"], Wishes(auto=True, steps=160, picture=Path("train-demo.png"), as_json=False)),
        (
            ["--auto", "--json", "--steps", "24", "--picture", "a.png"],
            Wishes(auto=True, steps=24, picture=Path("a.png"), as_json=True),
        ),
    ],
)
def test_what_is_asked_for(invoke: Invoke, wishes: list[Wishes], words: list[str], wanted: Wishes) -> None:
    result = invoke("train-demo", *words)
    assert (result.exit_code, wishes) == (0, [wanted])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--steps", "7"], "7 is not in the range"),
        (["--picture", "nowhere/a.png"], "there is no folder"),
        (["--picture", "."], "is a directory"),
    ],
)
def test_bad_input_starts_nothing(invoke: Invoke, wishes: list[Wishes], words: list[str], said: str) -> None:
    result = invoke("train-demo", *words)
    assert (result.exit_code, wishes) == (2, [])
    assert said in result.stderr


@pytest.mark.parametrize(
    ("missing", "named"),
    [({"torch"}, "torch"), ({"torch", "sklearn", "matplotlib"}, "torch, scikit-learn, matplotlib")],
)
def test_without_the_extra_it_says_what_to_install_and_starts_nothing(
    invoke: Invoke, wishes: list[Wishes], monkeypatch: pytest.MonkeyPatch, missing: set[str], named: str
) -> None:
    monkeypatch.setattr(command, "find_spec", lambda name: None if name in missing else find_spec("json"))
    result = invoke("train-demo", "--auto", "--json")
    assert (result.exit_code, result.stdout, wishes) == (2, "", [])
    assert result.stderr == f"heliostat: train-demo needs {named}: pip install 'heliostat[train]'\n"


def test_the_last_line_sums_it_up() -> None:
    assert story.summary(GOOD, Path("p.png")) == (
        "train-demo: 160 steps, 0 lost, members 1 -> 2 -> 3 -> 2; "
        "181 samples/s with 1, 502 samples/s with 3; "
        "97.1% of unseen digits right, 96.9% with one member throughout; picture: p.png"
    )


def test_a_size_that_was_never_reached_is_left_out_of_it() -> None:
    found = GOOD | {"sizes": [1], "throughput": {"1": 181.0, "3": None}}
    assert "members 1; 181 samples/s with 1; 97.1%" in story.summary(found, Path("p.png"))


@pytest.mark.parametrize(
    ("changed", "auto", "good"),
    [
        ({}, True, True),
        ({"lost_steps": 1}, True, False),
        ({"lost_steps": 1}, False, False),
        ({"sizes": [1, 2, 3]}, True, False),
        ({"sizes": [1, 2, 3, 2, 3]}, True, False),
        ({"sizes": [1]}, False, True),
    ],
)
def test_when_all_went_well(changed: dict[str, Any], auto: bool, good: bool) -> None:
    assert story.is_good(GOOD | changed, auto=auto) is good
