"""Rows of squeue as values, for tests."""

from __future__ import annotations

from dataclasses import replace

from heliostat.providers.slurm.jobs import Job
from heliostat.providers.slurm.tags import Tag

TAG = Tag("demo", "uid-of-ours", "ada", "l1", "cpu", "shape-1", 4)

WAITING = Job(
    array_id=46,
    job_id=46,
    tasks=(0, 1, 2, 3),
    throttle=None,
    state="PENDING",
    reason="Priority",
    partition="main",
    start_s=None,
    end_s=None,
    time_limit_s=3600.0,
    submitted_s=1000.0,
    nodes="",
    name="hel-uid-of-o-l1",
    tag=TAG,
)

RUNNING = replace(WAITING, state="RUNNING", reason="None", start_s=1010.0, end_s=4610.0, nodes="n1")


def gang(state: str = "RUNNING", count: int = 3, job_id: int = 50) -> Job:
    tag = replace(TAG, launch_id="g1", count=count, together=True)
    return replace(RUNNING, array_id=job_id, job_id=job_id, tasks=None, state=state, nodes="n[1-3]", tag=tag)


def task(index: int, state: str = "RUNNING", *, job: Job = RUNNING, array_id: int = 46) -> Job:
    return replace(job, array_id=array_id, job_id=array_id + index + 1, tasks=(index,), state=state)
