"""Of a log, the line that says most is told."""

from __future__ import annotations

import pytest

from heliostat.providers.slurm.logs import parse_tail, telling

MEMORY = "slurmstepd-n1: error: StepId=1.batch exceeded memory limit (547471360 > 209715200), being killed"


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
    ],
)  # fmt: skip
def test_the_line_that_says_most(lines: list[str], told: str) -> None:
    assert telling(lines) == told


def test_tails_of_several_files_are_told_apart() -> None:
    text = "==> /a/1.log <==\none\n\ntwo\n\n==> /a/2.log <==\n"
    assert parse_tail(text) == {"/a/1.log": ["one", "two"], "/a/2.log": []}
