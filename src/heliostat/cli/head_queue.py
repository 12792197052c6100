"""The job of a head as a login node sees it: submitted, looked for, cancelled. Only here Slurm is asked.

A job is found by the tag in its comment, which holds the cluster's whole uid, so that one whose
submission was cut short is found as well.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from heliostat.cli.head_lease import HeadLease
from heliostat.config.record import ClusterRecord
from heliostat.model.instance import BackendState
from heliostat.model.node_type import ClusterSpec
from heliostat.ports.errors import HeliostatError, ProviderError, Unavailable
from heliostat.providers.slurm.asking import listed, looked, submitted
from heliostat.providers.slurm.jobs import Job
from heliostat.providers.slurm.members import members_of
from heliostat.providers.slurm.options import SlurmOptions, parse_section
from heliostat.providers.slurm.refusals import GONE, cancel_failures, refusal
from heliostat.providers.slurm.runner import LocalRunner, Runner, SshRunner
from heliostat.providers.slurm.script import Submission
from heliostat.providers.slurm.states import backend_state
from heliostat.providers.slurm.stopping import compressed

Answer = TypeVar("Answer")

SLURM = "slurm"
HEAD_LAUNCH_ID = "head"

POLL_S = 2.0

OVER = (BackendState.ENDED, BackendState.FAILED)


@dataclass(frozen=True)
class HeadLook:
    """What squeue says of a head's job now. `detail` is its reason in words; times are Unix seconds."""

    job_id: str
    state: BackendState
    detail: str
    expected_start_s: float | None = None
    end_s: float | None = None
    nodes: str = ""

    @property
    def is_over(self) -> bool:
        return self.state in OVER

    @property
    def waits(self) -> bool:
        return self.state is BackendState.QUEUED


class HeadQueue:
    """Slurm's commands for one cluster's head. Each call has a deadline and raises ProviderError."""

    def __init__(self, runner: Runner, options: SlurmOptions) -> None:
        self._runner = runner
        self._options = options

    def submit(self, made: Submission) -> str:
        """Return the job's id; the job may be there all the same when this raises Unavailable."""
        return str(asyncio.run(submitted(made, self._runner, self._options)))

    def look(self, cluster_uid: str) -> HeadLook | None:
        """Return the head's job, None if Slurm has none (any more)."""
        return asyncio.run(self.looked(cluster_uid))

    async def looked(self, cluster_uid: str) -> HeadLook | None:
        """Do what `look` does, where a loop runs."""
        jobs = await listed(self._runner, self._options, cluster_uid=head_uid(cluster_uid))
        heads = [_look(job) for job in jobs]
        living = [one for one in heads if not one.is_over]
        return next(iter([*living, *heads]), None)

    def shows_tag(self, job_id: str, cluster_uid: str) -> bool:
        """Say whether a job that was just submitted has its tag; of what is not listed nothing is known."""
        ask = looked(self._runner, self._options, cluster_uid=head_uid(cluster_uid))
        return int(job_id) not in asyncio.run(ask).others

    def cancel(self, job_id: str, *, gently: bool = False) -> None:
        """End a job: at once, or by TERM to its batch script, which is the head's wrapper."""
        how = ("--signal=TERM", "--batch") if gently else ()
        self._scancel((*how, job_id))

    def cancel_workers(self, cluster_uid: str) -> int:
        """Cancel all jobs of the cluster but the head's, by their tags; return how many instances had one."""
        jobs = asyncio.run(listed(self._runner, self._options, cluster_uid=cluster_uid))
        found = members_of(jobs)
        living = [one for one in (*found.chosen.values(), *found.doubles) if not one.is_over]
        if living:
            self._scancel(compressed(living))
        return len(living)

    def _scancel(self, arguments: Sequence[str]) -> None:
        """Cancel; what has gone by itself meanwhile is no failure."""
        argv, deadline_s = ("scancel", *arguments), self._options.command_deadline_s
        answer = asyncio.run(self._runner.run(argv, deadline_s=deadline_s))
        failures = cancel_failures(answer.stderr)
        if failures:
            raise next(iter(failures.values()))
        if answer.code != 0 and not GONE.search(answer.stderr):
            raise refusal(argv, answer.code, answer.stderr)


def patiently(ask: Callable[[], Answer], *, say: Callable[[str], None], until_s: float) -> Answer:
    """Return Slurm's answer; while it is away it is asked again, until `until_s` of the monotonic clock.

    What is asked may be done twice: a job that is gone already counts as cancelled.
    """
    while True:
        try:
            return ask()
        except ProviderError as error:
            if not error.transient or time.monotonic() >= until_s:
                raise
            say(f"waiting for Slurm: {error}")
            time.sleep(POLL_S)


def head_uid(cluster_uid: str) -> str:
    """Return the uid in the tag of a cluster's head: one of its own, so that no provider lists it."""
    return f"{cluster_uid}.head"


def queue_of(spec: ClusterSpec, environment: Mapping[str, str] = os.environ) -> HeadQueue:
    """Return the queue of the backend that the head is on: this host's commands, else those behind ssh."""
    return queue_at(parse_section(spec.backends[SLURM]), environment)


def queue_at(options: SlurmOptions, environment: Mapping[str, str] = os.environ) -> HeadQueue:
    """Do the same where no more than the backend's section is known."""
    if options.ssh is None or shutil.which("sbatch"):
        return HeadQueue(LocalRunner(environment), options)
    raise HeliostatError(
        "a head that is a Slurm job needs a state folder that its node sees, so it is started where "
        f"sbatch is: log in to {options.ssh.host} and run this there"
    )


def runner_of(options: SlurmOptions, *, runtime_dir: str) -> Runner:
    """Return where Slurm's commands of a running cluster run: as its provider's, behind ssh if it says so."""
    if options.ssh is None:
        return LocalRunner(os.environ)
    return SshRunner(options.ssh, runtime_dir=runtime_dir)


def lease_of(record: ClusterRecord, spec: ClusterSpec) -> HeadLease:
    """Return the lease of a head that is a job, to be followed where it runs."""
    assert record.job is not None
    options = parse_section(spec.backends[SLURM])
    runner = runner_of(options, runtime_dir=record.runtime_dir)
    queue = HeadQueue(runner, options)

    async def ask() -> float | None:
        look = await queue.looked(record.cluster_uid)
        if look is None:
            raise Unavailable("squeue does not show it")
        return look.end_s

    return HeadLease(record.job.lease_end_s or None, ask, aclose=runner.aclose)


def _look(job: Job) -> HeadLook:
    state, detail = backend_state(job)
    return HeadLook(
        job_id=str(job.job_id),
        state=state,
        detail=detail or "",
        expected_start_s=job.start_s if state is BackendState.QUEUED else None,
        end_s=job.end_s,
        nodes=job.nodes,
    )
