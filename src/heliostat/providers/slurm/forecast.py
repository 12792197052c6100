"""When a job would start that is not submitted yet: `sbatch --test-only`. Pure.

What waits already has its expected start in the listing (`Job.start_s`), which the
backfill scheduler fills in. A trial takes a job id and some of slurmctld's time each time
it is made, so it is for rare use.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime

START = re.compile(r"Job \d+ to start at (\S+)")
NOT_FOR_A_TRIAL = re.compile(r"--array=.*|--parsable|--wait")


def test_only_command(argv: Sequence[str]) -> tuple[str, ...]:
    """Return an sbatch command as a mere question; it wants the script on standard input, too.

    An array is asked for as one job: Slurm would tell the start of its first task only.
    """
    return (argv[0], "--test-only", *(one for one in argv[1:] if not NOT_FOR_A_TRIAL.fullmatch(one)))


def parse_test_only(stderr: str) -> float | None:
    """Return the start (Unix seconds) in the answer, which comes on standard error; None without one.

    Behind jobs that have no time limit it is years ahead, which the caller takes for no
    telling. A site's own words may stand around it. Without `ENVIRONMENT` the time is local.
    """
    found = START.search(stderr)
    if found is None:
        return None
    if found[1].isdigit():
        return float(found[1])
    try:
        return datetime.fromisoformat(found[1]).timestamp()
    except ValueError:
        return None
