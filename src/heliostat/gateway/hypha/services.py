"""The functions that callers see: who am I, how is the cluster, run this, call that, what became of it."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from heliostat.gateway.errors import CallError, Code
from heliostat.gateway.hypha.arguments import (
    CallFunction,
    Nothing,
    Progress,
    Resources,
    RunPython,
    StopCall,
)
from heliostat.gateway.hypha.carrying import TIMEOUT_S, Carrying
from heliostat.gateway.hypha.converting import Converting
from heliostat.gateway.hypha.jobs import JobServices
from heliostat.gateway.hypha.operations import Answering, Call, Operation, answer, exposed
from heliostat.gateway.hypha.owners import Owners
from heliostat.gateway.hypha.ports import Admitted, Ask, Cluster, Rules
from heliostat.gateway.hypha.published import Published
from heliostat.gateway.hypha.streams import SENT_S, Answer, CallsUnderway
from heliostat.gateway.work.port import Done, Needs, Say, Script, Signature, Work
from heliostat.model.gateway import Right

NAME = "Heliostat gateway"

NO_CALL = "there is no such call of yours, or its answer is gone"

QUESTIONS_S = 3.0
"""So long a gateway that goes down waits for what is asked of it: how the cluster is, news of a call."""


@dataclass(frozen=True)
class Parts:
    """What the services are made of. `about` is what `hello` says of the gateway; `new_id` makes call ids."""

    work: Work
    rules: Rules
    cluster: Cluster
    underway: CallsUnderway
    owners: Owners
    new_id: Callable[[], str]
    about: Mapping[str, Any]


class Services:
    """The gateway's service at a Hypha server."""

    def __init__(self, parts: Parts) -> None:
        self._work, self._rules, self._cluster = parts.work, parts.rules, parts.cluster
        self._underway, self._about, self._new_id = parts.underway, dict(parts.about), parts.new_id
        self._published = Published(parts.work, parts.underway.now_s)
        self._converting = Converting()
        self._carrying = Carrying(parts.rules, parts.underway, self._converting)
        self._answering = Answering()
        self._jobs = JobServices(
            parts.work, parts.rules, parts.owners, needs=self._needs, converting=self._converting
        )

    def definition(self, service_id: str) -> dict[str, Any]:
        """Return the service for `register_service`, with functions of its own.

        It can be reached from every workspace and is shown in no list: who may do what is for the rules,
        not for Hypha, which only knows workspaces.
        """
        functions = {
            one.name: exposed(one, self._new_id, self._answering)
            for one in [*self.operations(), *self._jobs.operations()]
        }
        config = {"visibility": "unlisted", "require_context": True, "run_in_executor": True}
        return {"id": service_id, "name": NAME, "type": "heliostat-gateway", "config": config, **functions}

    def operations(self) -> Sequence[Operation]:
        return [
            Operation("hello", self.hello, Nothing, "Say who you are to this gateway."),
            Operation("status", self.status, Nothing, "Show the cluster, and your own calls."),
            Operation("functions", self.functions, Nothing, "List the functions that you may call."),
            Operation("run_python", self.run_python, RunPython, "Run Python on a node."),
            Operation("call", self.call, CallFunction, "Call one of the owner's functions."),
            Operation("progress", self.progress, Progress, "Look at a call of yours."),
            Operation("stop_call", self.stop_call, StopCall, "End a call of yours; admins: anybody's."),
            Operation("calls", self.calls, Nothing, "List everybody's calls (admins)."),
        ]

    async def hello(self, call: Call, _: Nothing) -> Any:
        async with self._rules.admit(call.context, Ask(call.call_id, "hello")) as admitted:
            caller = admitted.caller
            you = {"name": caller.name, "id": caller.id, "workspace": caller.workspace}
            return answer(call, {"you": you, "gateway": self._about})

    async def status(self, call: Call, _: Nothing) -> Any:
        async with self._rules.admit(call.context, Ask(call.call_id, "status")) as admitted:
            mine = [dict(one) for one in self._rules.calls(admitted.caller)]
            return answer(call, {"cluster": dict(await self._cluster.status()), "calls": mine})

    async def functions(self, call: Call, _: Nothing) -> Any:
        async with self._rules.admit(call.context, Ask(call.call_id, "functions")) as admitted:
            found = await self._work.functions()
            return answer(
                call, [asdict(one) for one in found if self._rules.may_call(admitted.caller, one.name)]
            )

    async def run_python(self, call: Call, given: RunPython) -> Any:
        # Before anything is made of what a stranger brings.
        if refusal := self._carrying.refusal(call, Ask(call.call_id, "run_python", Right.RUN), given):
            return refusal
        inputs = await self._converting.received(given.inputs, "inputs", given.encoding)
        environment = await self._converting.received(given.runtime_env, "runtime_env", given.encoding)
        script = Script(given.script, inputs, environment)
        size = await self._converting.size_bytes(given.script, inputs, environment)
        needs = await self._needs(given.resources, given.timeout_s)
        ask = Ask(call.call_id, "run_python", Right.RUN, payload_bytes=size, needs=needs, script=given.script)

        async def work(needs: Needs, say: Say) -> Done:
            return await self._work.run_python(call.call_id, script, needs=needs, say=say)

        return await self._carrying.carry(call, ask, work, given=given)

    async def call(self, call: Call, given: CallFunction) -> Any:
        name = given.function
        if refusal := self._carrying.refusal(call, Ask(call.call_id, "call", Right.CALL, name), given):
            return refusal
        arguments = await self._converting.received(given.arguments, "arguments", given.encoding)
        size = await self._converting.size_bytes(arguments)
        signature = await self._published.find(name)
        needs = await self._needs_of(signature, given)
        ask = Ask(call.call_id, "call", Right.CALL, name, payload_bytes=size, needs=needs)

        async def work(needs: Needs, say: Say) -> Done:
            # Only now: a stranger must not learn which names there are.
            if signature is None:
                raise self._published.why_not(name)
            _check_ceiling(signature, given.timeout_s)
            return await self._work.call(call.call_id, name, arguments=arguments, needs=needs, say=say)

        return await self._carrying.carry(call, ask, work, given=given)

    async def progress(self, call: Call, given: Progress) -> Any:
        async with self._rules.admit(call.context, Ask(call.call_id, "progress")) as admitted:
            found = self._underway.find(given.call_id, admitted.caller.account)
            if found is None:
                return answer(call, self._gone(admitted, given))
            seen = await self._underway.look(found, given.offset, wait_s=given.wait_s, peer=call.peer)
            return await self._converting.encoded(answer(call, seen), given.encoding)

    def _gone(self, admitted: Admitted, given: Progress) -> Answer:
        """Return the last look at a call that an earlier gateway took with it; raises for what is unknown."""
        theirs = self._rules.calls(admitted.caller)
        if not any(one["call_id"] == given.call_id and one["outcome"] == Code.LOST.value for one in theirs):
            raise CallError(Code.UNKNOWN_JOB, NO_CALL)
        lost = CallError(Code.LOST, "the gateway ended while it ran; it may have had effects")
        return {"lines": [], "offset": given.offset, "done": True, "answer": lost.answer(given.call_id)}

    async def stop_call(self, call: Call, given: StopCall) -> Any:
        async with self._rules.admit(call.context, Ask(call.call_id, "stop_call")) as admitted:
            account = admitted.caller.account
            if self._underway.find(given.call_id, account) is not None or self._runs(admitted, given.call_id):
                return answer(call, self._stopped(given.call_id, "you ended it"))
        try:
            async with self._rules.admit(call.context, Ask(call.call_id, "stop_call", Right.ADMIN)):
                return answer(call, self._stopped(given.call_id, "an administrator ended it"))
        except CallError as error:
            if error.code is not Code.NOT_ALLOWED:
                raise
            # Whether somebody else has such a call is nobody's to know.
            raise CallError(Code.UNKNOWN_JOB, NO_CALL) from error

    def _runs(self, admitted: Admitted, call_id: str) -> bool:
        """Say whether it is a call of theirs that has not ended; a job is one, too."""
        return any(
            one["call_id"] == call_id and not one["outcome"] for one in self._rules.calls(admitted.caller)
        )

    def _stopped(self, call_id: str, why: str) -> bool:
        # One that is not let in yet, or has been answered, is unknown to the rules.
        return self._rules.stop(call_id, why) or self._underway.stop(call_id)

    async def calls(self, call: Call, _: Nothing) -> Any:
        async with self._rules.admit(call.context, Ask(call.call_id, "calls", Right.ADMIN)):
            return answer(call, [dict(one) for one in self._rules.calls(None)])

    def start(self) -> None:
        """Go on with the jobs that an earlier gateway has left."""
        self._jobs.start()

    async def aclose(self, timeout_s: float) -> None:
        """Let nothing more in, and let what runs come to its end for so long, then end it.

        Every call has its answer afterwards. Jobs go on.
        """
        self._carrying.is_closing = self._jobs.is_closing = True
        await asyncio.gather(self._underway.drain(timeout_s), self._jobs.drain(timeout_s))
        await self._jobs.aclose()
        if await self._answering.aclose(min(timeout_s, QUESTIONS_S)):
            # As for calls: nobody tells when an answer is through.
            await asyncio.sleep(SENT_S)

    async def _needs(self, resources: Resources | None, timeout_s: float | None) -> Needs:
        limit_s = TIMEOUT_S if timeout_s is None else timeout_s
        if resources is None:
            # Who has GPUs has them to be used, and most callers would not know to ask.
            return Needs(gpus=float(await self._cluster.has_gpus()), timeout_s=limit_s)
        memory = resources.get("memory")
        memory_bytes = None if memory is None else int(memory)
        return Needs(resources.get("CPU", 1.0), resources.get("GPU", 0.0), memory_bytes, limit_s)

    async def _needs_of(self, signature: Signature | None, given: CallFunction) -> Needs:
        """Return what the owner says that a function needs, or more of it where the caller asks for more."""
        if signature is None:
            return await self._needs(given.resources, given.timeout_s)
        own, timeout_s = signature.needs, min(given.timeout_s or math.inf, signature.needs.timeout_s)
        if given.resources is None:
            return replace(own, timeout_s=timeout_s)
        asked = await self._needs(given.resources, timeout_s)
        memory_bytes = max(own.memory_bytes or 0, asked.memory_bytes or 0) or None
        return Needs(max(own.cpus, asked.cpus), max(own.gpus, asked.gpus), memory_bytes, timeout_s)


def _check_ceiling(signature: Signature, timeout_s: float | None) -> None:
    """Refuse what would end before the time that was asked for; raises `CallError`."""
    limit_s = signature.needs.timeout_s
    if timeout_s is not None and timeout_s > limit_s:
        text = f"{signature.name} may take {limit_s:g} s; {timeout_s:g} s are asked for"
        raise CallError(Code.LIMIT, text)
