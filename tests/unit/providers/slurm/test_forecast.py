"""`sbatch --test-only`: its command, and answers as Slurm 22.05.8 gives them on standard error."""

from __future__ import annotations

from datetime import datetime

import pytest

from heliostat.providers.slurm import forecast


def test_the_question_is_the_submission_without_what_only_a_submission_takes() -> None:
    argv = ("sbatch", "--parsable", "--job-name=hel-1", "--array=0-9%2", "--partition=main", "--time=30")
    asked = ("sbatch", "--test-only", "--job-name=hel-1", "--partition=main", "--time=30")
    assert forecast.test_only_command(argv) == asked


@pytest.mark.parametrize(
    ("stderr", "start_s"),
    [
        (
            "sbatch: Job 29 to start at 1795278376 using 1 processors on nodes n1 in partition short\n",
            1795278376.0,
        ),
        (
            "sbatch: Welcome!\nsbatch: Job 32 to start at 130644288076 using 2 processors on nodes n[1-2]"
            " in partition main\n",
            130644288076.0,
        ),
        (
            "sbatch: Job 49 to start at 2026-11-21T03:05:09 using 1 processors on nodes n1 in partition x\n",
            datetime(2026, 11, 21, 3, 5, 9).timestamp(),  # noqa: DTZ001
        ),
        ("sbatch: Job 49 to start at Unknown using 1 processors on nodes n1 in partition main\n", None),
        ("allocation failure: Invalid partition name specified\n", None),
        ("", None),
    ],
)
def test_answers(stderr: str, start_s: float | None) -> None:
    assert forecast.parse_test_only(stderr) == start_s
