"""The two questions that are put to Slurm from several places: what there is of a cluster, and for a job."""

from __future__ import annotations

from heliostat.ports.errors import Unavailable
from heliostat.providers.slurm.jobs import Job, Listing, parse_squeue, parse_submitted, squeue_command
from heliostat.providers.slurm.options import SlurmOptions
from heliostat.providers.slurm.refusals import refusal, trouble
from heliostat.providers.slurm.runner import Runner
from heliostat.providers.slurm.script import Submission


async def listed(runner: Runner, options: SlurmOptions, *, cluster_uid: str) -> tuple[Job, ...]:
    """Return every job with the cluster's tag; a listing that is not whole raises Unavailable."""
    return (await looked(runner, options, cluster_uid=cluster_uid)).jobs


async def looked(runner: Runner, options: SlurmOptions, *, cluster_uid: str) -> Listing:
    """Return what squeue has of the user: the cluster's jobs, and the ids of all others."""
    command = squeue_command(options.user)
    answer = await runner.run(command, deadline_s=options.command_deadline_s)
    if (wrong := trouble(command, answer.code, answer.stderr)) is not None:
        raise wrong
    try:
        return parse_squeue(answer.stdout, cluster_uid=cluster_uid)
    except ValueError as error:
        raise Unavailable(str(error)) from error


async def submitted(made: Submission, runner: Runner, options: SlurmOptions) -> int:
    """Submit a job; return its id. The job may be there all the same when this raises Unavailable."""
    answer = await runner.run(made.argv, stdin=made.script, deadline_s=options.command_deadline_s)
    if answer.code != 0:
        raise refusal(made.argv, answer.code, answer.stderr)
    try:
        return parse_submitted(answer.stdout)
    except ValueError as error:
        raise Unavailable(str(error)) from error
