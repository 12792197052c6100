"""One piece of work from its admission to its answer, however the caller wants to hear of it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from typing import Any

from heliostat.gateway.errors import CallError, Code
from heliostat.gateway.hypha.arguments import Encoding, Needing
from heliostat.gateway.hypha.converting import Converting
from heliostat.gateway.hypha.operations import Call, broken
from heliostat.gateway.hypha.ports import Admitted, Ask, Rules
from heliostat.gateway.hypha.streams import Answer, CallsUnderway, Underway
from heliostat.gateway.work.port import Done, Needs, Say

Work = Callable[[Needs, Say], Awaitable[Done]]

TIMEOUT_S = 600.0
"""For a call that names none, if its limits allow so much."""

ENDED = CallError(Code.STOPPED, "the call was ended")
CLOSING = CallError(Code.UNAVAILABLE, "the gateway is going down; try again in a while")


class Carrying:
    """Takes work through the rules, each call in a task of its own."""

    def __init__(self, rules: Rules, underway: CallsUnderway, converting: Converting) -> None:
        self._rules = rules
        self._underway = underway
        self._converting = converting
        self.is_closing = False

    def refusal(self, call: Call, ask: Ask, given: Needing) -> Any:
        """Return None, or the stream of who may not do this, whatever came with it.

        Raises `CallError` where it is not streamed.
        """
        try:
            self._rules.screen(call.context, ask)
        except CallError as error:
            if not given.stream:
                raise
            return _alone(error.answer(call.call_id))
        return None

    async def carry(self, call: Call, ask: Ask, work: Work, *, given: Needing) -> Any:
        """Return a call's answer, a stream that ends with it, or at once that it has begun.

        Raises `CallError` if it may not begin, unless it is streamed: then that is the answer.
        """
        if self.is_closing:
            raise CLOSING
        begun = self._underway.begin(
            call.call_id,
            lambda one: self._answer(one, call, ask, work=work, timeout_s=given.timeout_s),
            ended=ENDED.answer(call.call_id),
        )
        if given.stream:
            return self._encoded_stream(begun, given.encoding, peer=call.peer)
        if given.wait:
            answer = await self._underway.finished(begun, peer=call.peer)
            return await self._converting.encoded(dict(answer), given.encoding)
        await begun.admitted()
        if not begun.owner:
            return await self._underway.finished(begun, peer=call.peer)
        return {"ok": True, "call_id": call.call_id, "value": {"done": False}}

    async def _answer(
        self, underway: Underway, call: Call, ask: Ask, *, work: Work, timeout_s: float | None
    ) -> Answer:
        try:
            async with self._rules.admit(call.context, ask) as admitted:
                underway.admit(admitted.caller.account)
                done = await _within(admitted, work, say=underway.say, timeout_s=timeout_s)
                limit_bytes = admitted.limits.payload_bytes
                value, size = await self._converting.result(done.value, limit_bytes=limit_bytes)
                underway.size_bytes = size
        except CallError as error:
            return error.answer(call.call_id)
        except Exception as error:  # noqa: BLE001 -- the guard of a call's task: its trace is for the owner
            return broken(call, ask.function, error)
        return {"ok": True, "call_id": call.call_id, "value": value}

    async def _encoded_stream(self, call: Underway, encoding: Encoding, *, peer: str) -> Any:
        # Closed with this one, not when somebody collects it: that is what ends the call.
        async with aclosing(self._underway.stream(call, peer=peer)) as parts:
            async for part in parts:
                yield await self._converting.encoded(part, encoding)


async def _alone(answer: Answer) -> AsyncGenerator[Answer, None]:
    yield answer


async def _within(admitted: Admitted, work: Work, *, say: Say, timeout_s: float | None) -> Done:
    """Do the work within its caller's limits, and take down its cost."""
    check_time(admitted, timeout_s)

    def said(line: str) -> None:
        admitted.say(line)
        say(line)

    assert admitted.needs is not None, "work has needs"
    done = await work(admitted.needs, said)
    admitted.cost(done)
    return done


def check_time(admitted: Admitted, timeout_s: float | None) -> None:
    """Refuse what would end before the time that was asked for; raises `CallError`."""
    limit_s = admitted.limits.timeout_s
    if timeout_s is not None and timeout_s > limit_s:
        raise CallError(Code.LIMIT, f"a call may take {limit_s:g} s; {timeout_s:g} s are asked for")
