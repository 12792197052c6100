"""Jobs: a command that Ray runs beside the callers, its state, its log and its end."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict
from typing import Any

from heliostat.gateway.errors import CallError, Code
from heliostat.gateway.hypha.arguments import JobLogs, OneJob, Resources, Submit
from heliostat.gateway.hypha.converting import Converting
from heliostat.gateway.hypha.job_keeper import JobKeeper
from heliostat.gateway.hypha.job_logs import Logs
from heliostat.gateway.hypha.operations import CLOSED, Call, Operation, answer
from heliostat.gateway.hypha.owners import Owners
from heliostat.gateway.hypha.ports import Ask, Rules
from heliostat.gateway.work.port import Needs, Work
from heliostat.model.gateway import Right

TIMEOUT_S = 3600.0
"""For a job that names none, if its limits allow so much."""

UNKNOWN = "there is no such job of yours"

NeedsOf = Callable[[Resources | None, float | None], Awaitable[Needs]]


class JobServices:
    """What callers may do with jobs. `needs` makes needs of what a caller asks for."""

    def __init__(
        self, work: Work, rules: Rules, owners: Owners, *, needs: NeedsOf, converting: Converting
    ) -> None:
        self._converting = converting
        self._work, self._rules, self._owners, self._needs = work, rules, owners, needs
        self._keeper = JobKeeper(work, rules, owners)
        self.is_closing = False
        self._logs = Logs(work, rules)

    def operations(self) -> Sequence[Operation]:
        return [
            Operation("submit", self.submit, Submit, "Run a command as a job of Ray's."),
            Operation("job_status", self.job_status, OneJob, "Say how a job of yours is."),
            Operation("job_logs", self.job_logs, JobLogs, "Show what a job of yours has written."),
            Operation("stop_job", self.stop_job, OneJob, "End a job of yours."),
        ]

    async def submit(self, call: Call, given: Submit) -> Any:
        if self.is_closing:
            raise CallError(Code.UNAVAILABLE, CLOSED)
        # Before anything is made of what a stranger brings.
        self._rules.screen(call.context, Ask(call.call_id, "submit", Right.RUN))
        environment = await self._converting.received(given.runtime_env, "runtime_env", "plain")
        size = await self._converting.size_bytes(given.entrypoint, environment)
        given = given.model_copy(update={"runtime_env": environment})
        needs = await self._needs(given.resources, given.timeout_s or TIMEOUT_S)
        ask = Ask(call.call_id, "submit", Right.RUN, payload_bytes=size, needs=needs, script=given.entrypoint)
        return answer(call, await self._keeper.submit(call, ask, given))

    async def job_status(self, call: Call, given: OneJob) -> Any:
        async with self._rules.admit(call.context, Ask(call.call_id, "job_status", Right.RUN)) as admitted:
            self._check(given.job_id, admitted.caller.account)
            return answer(call, asdict(await self._work.job_status(given.job_id)))

    async def stop_job(self, call: Call, given: OneJob) -> Any:
        async with self._rules.admit(call.context, Ask(call.call_id, "stop_job", Right.RUN)) as admitted:
            self._check(given.job_id, admitted.caller.account)
            return answer(call, await self._work.stop_job(given.job_id))

    async def job_logs(self, call: Call, given: JobLogs) -> Any:
        async with self._rules.admit(call.context, Ask(call.call_id, "job_logs", Right.RUN)) as admitted:
            self._check(given.job_id, admitted.caller.account)
            if given.stream:
                return self._logs.stream(call, given.job_id)
            return answer(call, await self._logs.look(given.job_id, given.offset, wait_s=given.wait_s))

    def _check(self, job_id: str, owner: str) -> None:
        if not self._owners.has(job_id, owner):
            raise CallError(Code.UNKNOWN_JOB, UNKNOWN)

    def start(self) -> None:
        """Go on with what an earlier gateway has left."""
        self._keeper.take_up()

    async def drain(self, timeout_s: float) -> None:
        """Give what is being submitted so long to be there."""
        await self._keeper.drain(timeout_s)

    async def aclose(self) -> None:
        """Lose sight of every job; they go on."""
        await self._keeper.aclose()
        await self._logs.aclose()
