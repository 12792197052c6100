"""What benchmarks/planner.py takes on its command line, and how it ends."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from benchmarks import planner
from benchmarks.planner_cases import cases

FOUND = {"s": 0.1, "first_s": 0.1, "cpu_s": 0.1, "launched": {}, "words": 2_000, "runs": 1}
"""A plan that launches nothing and says so."""

PARTS = {"convert_s": 0.0, "fold_s": 0.0, "plan_s": 0.01, "peak_mb": 8.0}


@pytest.fixture
def children(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """Let no child be started. Each ends at once, with the status that is set here for its kind."""
    statuses: dict[str, int] = {}

    def run(command: list[str], **_: Any) -> subprocess.CompletedProcess[bytes]:
        status = statuses.get(command[command.index("--child") + 1], 0)
        if status:
            raise subprocess.CalledProcessError(status, command)
        return subprocess.CompletedProcess(command, 0, json.dumps(FOUND | PARTS).encode())

    monkeypatch.setattr(subprocess, "run", run)
    return statuses


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--case", "Z"], "there is no case 'Z'; allowed are A B C D E F G H I"),
        (["--case", "A", "N5"], "there is no case 'N5'"),
        (["--runs", "0"], "'0' is no number of runs"),
        (["--runs", "-1"], "'-1' is no number of runs"),
        (["--ray-limit", "0"], "'0' is no number of seconds above 0"),
        (["--ray-limit", "soon"], "'soon' is no number of seconds above 0"),
        (["--ray-from", "nowhere.json"], "cannot read nowhere.json: No such file or directory"),
    ],
)
def test_a_wrong_option_is_told(
    options: list[str], said: str, capsys: pytest.CaptureFixture[str], children: dict[str, int]
) -> None:
    with pytest.raises(SystemExit) as ended:
        planner.main(options)
    assert ended.value.code == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    "text",
    [
        "no JSON",
        "[]",
        "{}",
        '{"cases": []}',
        '{"cases": {"A": {}}}',
        '{"cases": {"A": {"digest": "x", "ray": {"s": 1}}}}',
        '{"cases": {"A": {"digest": "x", "ray": 5}}}',
    ],
)
def test_a_file_that_is_no_earlier_run_is_told(
    text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], children: dict[str, int]
) -> None:
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(SystemExit) as ended:
        planner.main(["--ray-from", str(tmp_path / "run.json")])
    assert ended.value.code == 2
    assert "run.json is no output of --json" in capsys.readouterr().err


def test_an_earlier_run_is_taken(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], children: dict[str, int]
) -> None:
    assert planner.main(["--json", "--case", "A", "--no-bound"]) == 0
    (tmp_path / "run.json").write_text(capsys.readouterr().out)
    children["ray"] = 1
    options = ["--json", "--case", "A", "--no-bound", "--ray-from", str(tmp_path / "run.json")]
    assert planner.main(options) == 0
    assert json.loads(capsys.readouterr().out)["cases"]["A"]["ray_note"] == "from an earlier run"


def test_a_case_may_be_in_lower_case() -> None:
    assert planner.parser().parse_args(["--case", "a", "H"]).case == ["A", "H"]


def test_the_help_names_every_case_and_default() -> None:
    text = planner.parser().format_help()
    assert list(cases.TITLES) == list(cases.MAKERS) == list("ABCDEFGHI")
    assert all(f"  {name}  {title}" in text for name, title in cases.TITLES.items())
    assert "(7200; F at most 120)" in text


@pytest.mark.parametrize("kind", ["ours", "memory", "ray", "adapter"])
def test_a_child_that_failed_is_no_success(
    kind: str, capsys: pytest.CaptureFixture[str], children: dict[str, int]
) -> None:
    options = ["--json", "--case", "A", "--no-bound", "--adapter"]
    assert planner.main(options) == 0
    children[kind] = 3
    assert planner.main(options) == 1
    # The rest is still told.
    assert "A" in json.loads(capsys.readouterr().out.splitlines()[-1])["cases"]


def test_a_missed_target_counts_where_it_is_to_be_checked(children: dict[str, int]) -> None:
    assert planner.main(["--case", "A", "--no-ray"]) == 0
    assert planner.main(["--case", "A", "--no-ray", "--check"]) == 1
    assert planner.main(["--case", "I", "--no-ray", "--no-bound", "--check"]) == 0


def test_the_curve_fails_with_its_children(monkeypatch: pytest.MonkeyPatch, children: dict[str, int]) -> None:
    monkeypatch.setattr(cases, "CURVE", (1_000,))
    assert planner.main(["--curve"]) == 0
    children["ours"] = 1
    assert planner.main(["--curve"]) == 1


def test_the_adapter_is_measured_where_it_is_asked_for(
    capsys: pytest.CaptureFixture[str], children: dict[str, int]
) -> None:
    for options, wanted in (([], None), (["--adapter"], 0.1)):
        planner.main(["--json", "--case", "A", "--no-bound", *options])
        assert json.loads(capsys.readouterr().out)["cases"]["A"]["adapter_s"] == wanted


def test_the_adapter_answers_a_case() -> None:
    assert planner.child_adapter(cases.make("A", 1), runs=1)["s"] > 0


def test_ray_may_take_longer_than_anybody_waits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def late(command: list[str], **_: Any) -> None:
        raise subprocess.TimeoutExpired(command, 5)

    monkeypatch.setattr(subprocess, "run", late)
    ended = {kind: planner.child(kind, "A", seed=1, runs=1, limit_s=5) for kind in ("ray", "ours")}
    assert [ended[kind].failed for kind in ("ray", "ours")] == [False, True]
    assert ended["ray"].late_s == 5


def test_a_quiet_round_has_a_bound_too(capsys: pytest.CaptureFixture[str], children: dict[str, int]) -> None:
    assert planner.main(["--json", "--case", "H", "--no-ray"]) == 0
    assert json.loads(capsys.readouterr().out)["cases"]["H"]["bound"] == 0
