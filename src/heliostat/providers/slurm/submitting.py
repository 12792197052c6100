"""Launches as job arrays: what is submitted, piece by piece where Slurm takes no more at once."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from heliostat.model.instance import LaunchRequest
from heliostat.ports.errors import InvalidRequest, ProviderError, QuotaExceeded
from heliostat.ports.provider import ClusterIdentity
from heliostat.providers.slurm.arguments import Ask
from heliostat.providers.slurm.asking import submitted
from heliostat.providers.slurm.options import SlurmOptions, job_options
from heliostat.providers.slurm.runner import Runner
from heliostat.providers.slurm.script import Submission, submission
from heliostat.providers.slurm.tags import Tag

SUBMITTED_AT_ONCE = 4
"""So many sbatch run beside one another; slurmctld limits what one user may ask in a second."""


@dataclass(frozen=True)
class Surroundings:
    """What a submission of a cluster needs; `lease_end_s` is the head's own end, if it has one.

    `usual_s` is the time limit of a job that asks for none; infinite where the type has one of its own.
    """

    identity: ClusterIdentity
    options: SlurmOptions
    log_dir: str
    bootstrap: str
    environment: Mapping[str, str] = field(default_factory=dict)
    kill_wait_s: float = 30.0
    max_array_size: int = 1001
    lease_end_s: float | None = None
    usual_s: float = math.inf


@dataclass(frozen=True)
class Submitted:
    """What came of one launch: the jobs by their ids, and the members that Slurm did not take."""

    jobs: Mapping[int, Tag] = field(default_factory=dict)
    failed: Mapping[str, ProviderError] = field(default_factory=dict)

    def plus(self, other: Submitted) -> Submitted:
        return Submitted({**self.jobs, **other.jobs}, {**self.failed, **other.failed})


def asks(request: LaunchRequest, around: Surroundings, *, now_s: float) -> list[Ask]:
    """Return a launch as jobs: a gang is one, alike instances one array for each `max_array_size`.

    InvalidRequest for a launch that can't be one.
    """
    if request.launch_id != "".join(one for one in request.launch_id if one.isalnum()):
        raise InvalidRequest(f"a launch id has letters and digits only: {request.launch_id!r}")
    whole = Ask(
        tag=_tag(request, around.identity),
        count=request.count,
        first=0,
        together=request.together,
        at_once=request.at_once,
        resources=request.node_type.resources.units(),
        start=request.start,
        environment={**around.environment, **request.environment},
        log_dir=around.log_dir,
        work_dir=around.options.work_dir,
        bootstrap=around.bootstrap,
        kill_wait_s=around.kill_wait_s,
        time_limit_s=_cap_s(around, now_s=now_s),
    )
    if request.together:
        return [whole]
    size = max(1, around.max_array_size)
    firsts = range(0, request.count, size)
    if request.at_once is not None:
        # Each array has a throttle of its own, and none lets nobody run.
        whole = replace(whole, at_once=max(1, request.at_once // len(firsts)))
    return [part(whole, first, min(size, request.count - first)) for first in firsts]


def _cap_s(around: Surroundings, *, now_s: float) -> float | None:
    """Return the time that a job may have at most, so that it ends with its head; None for any time."""
    if around.lease_end_s is None:
        return None
    # A job that asks for no time must not ask for more than it would get: a partition may not allow that.
    return min(around.lease_end_s - now_s, around.usual_s)


def part(ask: Ask, first: int, count: int) -> Ask:
    """Return the ask for `count` members from the index `first` on."""
    return replace(ask, tag=replace(ask.tag, first=first, count=count), first=first, count=count)


async def submit(
    request: LaunchRequest, around: Surroundings, runner: Runner, *, turn: asyncio.Semaphore, now_s: float
) -> Submitted:
    """Submit a launch; what Slurm's limits refuse as a whole is tried by halves, and the rest reported.

    `turn` bounds how many sbatch run beside one another.
    """
    try:
        options = job_options(around.options, request.node_type.options)
        every = [(ask, submission(options, ask)) for ask in asks(request, around, now_s=now_s)]
    except ProviderError as error:
        return Submitted(failed=dict.fromkeys(request.instance_ids, error))

    async def one(ask: Ask, found: Submission) -> Submitted:
        async with turn:
            return await _submit(ask, found, around=around, runner=runner, request=request)

    found = Submitted()
    for part_of_it in await asyncio.gather(*(one(ask, made) for ask, made in every)):
        found = found.plus(part_of_it)
    return found


async def _submit(
    ask: Ask, made: Submission, *, around: Surroundings, runner: Runner, request: LaunchRequest
) -> Submitted:
    try:
        return Submitted({await submitted(made, runner, around.options): ask.tag})
    except QuotaExceeded as error:
        half = ask.count // 2
        if ask.together or half == 0:
            return Submitted(failed=_failed(ask, error))
        less = part(ask, ask.first, half)
        options = job_options(around.options, request.node_type.options)
        found = await _submit(less, submission(options, less), around=around, runner=runner, request=request)
        rest = part(ask, ask.first + half, ask.count - half)
        # Where the half was taken there may be room for some more; the next round asks for them.
        return Submitted(found.jobs, {**found.failed, **_failed(rest, error)})
    except ProviderError as error:
        return Submitted(failed=_failed(ask, error))


def _failed(ask: Ask, error: ProviderError) -> dict[str, ProviderError]:
    return {ask.tag.instance_id(index): error for index in range(ask.count)}


def _tag(request: LaunchRequest, identity: ClusterIdentity) -> Tag:
    return Tag(
        cluster_name=identity.cluster_name,
        cluster_uid=identity.cluster_uid,
        owner=identity.owner,
        launch_id=request.launch_id,
        node_type=request.node_type.name,
        shape_id=request.node_type.shape_id,
        count=request.count,
        first=0,
        together=request.together,
    )
