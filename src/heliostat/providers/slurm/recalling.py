"""Jobs of ours out of accounting, by their names: how they ended while no controller was there. Pure."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import replace

from heliostat.model.instance import BackendState
from heliostat.providers.slurm.accounting import FIELDS, End, end_of, parse_sacct
from heliostat.providers.slurm.jobs import Job, parse_tasks
from heliostat.providers.slurm.members import OVER, Member
from heliostat.providers.slurm.tags import Tag, tag_of

MARGIN_S = 60
"""The clocks of hosts may differ, and a job is asked for a little after it is written down."""

ROW = re.compile(r"([0-9]+)(?:_(?:([0-9]+)|\[([^\]]+)\]))?")
"""The id of a job, of an array's task, or of tasks of which none has begun. Steps have another form."""


def recall_command(age_s: float, user: str | None) -> tuple[str, ...]:
    """Return the command that asks for a user's jobs of the last `age_s` (None: of whoever runs it)."""
    return (
        "sacct",
        "--parsable2",
        "--noheader",
        f"--format={','.join((*FIELDS, 'JobName'))}",
        f"--starttime=now-{math.ceil(max(0.0, age_s)) + MARGIN_S}",
        *([f"--user={user}"] if user else []),
    )


def recalled(text: str, cluster_uid: str) -> dict[str, tuple[Member, End]]:
    """Return which instances of the cluster have ended, and how. ValueError for a line of ours that is odd.

    Lines of others are passed over, whatever is in them: a name may hold any character.
    """
    rows = [line.split("|", len(FIELDS)) for line in text.splitlines() if line.count("|") >= len(FIELDS)]
    tags = {row[0]: tag for row in rows if (tag := tag_of("", row[-1], cluster_uid=cluster_uid))}
    # A step has a name of its own.
    mine = [row for row in rows if row[0].partition(".")[0] in tags]
    ends = parse_sacct("".join("|".join(row[: len(FIELDS)]) + "\n" for row in mine)) or {}
    found = {}
    for row_id, tag in tags.items():
        for member in _members(row_id, tag):
            end = end_of(ends, member.native_id) or ends[row_id]
            if end.state in OVER:
                found[member.instance_id] = (replace(member, state=end.state, detail=end.detail), end)
    return found


def _members(row_id: str, tag: Tag) -> Iterator[Member]:
    parts = ROW.fullmatch(row_id)
    if parts is None:
        return
    job_id, task, waiting = parts.groups()
    tasks = parse_tasks(waiting)[0] if waiting else (int(task),) if task else None
    job = Job(
        array_id=int(job_id),
        job_id=int(job_id),
        tasks=tasks,
        throttle=None,
        state="UNKNOWN",
        reason="",
        partition="",
        start_s=None,
        end_s=None,
        time_limit_s=None,
        submitted_s=None,
        nodes="",
        name="",
        tag=tag,
    )
    # Of an array that was refused as a whole no task is named.
    for index in job.members if tag.together == (tasks is None) else ():
        yield Member(tag.instance_id(index), index, job, BackendState.UNKNOWN, None)
