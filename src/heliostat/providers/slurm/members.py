"""Instances out of squeue's rows: which job is which instance, and the row that the loop sees. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from heliostat.model.instance import BackendInstance, BackendState
from heliostat.providers.slurm.jobs import Job
from heliostat.providers.slurm.states import backend_state
from heliostat.providers.slurm.tags import stagger_s

OVER = frozenset({BackendState.ENDED, BackendState.FAILED})

QUEUED = frozenset({"PENDING", "REQUEUED", "REQUEUE_HOLD", "RESV_DEL_HOLD", "SPECIAL_EXIT", "EXPEDITING"})
"""Slurm's states of jobs in its queue; some of them will never start, which is a failure to us."""


@dataclass(frozen=True)
class Member:
    """One instance as Slurm shows it: a task of an array, or a rank of a gang's job."""

    instance_id: str
    index: int
    job: Job
    state: BackendState
    detail: str | None

    @property
    def native_id(self) -> str:
        return self.job.native_id(self.index)

    @property
    def is_queued(self) -> bool:
        return self.job.state in QUEUED

    @property
    def standing(self) -> int:
        """Return what counts first of two jobs for one instance: running, ending, waiting, over."""
        if self.is_over:
            return 3
        return 2 if self.is_queued else int(self.state is BackendState.STOPPING)

    @property
    def is_over(self) -> bool:
        """Say whether Slurm has nothing of it any more, neither running nor in its queue."""
        return self.state in OVER and not self.is_queued


@dataclass(frozen=True)
class Members:
    """`chosen` by instance id, and `doubles`: living jobs of an instance that another job has, too.

    Two jobs have one instance where sbatch's reply was lost and the ask repeated. One that waits is to be
    cancelled; of two that run only one has joined the cluster, and the other ends by itself.
    """

    chosen: Mapping[str, Member]
    doubles: tuple[Member, ...] = ()


def members_of(jobs: Iterable[Job]) -> Members:
    """Return every instance in the rows; of two jobs for one what runs counts, then the older."""
    chosen: dict[str, Member] = {}
    doubles: list[Member] = []
    every = sorted(jobs, key=lambda one: (one.array_id, one.job_id))
    named = {(job.array_id, index) for job in every for index in job.members}
    for job in every:
        state, detail = backend_state(job)
        # What is left of an array stands for the tasks that no row names.
        unnamed = [index for index in range(job.tag.count) if (job.array_id, index) not in named]
        for index in job.members if job.tasks != () else unnamed:
            found = Member(job.tag.instance_id(index), index, job, state, detail)
            known = chosen.setdefault(found.instance_id, found)
            if known is not found:
                # A sort keeps the older first where both stand the same.
                chosen[found.instance_id], other = sorted((known, found), key=lambda one: one.standing)
                doubles += [] if other.is_over else [other]
    return Members(chosen, tuple(doubles))


def row_of(member: Member, *, stopping: bool, notice_s: float | None) -> BackendInstance:
    """Return the member as a line of the provider's listing; `stopping`: it was asked to end."""
    job, state = member.job, member.state
    waits = state is BackendState.QUEUED
    begun = not waits and job.start_s is not None
    expires_s = None
    if begun and not member.is_over and job.start_s is not None and job.end_s is not None:
        # A gang's members end as one.
        early_s = (
            0.0 if job.tag.together else stagger_s(job.tag.first + member.index, job.end_s - job.start_s)
        )
        expires_s = job.end_s - early_s
    return BackendInstance(
        instance_id=member.instance_id,
        native_id=member.native_id,
        node_type=job.tag.node_type,
        state=BackendState.STOPPING if stopping and not member.is_over else state,
        shape_id=job.tag.shape_id,
        allocation_id=str(job.job_id) if job.tag.together else None,
        host=job.nodes or None,
        detail=member.detail,
        slot=_slot(job) or None,
        expected_start_s=job.start_s if waits else None,
        started_at_s=job.start_s if begun else None,
        expires_at_s=expires_s,
        notice_s=notice_s,
        throttled=job.is_throttled,
    )


def _slot(job: Job) -> str:
    return f"{job.nodes} ({job.partition})" if job.nodes else job.partition
