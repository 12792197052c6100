"""What stands for the rules, the cluster and its work where only the Hypha side of the gateway is tested."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from heliostat.gateway.caller import Caller
from heliostat.gateway.errors import CallError, Code
from heliostat.gateway.hypha.owners import Owners
from heliostat.gateway.hypha.ports import Ask, Context
from heliostat.gateway.hypha.services import Parts, Services
from heliostat.gateway.hypha.streams import CallsUnderway
from heliostat.gateway.work.port import Done, JobStatus, Needs, Say, Script, Signature
from heliostat.model.gateway import CallLimits, Right

EVERYTHING = frozenset(Right)


@dataclass
class Entry:
    """A call that was let in."""

    caller: Caller
    limits: CallLimits
    ask: Ask
    costs: list[Done] = field(default_factory=list)
    outcome: str = "running"
    lines: list[str] = field(default_factory=list)
    task: asyncio.Task[Any] | None = None
    why: str | None = None
    now_s: Callable[[], float] = lambda: 0.0
    waits: bool = False
    ran_from_s: float = 0.0

    @property
    def needs(self) -> Needs | None:
        asked = self.ask.needs
        return asked and replace(asked, timeout_s=min(asked.timeout_s, self.limits.timeout_s))

    def say(self, line: str) -> None:
        self.lines.append(line)
        self.waits, self.ran_from_s = line.startswith("waiting"), self.now_s()

    def leave(self) -> None:
        self.lines.append("left")

    def starts(self) -> None:
        if self.waits:
            self.say("running")

    def ran_s(self, until_s: float | None = None) -> float:
        return max(0.0, (self.now_s() if until_s is None else until_s) - self.ran_from_s)

    def cost(self, done: Done) -> None:
        self.costs.append(done)


@dataclass
class RulesByName:
    """Lets in whom it knows by e-mail or id, and remembers everything."""

    rights: Mapping[str, frozenset[Right]]
    limits: CallLimits = field(default_factory=CallLimits)
    entries: list[Entry] = field(default_factory=list)
    contexts: list[Context] = field(default_factory=list)
    now_s: float = 0.0

    @asynccontextmanager
    async def admit(self, context: Context, ask: Ask) -> AsyncIterator[Entry]:
        self.contexts.append(context)
        self.screen(context, ask)
        caller = caller_of(context)
        if ask.payload_bytes > self.limits.payload_bytes:
            raise CallError(Code.TOO_LARGE, f"{ask.payload_bytes} bytes are too many")
        entry = Entry(caller, self.limits, ask, task=asyncio.current_task(), now_s=lambda: self.now_s)
        self.entries.append(entry)
        try:
            yield entry
        except BaseException as error:
            if entry.why is not None and isinstance(error, asyncio.CancelledError):
                entry.outcome = "stopped"
                raise CallError(Code.STOPPED, entry.why) from None
            entry.outcome = error.code.value if isinstance(error, CallError) else type(error).__name__
            raise
        entry.outcome = "ok"

    def screen(self, context: Context, ask: Ask) -> None:
        self.recheck(context, ask.right)

    def recheck(self, context: Context, right: Right | None) -> None:
        rights = self.rights.get(caller_of(context).name, frozenset())
        if not rights or (right is not None and right not in rights):
            raise CallError(Code.NOT_ALLOWED, "the owner of this gateway has not let you do this")

    def left(self) -> Sequence[str]:
        return ()

    def resume(self, call_id: str) -> AbstractAsyncContextManager[Entry]:
        raise AssertionError("these rules remember nothing over a restart")

    def stop(self, call_id: str, why: str) -> bool:
        for one in self.running:
            if one.ask.call_id == call_id and one.task is not None:
                one.why = why
                return one.task.cancel()
        return False

    def may_call(self, caller: Caller, function: str) -> bool:
        return function != "secret"

    def calls(self, caller: Caller | None) -> Sequence[Mapping[str, Any]]:
        shown = [one for one in self.entries if caller is None or one.caller.account == caller.account]
        return [
            {
                "call_id": one.ask.call_id,
                "function": one.ask.function,
                "outcome": "" if one.outcome == "running" else one.outcome,
            }
            for one in shown
            if one.ask.needs is not None
        ]

    @property
    def running(self) -> list[Entry]:
        """Return the calls that hold a slot."""
        return [one for one in self.entries if one.outcome == "running" and one.ask.needs is not None]


def caller_of(context: Context) -> Caller:
    user = context["user"]
    return Caller(
        id=user["id"],
        email=user.get("email"),
        roles=frozenset(user.get("roles", ())),
        workspace=context.get("ws", ""),
        permission="a",
        parent=user.get("parent"),
        expires_at_s=user.get("expires_at"),
        is_anonymous=bool(user.get("is_anonymous")),
    )


@dataclass
class Arrived:
    """One call to the cluster that has arrived: what it is, and how it shall end."""

    call_id: str
    what: Script | tuple[str, Mapping[str, Any]]
    needs: Needs | None
    say: Say
    end: asyncio.Future[Any]


@dataclass
class WorkOnCall:
    """A cluster that does what a test says. `run` answers a script at once; without it, `arrived` has it."""

    run: Callable[[Script], Any] | None = None
    signatures: Sequence[Signature] = ()
    arrived: asyncio.Queue[Arrived] = field(default_factory=asyncio.Queue)
    jobs: dict[str, JobStatus] = field(default_factory=dict)
    logs: Sequence[str] = ()
    cancelled: int = 0

    async def run_python(self, call_id: str, script: Script, *, needs: Needs, say: Say) -> Done:
        if self.run is not None:
            return Done(self.run(script), ran_s=0.5, gpu_s=needs.gpus * 0.5)
        return await self._await_end(Arrived(call_id, script, needs, say, self._future()))

    async def call(
        self, call_id: str, function: str, *, arguments: Mapping[str, Any], needs: Needs | None, say: Say
    ) -> Done:
        return await self._await_end(Arrived(call_id, (function, arguments), needs, say, self._future()))

    async def _await_end(self, one: Arrived) -> Done:
        self.arrived.put_nowait(one)
        try:
            return Done(await one.end, ran_s=1.0, gpu_s=0.0)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise

    def _future(self) -> asyncio.Future[Any]:
        return asyncio.get_running_loop().create_future()

    async def functions(self) -> Sequence[Signature]:
        return self.signatures

    async def submit(
        self, call_id: str, entrypoint: str, *, runtime_env: Mapping[str, Any] | None, needs: Needs
    ) -> str:
        self.jobs[call_id] = JobStatus(call_id, "running", "", entrypoint, started_at_s=10.0)
        return call_id

    async def job_status(self, job_id: str) -> JobStatus:
        return self._job(job_id)

    def _job(self, job_id: str) -> JobStatus:
        if job_id not in self.jobs:
            raise CallError(Code.UNKNOWN_JOB, "there is no such job")
        return self.jobs[job_id]

    async def job_logs(self, job_id: str) -> AsyncIterator[str]:
        for text in self.logs:
            yield text

    async def stop_job(self, job_id: str) -> bool:
        job = self._job(job_id)
        self.jobs[job_id] = JobStatus(job_id, "stopped", "", job.entrypoint, 10.0, 30.0)
        return job.state == "running"

    async def aclose(self, timeout_s: float) -> None: ...


class SmallCluster:
    def __init__(self, *, gpus: bool = False) -> None:
        self.gpus = gpus

    async def status(self) -> Mapping[str, Any]:
        return {"nodes": [], "waiting": 0}

    async def has_gpus(self) -> bool:
        return self.gpus


@dataclass
class Gateway:
    """The services over stand-ins, with a clock that a test sets."""

    services: Services
    rules: RulesByName
    work: WorkOnCall
    underway: CallsUnderway
    now: list[float]

    def functions(self) -> dict[str, Any]:
        return self.services.definition("heliostat")


def gateway(
    folder: Path, rules: RulesByName, work: WorkOnCall, *, gpus: bool = False, prefix: str = "c"
) -> Gateway:
    now = [0.0]
    numbers = itertools.count(1)
    underway = CallsUnderway(lambda: now[0])
    parts = Parts(
        work=work,
        rules=rules,
        cluster=SmallCluster(gpus=gpus),
        underway=underway,
        owners=Owners(folder / "jobs"),
        new_id=lambda: f"{prefix}{next(numbers)}",
        about={"cluster": "demo"},
    )
    return Gateway(Services(parts), rules, work, underway, now)


def context_of(user: str, *, peer: str = "ws-1/client", **claims: Any) -> dict[str, Any]:
    """Return a call's context as a server gives it."""
    own = {"id": user, "email": f"{user}@example.org", "roles": [], "is_anonymous": False, **claims}
    return {"ws": f"ws-user-{user}", "from": peer, "user": own}
