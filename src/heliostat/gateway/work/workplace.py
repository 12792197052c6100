"""`port.Work` over a driver process, which is replaced whenever it or its head goes.

Nothing waits in silence: what was under way when a driver went is answered as lost, what comes while there is
none waits a little and is then refused, and what waits for a node is told how that goes.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from heliostat.gateway.errors import CallError, Code
from heliostat.gateway.work import outcomes
from heliostat.gateway.work.link import Heard, Link
from heliostat.gateway.work.parcel import Damaged, NotSendable, pack
from heliostat.gateway.work.port import Done, JobStatus, Needs, Say, Script, Signature
from heliostat.gateway.work.waiting import RUNNING, Changes, Shapes, outlook
from heliostat.model.gateway import Sandbox, SandboxKind
from heliostat.model.report import StatusReport
from heliostat.ports.errors import HeliostatError

log = logging.getLogger(__name__)

READY_TIMEOUT_S = 30.0
"""How long a call waits for a driver that is being started anew."""
BACKOFF_S = (0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
STEADY_S = 60.0
"""A driver that has lived so long was no failed start: the next one comes at once."""
LOOK_S = 2.0
ASK_TIMEOUT_S = 45.0
"""For what takes no node: above the driver's own limit for Ray's job API."""
INPUTS = "['inputs']"
ARGUMENTS = "['args']['arguments']"
HEAD_BYTES = 2**20
"""What a parcel takes beyond its parts, at most."""
HOPELESS_LOOKS = 2
"""A young demand may be called infeasible until the controller has looked at it again."""
RUNTIME_KEYS = {"env_vars", "pip", "uv", "conda"}
"""What a script's runtime_env may name. What else there is runs outside the sandbox, or reads there."""

Status = Callable[[], Awaitable[StatusReport | None]]
"""The controller's report, None while it does not answer; it never raises and has a deadline of its own."""


@dataclass(frozen=True)
class DriverCommand:
    """How the driver is started beside the head, by ssh or srun where that is on another host."""

    argv: Sequence[str]
    environment: Mapping[str, str]


@dataclass(frozen=True)
class WorkSettings:
    """What a workplace is made with.

    `driver` is asked before each start, since the cluster may be another one by then; it raises
    HeliostatError while there is none, and may take a moment: it is called in a thread. `shapes` are the
    node types' resources. `functions` is the owner's module or `.py` file. `result_bytes` is the largest
    value that any caller may get. `withheld` names variables that no driver gets, whatever its command says.
    """

    driver: Callable[[], DriverCommand]
    shapes: Shapes = field(default_factory=dict)
    sandbox: Sandbox | None = None
    functions: str | None = None
    runtime_env: bool = False
    result_bytes: int = 64 * 2**20
    withheld: frozenset[str] = frozenset()


class Workplace:
    """The cluster as callers' work. Use from one event loop, between `start` and `aclose`."""

    def __init__(self, settings: WorkSettings, status: Status) -> None:
        self._settings = settings
        self._looked = _Looked(status)
        self._link: Link | None = None
        self._there = asyncio.Event()
        self._supervising: asyncio.Task[None] | None = None
        self._under_way = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._closing = False
        self.absence = ""
        """Why there is no cluster to connect to, for the owner; empty while there is one."""

    @property
    def trouble(self) -> str:
        """Return what is wrong with the owner's functions, empty if nothing is known to be."""
        return self._link.trouble if self._link else ""

    @property
    def connected(self) -> bool:
        """Say whether there is a driver that is connected to Ray."""
        return self._there.is_set()

    def start(self) -> None:
        """Begin to hold a driver; calls may come at once."""
        assert self._supervising is None, "a workplace is started once"
        self._supervising = asyncio.create_task(self._supervise())

    async def run_python(self, call_id: str, script: Script, *, needs: Needs, say: Say) -> Done:
        sandbox = self._sandbox()
        runtime_env, variables = self._runtime(script.runtime_env)
        _check_names(script.inputs)
        if needs.gpus % 1:
            # It could use all of it, whatever it has asked for: nothing holds it to a part.
            raise CallError(Code.INVALID, "a script gets whole GPUs")
        memory_bytes = needs.memory_bytes or sandbox.memory_bytes
        body = await _packed(
            {
                "text": script.text,
                "inputs": dict(script.inputs),
                "variables": variables,
                "result_bytes": self._settings.result_bytes,
                # CUDA maps far more of a process's memory than it takes.
                "data_bytes": None if needs.gpus else memory_bytes,
            }
        )
        task = {
            "call_id": call_id,
            "body": body,
            "kind": sandbox.kind.value,
            "image": sandbox.image,
            "memory_bytes": memory_bytes,
            "result_bytes": self._settings.result_bytes + HEAD_BYTES,
        }
        args = {"call_id": call_id, "needs": vars(needs), "runtime_env": runtime_env, "task": task}
        return await self._work("script", args, needs=needs, say=say, memory_bytes=memory_bytes)

    async def call(
        self, call_id: str, function: str, *, arguments: Mapping[str, Any], needs: Needs | None, say: Say
    ) -> Done:
        usual = needs or await self._needs_of(function)
        args = {
            "call_id": call_id,
            "function": function,
            "arguments": dict(arguments),
            "needs": vars(usual),
            "result_bytes": self._settings.result_bytes,
        }
        return await self._work("call", args, needs=usual, say=say)

    async def functions(self) -> Sequence[Signature]:
        found = await self._ask("functions", {})
        return [Signature(**{**one, "needs": Needs(**one["needs"])}) for one in found]

    async def submit(
        self, call_id: str, entrypoint: str, *, runtime_env: Mapping[str, Any] | None, needs: Needs
    ) -> str:
        """Return the job's id, which is `call_id`.

        A job speaks to Ray, and whoever does that can do all that the owner's account can: no sandbox holds
        it.
        """
        if self._sandbox().kind is not SandboxKind.NONE:
            raise CallError(
                Code.NOT_ALLOWED, "jobs run outside the sandbox, with the owner's rights: they are off here"
            )
        if runtime_env and not self._settings.runtime_env:
            raise CallError(Code.NOT_ALLOWED, "a runtime_env is not allowed here")
        _check_needs(needs)
        args = {"job_id": call_id, "entrypoint": entrypoint, "needs": vars(needs)}
        return str(await self._ask("submit", {**args, "runtime_env": dict(runtime_env or {})}))

    async def job_status(self, job_id: str) -> JobStatus:
        return JobStatus(**await self._ask("job_status", {"job_id": job_id}))

    async def job_logs(self, job_id: str) -> AsyncIterator[str]:
        link = await self._ready()
        number = await self._ask("open_log", {"job_id": job_id}, link=link)
        try:
            while (lines := await link.ask("next_lines", {"log": number})) is not None:
                yield str(lines)
        finally:
            # Who stops reading may have been cancelled: the driver closes it by itself, only later.
            with contextlib.suppress(CallError):
                await self._ask("close_log", {"log": number}, link=link)

    async def stop_job(self, job_id: str) -> bool:
        return bool(await self._ask("stop_job", {"job_id": job_id}))

    async def aclose(self, timeout_s: float) -> None:
        self._closing = True
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._idle.wait(), timeout_s)
        if self._link is not None:
            self._link.give_up(CallError(Code.STOPPED, "the gateway goes down"))
        if self._supervising is not None:
            self._supervising.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._supervising

    def _sandbox(self) -> Sandbox:
        if self._settings.sandbox is None:
            raise CallError(Code.NOT_ALLOWED, "code of your own is off here: its owner has named no sandbox")
        return self._settings.sandbox

    def _runtime(self, asked: Mapping[str, Any] | None) -> tuple[dict[str, Any], dict[str, str]]:
        """Return what Ray shall make for a script, and the variables that are its sandbox's own."""
        if not asked:
            return {}, {}
        if not self._settings.runtime_env:
            raise CallError(Code.NOT_ALLOWED, "a runtime_env is not allowed here")
        in_image = self._sandbox().kind is SandboxKind.APPTAINER
        known = {"env_vars"} if in_image else RUNTIME_KEYS
        unknown = sorted(asked.keys() - known)
        if unknown:
            may, not_these = ", ".join(sorted(known)), ", ".join(map(str, unknown))
            raise CallError(Code.INVALID, f"a script's runtime_env may hold {may}, not {not_these}")
        variables = asked.get("env_vars", {})
        if not isinstance(variables, Mapping) or not all(
            isinstance(text, str) for pair in variables.items() for text in pair
        ):
            raise CallError(Code.INVALID, "env_vars of a runtime_env are names and texts")
        return {key: value for key, value in asked.items() if key != "env_vars"}, dict(variables)

    async def _needs_of(self, function: str) -> Needs:
        found = next((one for one in await self.functions() if one.name == function), None)
        if found is None:
            raise CallError(Code.INVALID, f"no function {function} is published here")
        return found.needs

    async def _work(
        self, op: str, args: Mapping[str, Any], *, needs: Needs, say: Say, memory_bytes: int | None = None
    ) -> Done:
        """Have it done on a node, and say meanwhile how it gets on."""
        _check_needs(needs)
        progress = _Progress(say)
        with self._counted():
            link = await self._ready()
            asking = asyncio.ensure_future(self._answered(link, op, args, heard=progress.began))
            following = asyncio.create_task(self._follow(progress, needs))
            try:
                await asyncio.wait([asking, following], return_when=asyncio.FIRST_COMPLETED)
                if following.done() and not asking.done():
                    # It returns before the call has begun only if that can never be.
                    raise CallError(Code.INVALID, following.result())
                outcome = await asking
            except CallError as error:
                raise _with_cost(error, progress, needs) from error
            finally:
                following.cancel()
                asking.cancel()
                await asyncio.gather(asking, following, return_exceptions=True)
        return await asyncio.to_thread(_done, outcome, needs, memory_bytes)

    async def _answered(
        self, link: Link, op: str, args: Mapping[str, Any], *, heard: Heard | None = None
    ) -> Any:
        try:
            return await link.ask(op, args, heard=heard)
        except NotSendable as error:
            raise CallError(
                Code.INVALID, f"the arguments can't be sent: {error.inside(ARGUMENTS)}"
            ) from error

    async def _follow(self, progress: _Progress, needs: Needs) -> str:
        """Say what it waits for until it has begun; return why it will never begin, if that is so."""
        hopeless = 0
        while True:
            found = outlook(await self._looked.report(), needs, shapes=self._settings.shapes)
            if progress.began_s is None:
                progress.changes.say(found.text)
                hopeless = hopeless + 1 if found.hopeless else 0
            if hopeless >= HOPELESS_LOOKS and progress.began_s is None:
                return found.text
            await asyncio.sleep(LOOK_S)

    async def _ask(self, op: str, args: Mapping[str, Any], *, link: Link | None = None) -> Any:
        with self._counted():
            driver = link or await self._ready()
            try:
                async with asyncio.timeout(ASK_TIMEOUT_S):
                    return await self._answered(driver, op, args)
            except TimeoutError as error:
                raise CallError(Code.LOST, "the cluster did not answer in time; it may have acted") from error

    @contextlib.contextmanager
    def _counted(self) -> Any:
        if self._closing:
            raise CallError(Code.UNAVAILABLE, "the gateway goes down; nothing was begun")
        self._under_way += 1
        self._idle.clear()
        try:
            yield
        finally:
            self._under_way -= 1
            if not self._under_way:
                self._idle.set()

    async def _ready(self) -> Link:
        """Return the driver; one that is being started is waited for, a little."""
        try:
            async with asyncio.timeout(READY_TIMEOUT_S):
                await self._there.wait()
        except TimeoutError as error:
            why = "is down" if self.absence else "does not answer"
            raise CallError(Code.UNAVAILABLE, f"the cluster {why}; nothing was begun") from error
        assert self._link is not None
        return self._link

    async def _supervise(self) -> None:
        failures = 0
        while True:
            began_s = time.monotonic()
            try:
                await self._one_driver()
            except HeliostatError as error:
                log.warning("%s", error)
            failures = 0 if time.monotonic() - began_s > STEADY_S else failures + 1
            await asyncio.sleep(BACKOFF_S[min(failures, len(BACKOFF_S) - 1)])

    async def _one_driver(self) -> None:
        """Hold one driver for as long as it lives."""
        settings = self._settings
        try:
            command = await asyncio.to_thread(settings.driver)
        except HeliostatError as error:
            self.absence = str(error)
            raise
        self.absence = ""
        environment = {k: v for k, v in command.environment.items() if k not in settings.withheld}
        self._link = await Link.start(command.argv, environment, functions=settings.functions)
        log.info("the driver is connected to Ray")
        self._there.set()
        try:
            await self._link.ended.wait()
            log.warning("the driver has ended: another one is started")
        finally:
            self._there.clear()
            await self._link.end()


class _Progress:
    """How far one call is, and who hears of it."""

    def __init__(self, say: Say) -> None:
        self.changes = Changes(say)
        self.began_s: float | None = None

    def began(self, node: Mapping[str, Any]) -> None:
        self.began_s = time.monotonic()
        self.changes.say(RUNNING)


class _Looked:
    """The controller's report, asked for once for all that wait."""

    def __init__(self, status: Status) -> None:
        self._status = status
        self._lock = asyncio.Lock()
        self._report: StatusReport | None = None
        self._at_s = -LOOK_S

    async def report(self) -> StatusReport | None:
        async with self._lock:
            if time.monotonic() - self._at_s >= LOOK_S:
                self._report = await self._status()
                self._at_s = time.monotonic()
            return self._report


async def _packed(value: Any) -> bytes:
    try:
        return await asyncio.to_thread(pack, value)
    except NotSendable as error:
        raise CallError(Code.INVALID, f"the inputs can't be sent: {error.inside(INPUTS)}") from error


def _done(outcome: Mapping[str, Any], needs: Needs, memory_bytes: int | None) -> Done:
    try:
        if outcome.get("why"):
            log.info("a call ended as %s: %s", outcome["end"], outcome["why"])
        return outcomes.done(outcome, needs, memory_bytes)
    except Damaged as error:
        raise CallError(Code.INTERNAL, "its value came damaged") from error


def _with_cost(error: CallError, progress: _Progress, needs: Needs) -> CallError:
    """Return the error with what was used until then, where nobody else has counted."""
    if progress.began_s is None or error.ran_s:
        return error
    ran_s = time.monotonic() - progress.began_s
    return CallError(error.code, error.message, ran_s=ran_s, gpu_s=ran_s * needs.gpus)


def _check_names(inputs: Mapping[str, Any]) -> None:
    wrong = [name for name in inputs if not name.isidentifier()]
    if wrong:
        raise CallError(Code.INVALID, f"inputs become variables: {', '.join(map(repr, wrong))} can be none")


def _check_needs(needs: Needs) -> None:
    amounts = (needs.cpus, needs.gpus, needs.memory_bytes or 0)
    # What needs nothing would run wherever Ray likes, on the login node too.
    if not all(0 <= amount < float("inf") for amount in amounts) or not (needs.cpus or needs.gpus):
        raise CallError(Code.INVALID, "a call needs some CPUs or GPUs, and nothing below 0")
    if not 0 < needs.timeout_s < float("inf"):
        raise CallError(Code.INVALID, "a call needs a time limit above 0")
    if needs.gpus > 1 and needs.gpus != int(needs.gpus):
        raise CallError(Code.INVALID, "more than one GPU is asked for in whole numbers")
