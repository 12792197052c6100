"""Keeps jobs within the rules: from before Ray hears of one until it has ended.

A job is its caller's until it ends, so it holds its slot and costs what it uses, also after the call that
submitted it was answered, or cut off. Whoever ends the call ends the job, and the place is free only then.
Its id is the call's: whose it is, is kept before Ray has it, and it is found by it where nobody knows whether
Ray does.
"""

from __future__ import annotations

import asyncio
from contextlib import AbstractAsyncContextManager, suppress
from dataclasses import dataclass, field

import structlog

from heliostat.gateway.errors import CallError, Code
from heliostat.gateway.hypha.arguments import Submit
from heliostat.gateway.hypha.carrying import check_time
from heliostat.gateway.hypha.operations import Call
from heliostat.gateway.hypha.owners import Owners
from heliostat.gateway.hypha.ports import Admitted, Ask, Rules
from heliostat.gateway.work.port import Done, JobStatus, Needs, Work

log = structlog.get_logger(__name__)

LOOK_AFTER_S = 5.0
"""How often a job is looked at, and told again to end where it shall."""

MISSES_MAX = 720
"""Looks in a row that fail, an hour, after which a job is given up: its cluster is gone."""

UNKNOWN_MAX = 6
"""Looks in a row that find no such job, half a minute, after which there is none: a request that nobody
waited for any more has arrived by then."""

UNCLEAR = (Code.LOST, Code.TIMEOUT, Code.INTERNAL)
"""What a `submit` says after which Ray may have the job or not."""

WAITING = "waiting for a node"
PENDING = "pending"
ENDED = ("succeeded", "failed", "stopped")
"""Ray's words for a job that is over."""

UNKEPT = "the gateway can't write down whose the job would be; tell the owner of the cluster"
VANISHED = "the cluster does not know the job, or not any more"
CLOSED = "the gateway went down; the job may have been begun: ask job_status for this call_id later"


@dataclass(frozen=True)
class _Job:
    """A job that is kept: whoever submits it waits for `submitted`; `stop` is set once it shall end.

    `given` None: an earlier gateway has submitted it.
    """

    id: str
    given: Submit | None
    submitted: asyncio.Future[str]
    stop: asyncio.Event = field(default_factory=asyncio.Event)


class JobKeeper:
    """The jobs of this gateway, each in a task of its own."""

    def __init__(self, work: Work, rules: Rules, owners: Owners) -> None:
        self._work, self._rules, self._owners = work, rules, owners
        self._is_closing = False
        self._keeping: dict[asyncio.Task[None], asyncio.Future[str]] = {}

    async def submit(self, call: Call, ask: Ask, given: Submit) -> str:
        """Return the job's id once Ray has it. Whoever stops waiting for that does not stop the job."""
        job = _Job(call.call_id, given, asyncio.get_running_loop().create_future())
        self._begin(job, self._rules.admit(call.context, ask))
        return await asyncio.shield(job.submitted)

    def take_up(self) -> None:
        """Go on with the jobs of the gateway before this one."""
        for job_id in self._rules.left():
            job = _Job(job_id, None, asyncio.get_running_loop().create_future())
            job.submitted.set_result(job_id)
            self._begin(job, self._rules.resume(job_id))

    def _begin(self, job: _Job, admission: AbstractAsyncContextManager[Admitted]) -> None:
        task = asyncio.create_task(self._keep(job, admission), name=f"job-{job.id}")
        self._keeping[task] = job.submitted
        task.add_done_callback(self._over)

    async def drain(self, timeout_s: float) -> None:
        """Wait until each job that is being submitted is there, so long at most."""
        submitted = [one for one in self._keeping.values() if not one.done()]
        if submitted:
            await asyncio.wait(submitted, timeout=timeout_s)

    async def aclose(self) -> None:
        """Lose sight of every job; they go on, and the next gateway takes them up."""
        self._is_closing = True
        tasks = list(self._keeping)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _keep(self, job: _Job, admission: AbstractAsyncContextManager[Admitted]) -> None:
        try:
            async with admission as admitted:
                if job.given is None:
                    with suppress(OSError):
                        self._owners.add(job.id, admitted.caller.account)
                else:
                    await self._check(job.id, job.given, admitted)
                await self._held(job, admitted)
        except CallError as error:
            if not job.submitted.done():
                job.submitted.set_exception(error)
            elif error.code is not Code.STOPPED:
                log.warning("gateway_job_lost_sight", call_id=job.id, reason=error.message)

    async def _check(self, job_id: str, given: Submit, admitted: Admitted) -> None:
        """Keep whose a job is going to be; raises `CallError` where it may not begin."""
        check_time(admitted, given.timeout_s)
        try:
            self._owners.add(job_id, admitted.caller.account)
        except OSError as error:
            raise CallError(Code.UNAVAILABLE, UNKEPT) from error
        # Whoever was shut out while the call was written down is cancelled here: no job is begun for them.
        await asyncio.sleep(0)

    async def _held(self, job: _Job, admitted: Admitted) -> None:
        """Hold a job's place until it ends. A cancellation ends it, unless the gateway itself goes down."""
        running = asyncio.create_task(self._run(job, admitted))
        while not running.done():
            try:
                await asyncio.wait([running])
            except asyncio.CancelledError:
                if self._is_closing:
                    admitted.leave()
                    running.cancel()
                    await asyncio.wait([running])
                    raise
                if job.stop.is_set():
                    # It is being ended already; one cancellation is kept for the end.
                    _this_task().uncancel()
                job.stop.set()
        admitted.cost(_cost(admitted, running.result() if running.exception() is None else None))
        if job.stop.is_set():
            raise asyncio.CancelledError
        running.result()

    async def _run(self, job: _Job, admitted: Admitted) -> JobStatus:
        if job.given is not None:
            admitted.say(WAITING)
            await self._submit(job, job.given, _needs(admitted))
        return await self._end_of(job, admitted)

    async def _submit(self, job: _Job, given: Submit, needs: Needs) -> None:
        """Submit a job. Nothing cuts this off: Ray might have the job all the same."""
        try:
            await self._work.submit(job.id, given.entrypoint, runtime_env=given.runtime_env, needs=needs)
            _tell(job.submitted, job.id)
        except CallError as error:
            if error.code not in UNCLEAR:
                raise
            _tell(job.submitted, error)

    async def _end_of(self, job: _Job, admitted: Admitted) -> JobStatus:
        """Wait until a job ends; once it shall, tell it to until it has."""
        misses = unknown = 0
        while True:
            if job.stop.is_set():
                with suppress(CallError):
                    await self._work.stop_job(job.id)
            try:
                status = await self._work.job_status(job.id)
            except CallError as error:
                misses += 1
                unknown = unknown + 1 if error.code is Code.UNKNOWN_JOB else 0
                if unknown >= UNKNOWN_MAX:
                    raise CallError(Code.LOST, VANISHED) from error
                if misses >= MISSES_MAX:
                    raise
            else:
                misses = unknown = 0
                if status.state in ENDED:
                    return status
                if status.state == PENDING:
                    admitted.say(WAITING)
                else:
                    admitted.starts()
            await _pause(job.stop)

    def _over(self, task: asyncio.Task[None]) -> None:
        submitted = self._keeping.pop(task)
        if task.cancelled():
            _tell(submitted, CallError(Code.LOST, CLOSED))
        elif (error := task.exception()) is not None:
            log.error("gateway_job_keeper_broke", task=task.get_name(), error=repr(error))
            _tell(submitted, error)


async def _pause(stop: asyncio.Event) -> None:
    """Wait for the next look; a wish to end the job is heard at once, once."""
    if stop.is_set():
        await asyncio.sleep(LOOK_AFTER_S)
        return
    with suppress(TimeoutError):
        async with asyncio.timeout(LOOK_AFTER_S):
            await stop.wait()


def _tell(submitted: asyncio.Future[str], what: str | BaseException) -> None:
    if submitted.done():
        return
    if isinstance(what, str):
        submitted.set_result(what)
    else:
        submitted.set_exception(what)


def _needs(admitted: Admitted) -> Needs:
    assert admitted.needs is not None, "a job has needs"
    return admitted.needs


def _cost(admitted: Admitted, status: JobStatus | None) -> Done:
    """Return what a job has used; None: nobody knows how it ended.

    It runs from the look at which it was first seen to; Ray's own start is its submission, the queue and all.
    One that was over sooner than a look has run since the last look at most, and no longer than Ray has known
    of it.
    """
    needs = _needs(admitted)
    if status is None:
        ran_s = 0.0 if admitted.waits else min(admitted.ran_s(), needs.timeout_s)
    else:
        ran_s = admitted.ran_s(status.ended_at_s)
        if status.started_at_s is not None and status.ended_at_s is not None:
            ran_s = min(ran_s, max(0.0, status.ended_at_s - status.started_at_s))
    return Done(None, ran_s, gpu_s=ran_s * needs.gpus)


def _this_task() -> asyncio.Task[None]:
    task = asyncio.current_task()
    assert task is not None
    return task
