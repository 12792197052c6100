"""Of a log, the line that says most is told; old ones go."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from heliostat.providers.slurm.logs import KEPT_AT_MOST, parse_tail, superfluous, telling, tidy
from heliostat.providers.slurm.runner import LocalRunner

MEMORY = "slurmstepd-n1: error: StepId=1.batch exceeded memory limit (547471360 > 209715200), being killed"

NEWER = "[2026-11-21T17:06:29.755] error: StepId=14.batch exceeded memory limit (347787264 > 209715200)"


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        ([], ""),
        (["one", "two", " "], "two"),
        (["bootstrap: no such cluster", "another's"], "bootstrap: no such cluster"),
        (["slurmstepd: error: execve(): No such file", "x"], "slurmstepd: error: execve(): No such file"),
        (["bootstrap: it runs", "slurmstepd: error: *** JOB 1 CANCELLED ***"], "bootstrap: it runs"),
        (["bootstrap: it runs", MEMORY, "slurmstepd-n1: error: Exceeded job memory limit"], MEMORY),
        (["slurmstepd: error: Detected 1 oom-kill event(s) in StepId=1.batch", "bootstrap: Ray has ended"],
         "slurmstepd: error: Detected 1 oom-kill event(s) in StepId=1.batch"),
        (["bootstrap: it runs", "a task: out of memory"], "bootstrap: it runs"),
        (["bootstrap: it runs", NEWER, "[2026-11-21T17:06:29.786] error: Exceeded job memory limit"], NEWER),
        (["[2026-11-21T17:06:29.786] error: execve(): No such file", "x"],
         "[2026-11-21T17:06:29.786] error: execve(): No such file"),
    ],
)  # fmt: skip
def test_the_line_that_says_most(lines: list[str], told: str) -> None:
    assert telling(lines) == told


DAY_S = 86_400


def listing(*logs: tuple[float, str]) -> str:
    return "".join(f"{at_s:.10f} {name}\n" for at_s, name in logs)


def test_a_log_goes_a_week_after_its_last_line_unless_its_job_lives() -> None:
    old, now_s = 1000.0, 1000.0 + 8 * DAY_S
    shown = listing(
        (old, "l1.0+3.slurm.log"),
        (old, "g1.slurm.log"),
        (old, "g1.2.slurm.log"),
        (old, "l2.0+0.slurm.log"),
        (now_s - 6 * DAY_S, "l3.0+0.slurm.log"),
        (now_s, "l4.0+0.slurm.log"),
        (old, "of mine.slurm.log"),
        (old, "notes.txt.slurm.log"),
    )
    gone = superfluous(shown, living={"l2"}, now_s=now_s)
    assert sorted(gone) == ["g1.2.slurm.log", "g1.slurm.log", "l1.0+3.slurm.log"]


@pytest.mark.parametrize("off_s", [-100 * DAY_S, 100 * DAY_S])
def test_a_clock_that_is_far_off_removes_no_log(off_s: float) -> None:
    """Neither the controller's, in the future, nor the file server's, in one line."""
    now_s = 1000.0 * DAY_S
    shown = listing((now_s - DAY_S, "l1.0+0.slurm.log"), (now_s, "l2.0+0.slurm.log"))
    assert superfluous(shown, living=(), now_s=now_s + off_s) == []
    stray = shown + listing((now_s + 100 * DAY_S, "l3.0+0.slurm.log"))
    assert superfluous(stray, living=(), now_s=now_s) == []


def test_of_too_many_logs_the_oldest_go() -> None:
    shown = listing(*((float(second), f"l{second}.0+0.slurm.log") for second in range(KEPT_AT_MOST + 3)))
    gone = superfluous(shown, living={"l1"}, now_s=DAY_S)
    assert gone == ["l2.0+0.slurm.log", "l0.0+0.slurm.log"]


async def test_what_is_superfluous_is_removed_where_the_commands_run(tmp_path: Path) -> None:
    for name in ("l1.0+0.slurm.log", "l2.0+0.slurm.log", "mine.log"):
        (tmp_path / name).write_text("")
        os.utime(tmp_path / name, (1000, 1000))
    (tmp_path / "l3.0+0.slurm.log").write_text("")
    runner = LocalRunner({"PATH": os.environ["PATH"]})
    assert await tidy(str(tmp_path), runner, living={"l2"}, now_s=time.time()) == 1
    left = sorted(path.name for path in tmp_path.iterdir())
    assert left == ["l2.0+0.slurm.log", "l3.0+0.slurm.log", "mine.log"]
    assert await tidy(f"{tmp_path}/none", runner, living=(), now_s=time.time()) == 0


def test_tails_of_several_files_are_told_apart() -> None:
    text = "==> /a/1.log <==\none\n\ntwo\n\n==> /a/2.log <==\n"
    assert parse_tail(text) == {"/a/1.log": ["one", "two"], "/a/2.log": []}
