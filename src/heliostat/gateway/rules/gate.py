"""The way in for each call: who is it, may they, how much, written down, done, settled, written down.

Every function of the service goes through `Gate.admit`. A call that was let in is ended once, whatever
becomes of it, and what it cost is settled then.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from heliostat.gateway.caller import Caller
from heliostat.gateway.errors import CallError, Code
from heliostat.gateway.rules import lines
from heliostat.gateway.rules.audit import NAME as AUDIT_NAME
from heliostat.gateway.rules.audit import AuditLog, NotDurable, lines_in
from heliostat.gateway.rules.calls import WAITING, Ask, CallRegister, call_of
from heliostat.gateway.rules.history import GOES_ON, Begun, lost_line, read_back
from heliostat.gateway.rules.identity import caller_of
from heliostat.gateway.rules.limits import Usage, check_asked, check_payload
from heliostat.gateway.rules.metrics import GatewayMetrics
from heliostat.gateway.rules.permission import entries_of, permitted
from heliostat.gateway.rules.repeats import Repeats
from heliostat.gateway.rules.revoked import NAME as REVOKED_NAME
from heliostat.gateway.rules.revoked import Revocations
from heliostat.gateway.rules.scripts import NAME as SCRIPTS_NAME
from heliostat.gateway.rules.scripts import Scripts
from heliostat.gateway.work.port import Done, Needs
from heliostat.model.gateway import CallLimits, GatewaySettings, Right

OK = "ok"
RUNNING = "running"
UNLIMITED = CallLimits(calls_at_a_time=None, gpu_s_per_day=None)
"""For what runs already."""
CANCELLED = "cancelled"
"""The outcome of a call whose caller went away or ended it."""


@dataclass
class Admitted:
    """A call that was let in. `needs` are within its limits; None: it takes nothing of the cluster's.

    `waits`: it has said that it has no node yet; else it may run since `ran_from_s`. `done` is what it has
    cost, once that is known.
    """

    caller: Caller
    limits: CallLimits
    ask: Ask
    since_s: float
    needs: Needs | None
    ran_from_s: float
    gate: Gate = field(repr=False)
    waits: bool = False
    done: Done | None = None
    is_started: bool = False
    goes_on: bool = False

    def cost(self, done: Done) -> None:
        """Take down what it has used; without it, it is charged for what it can have run."""
        self.done = done

    def say(self, line: str) -> None:
        """Keep a line on how the call gets on: administrators see it, and a wait for a node costs nothing."""
        self.waits = line.startswith(WAITING)
        self.ran_from_s = self.gate.now_s()
        self.gate.register.note(self.ask.call_id, line)

    def leave(self) -> None:
        """Take down that it goes on without this gateway; the next one ends it in the log."""
        self.goes_on = True

    def starts(self) -> None:
        """Take down that it has its node by now; the log keeps when that was first seen."""
        if self.is_started:
            return
        self.is_started = True
        if self.waits:
            self.ran_from_s, self.waits = self.gate.now_s(), False
        self.gate.register.note(self.ask.call_id, RUNNING)
        self.gate.audit.add_at_last(lines.running(self.caller, self.ask, now_s=self.ran_from_s))

    def ran_s(self, until_s: float | None = None) -> float:
        """Return the seconds since it began, or was last said to wait, until then, Unix time; None is now."""
        now_s = self.gate.now_s()
        return max(0.0, min(now_s, now_s if until_s is None else until_s) - self.ran_from_s)

    def used(self, error: BaseException | None, now_s: float) -> tuple[float | None, float]:
        """Return the seconds that it ran, None where nobody knows, and the GPU seconds that are charged.

        A call that failed says what it cost. One that was cancelled can't: it is charged as if it had run
        since it last said anything else than that it waits.
        """
        if self.done is not None:
            return self.done.ran_s, self.done.gpu_s
        if isinstance(error, CallError) and error.code is not Code.STOPPED:
            return error.ran_s, error.gpu_s
        if self.needs is None or self.waits:
            return None, 0.0
        return None, self.needs.gpus * min(self.needs.timeout_s, max(0.0, now_s - self.ran_from_s))


@dataclass
class Gate:
    """`workspace` is the gateway's own, once it is known; until then nobody holds a permission there.

    `now_s` is Unix time. `scripts` None: their texts are not kept.
    """

    settings: GatewaySettings
    audit: AuditLog
    revocations: Revocations
    now_s: Callable[[], float]
    scripts: Scripts | None = None
    workspace: str = ""
    usage: Usage = field(default_factory=Usage)
    register: CallRegister = field(default_factory=CallRegister)
    is_closing: bool = False

    def __post_init__(self) -> None:
        self.workspace = self.workspace or self.settings.workspace or ""
        self.metrics = GatewayMetrics(
            # Asked for by the thread that serves them, while the loop changes the register.
            in_flight=lambda: self.register.counts()[0],
            waiting=lambda: self.register.counts()[1],
            audit_behind=lambda: self.audit.is_behind,
        )
        self._repeats = Repeats()
        self._left: dict[str, Begun] = {}

    @contextlib.asynccontextmanager
    async def admit(self, context: Mapping[str, Any], ask: Ask) -> AsyncIterator[Admitted]:
        """Let a call in for as long as the block runs, or raise CallError.

        How the block ends is the call's outcome. Where somebody else has ended the call, the block is
        cancelled, and CallError(STOPPED) comes out of it.
        """
        async with self._held(await self._admitted(context, ask)) as admitted:
            yield admitted

    def left(self) -> list[str]:
        """Return the ids of the jobs that an earlier gateway has left running. They hold their places."""
        return list(self._left)

    @contextlib.asynccontextmanager
    async def resume(self, call_id: str) -> AsyncIterator[Admitted]:
        """Go on with a job that an earlier gateway has left, as if it had been let in by this one."""
        one = self._left.pop(call_id)
        since_s = one.began_at_s if one.ran_from_s is None else one.ran_from_s
        admitted = Admitted(one.caller, UNLIMITED, one, one.began_at_s, one.needs, since_s, self)
        admitted.is_started = one.ran_from_s is not None
        async with self._held(admitted):
            yield admitted

    @contextlib.asynccontextmanager
    async def _held(self, admitted: Admitted) -> AsyncIterator[Admitted]:
        call_id = admitted.ask.call_id
        if admitted.needs is not None:
            self.register.on_stop(call_id, _current_task().cancel)
        try:
            yield admitted
        except BaseException as error:
            stopped = self._stopped(call_id, error)
            self._end(admitted, stopped or error)
            if stopped is not None:
                raise stopped from None
            raise
        self._end(admitted, None)
        if admitted.needs is None and (line := self._small(admitted.caller, admitted.ask, OK)):
            await self.audit.add(line)

    def screen(self, context: Mapping[str, Any], ask: Ask) -> None:
        """Raise CallError where `admit` would refuse it, whatever came with it. Nothing is taken up.

        So that nobody has the gateway work through what they bring who may not bring it.
        """
        caller = None
        try:
            caller = caller_of(context, self.workspace)
            limits = self._limits(caller, ask.right, ask.published)
            self._check_sandbox(ask)
            self.usage.check_calls(caller.account, limits)
        except CallError as error:
            self._refused(caller, ask, error.code.value)
            raise

    def recheck(self, context: Mapping[str, Any], right: Right) -> None:
        """Raise CallError where a caller who was let in would not be let in now; nothing is written."""
        self._limits(caller_of(context, self.workspace), right, None)

    def may_call(self, caller: Caller, function: str) -> bool:
        try:
            self._limits(caller, Right.CALL, function)
        except CallError:
            return False
        return True

    def stop(self, call_id: str, why: str) -> bool:
        """End a call that was let in; `why` is told to its caller. Say whether there was such a call."""
        return self.register.stop(call_id, why)

    def calls(self, caller: Caller | None) -> list[dict[str, Any]]:
        """Return a caller's calls in plain values, None is everybody's: in flight, then the last done."""
        account = None if caller is None else caller.account
        found = [*self.register.in_flight(account), *self.register.lately(account)]
        return [one.facts() for one in found]

    def shut_out(self, who: str) -> int:
        """Let somebody in no more, and end what they have in flight; return how many calls that are.

        Raises HeliostatError where it can't be kept.
        """
        entry = self.revocations.add(who, now_s=self.now_s())
        self.write("revoked", who=entry.who)
        theirs = [one for one in self.register.in_flight() if one.is_of(entry.who)]
        return sum(self.register.stop(one.call_id, "the owner has revoked your access") for one in theirs)

    def let_back(self, who: str) -> bool:
        """Say whether they were shut out; now they are what the cluster file makes of them."""
        was = self.revocations.take_back(who)
        if was:
            self.write("let_back", who=who)
        return was

    def take_up(self, one: Begun) -> None:
        """Give a job that an earlier gateway has left its place again; whoever is shut out has it ended."""
        now_s, caller = self.now_s(), one.caller
        self._left[one.call_id] = one
        self.usage.claim(one.call_id, caller.account, needs=one.needs, limits=UNLIMITED, now_s=now_s)
        self.register.begin(call_of(caller, one, needs=one.needs, now_s=one.began_at_s))
        try:
            self.revocations.check(caller)
        except CallError as error:
            self.register.stop(one.call_id, error.message)

    def write(self, event: str, **facts: Any) -> None:
        """Write what the owner did."""
        self.audit.add_at_last({"at_s": self.now_s(), "event": event, **facts})

    def close(self) -> None:
        """Write what is left to be written. Calls in flight have been ended by those who run them."""
        self.is_closing = True
        for kind, times in self._repeats.left():
            self.audit.add_at_last(lines.small(kind, times, now_s=self.now_s()))
        self.audit.close()
        self.metrics.close()

    async def _admitted(self, context: Mapping[str, Any], ask: Ask) -> Admitted:
        now_s, caller = self.now_s(), None
        try:
            caller = caller_of(context, self.workspace)
            limits = self._limits(caller, ask.right, ask.published)
            check_payload(ask.payload_bytes, limits)
            needs = self._needs(ask, limits)
            admitted = Admitted(caller, limits, ask, now_s, needs, now_s, self)
            if needs is not None:
                await self._begin(admitted, needs, now_s)
        except CallError as error:
            self._refused(caller, ask, error.code.value)
            raise
        return admitted

    def _limits(self, caller: Caller, right: Right | None, published: str | None) -> CallLimits:
        self.revocations.check(caller)
        allow, now_s = self.settings.allow, self.now_s()
        if right is None:
            return entries_of(allow, caller, now_s=now_s)[0].limits
        return permitted(allow, caller, right, function=published, now_s=now_s)

    def _needs(self, ask: Ask, limits: CallLimits) -> Needs | None:
        self._check_sandbox(ask)
        if ask.needs is None:
            return None
        if self.is_closing:
            raise CallError(Code.UNAVAILABLE, "the gateway is going down; call again in a while")
        check_asked(ask.needs)
        return replace(ask.needs, timeout_s=min(ask.needs.timeout_s, limits.timeout_s))

    def _check_sandbox(self, ask: Ask) -> None:
        if ask.right is Right.RUN and self.settings.sandbox is None:
            raise CallError(Code.NOT_ALLOWED, "code of callers is switched off here")

    async def _begin(self, admitted: Admitted, needs: Needs, now_s: float) -> None:
        caller, ask = admitted.caller, admitted.ask
        self.usage.claim(ask.call_id, caller.account, needs=needs, limits=admitted.limits, now_s=now_s)
        # Before the wait for the disk: who is shut out meanwhile has this call ended, too.
        self.register.begin(call_of(caller, ask, needs=needs, now_s=now_s))
        try:
            if self.scripts is not None and ask.script is not None:
                await self.scripts.keep(ask.script)
            await self.audit.add_for_certain(lines.begun(caller, ask, needs=needs, now_s=now_s))
        except BaseException as error:
            self.usage.settle(ask.call_id, gpu_s=0.0, now_s=now_s)
            self.register.forget(ask.call_id)
            if isinstance(error, NotDurable) or not isinstance(error, CallError):
                # Its line may be there: it must not look like a call that nobody saw the end of.
                self.audit.add_at_last(lines.never_ran(caller, ask, _outcome(error), now_s=self.now_s()))
            raise

    def _stopped(self, call_id: str, error: BaseException) -> CallError | None:
        """Return what is said of a call that somebody else has ended; None of any other."""
        why = self.register.why_stopped(call_id)
        if why is None or not isinstance(error, asyncio.CancelledError):
            return None
        # The cancelling was ours and ends here.
        _current_task().uncancel()
        return CallError(Code.STOPPED, why)

    def _end(self, admitted: Admitted, error: BaseException | None) -> None:
        now_s, ask, caller = self.now_s(), admitted.ask, admitted.caller
        if admitted.goes_on:
            self.usage.settle(ask.call_id, gpu_s=0.0, now_s=now_s)
            self.register.forget(ask.call_id)
            return
        outcome, took_s = _outcome(error), max(0.0, now_s - admitted.since_s)
        ran_s, gpu_s = admitted.used(error, now_s)
        self.metrics.count(ask.function, ask.published, outcome, seconds=took_s, gpu_s=gpu_s)
        if admitted.needs is None:
            if error is not None and (line := self._small(caller, ask, outcome)):
                self.audit.add_if_well(line)
            return
        self.usage.settle(ask.call_id, gpu_s=gpu_s, now_s=now_s)
        call = self.register.end(ask.call_id, outcome, gpu_s=gpu_s, now_s=now_s)
        message = error.message if isinstance(error, CallError) else ""
        self.audit.add_at_last(lines.ended(call, message, ran_s=ran_s, done=admitted.done))

    def _refused(self, caller: Caller | None, ask: Ask, outcome: str) -> None:
        self.metrics.count(ask.function, ask.published, outcome, seconds=0.0)
        # A refusal stands, whether it can be written or not.
        if line := self._small(caller, ask, outcome):
            self.audit.add_if_well(line)

    def _small(self, caller: Caller | None, ask: Ask, outcome: str) -> lines.Line | None:
        """Return the line of what costs nothing, where one is due."""
        kind = lines.kind_of(caller, ask, outcome)
        times = self._repeats.times(kind, now_s=self.now_s())
        return lines.small(kind, times, now_s=self.now_s()) if times else None


def open_gate(settings: GatewaySettings, folder: Path, *, now_s: Callable[[], float]) -> Gate:
    """Return a gate that keeps its log and its revocations in `folder`, which is there and the owner's alone.

    What was used today counts on; calls that a killed gateway has left behind are ended as lost, jobs wait
    for `resume`. Only one gate may have the folder. Raises HeliostatError and OSError.
    """
    path = folder / AUDIT_NAME
    history = read_back(lines_in(path))
    scripts = Scripts(folder / SCRIPTS_NAME) if settings.keep_scripts else None
    gate = Gate(settings, AuditLog(path), Revocations(folder / REVOKED_NAME), now_s, scripts)
    at_s = now_s()
    for account, gpu_s, ended_at_s in history.spent:
        gate.usage.add(account, gpu_s, at_s=ended_at_s, now_s=at_s)
    for one in history.unfinished.values():
        if one.function == GOES_ON:
            gate.take_up(one)
            continue
        line = lost_line(one, now_s=at_s)
        gate.usage.add(one.account, line["gpu_s"], at_s=at_s, now_s=at_s)
        # Who comes back for it finds what became of it.
        gate.register.begin(call_of(one.caller, one, needs=one.needs, now_s=one.began_at_s))
        gate.register.end(one.call_id, line["outcome"], gpu_s=line["gpu_s"], now_s=at_s)
        gate.audit.add_at_last(line)
    return gate


def _current_task() -> asyncio.Task[Any]:
    task = asyncio.current_task()
    assert task is not None
    return task


def _outcome(error: BaseException | None) -> str:
    if error is None:
        return OK
    if isinstance(error, CallError):
        return error.code.value
    # A stream that nobody reads any more is closed, a call whose caller is gone is cancelled.
    gone = isinstance(error, asyncio.CancelledError | GeneratorExit)
    return CANCELLED if gone else Code.INTERNAL.value
