"""The logs of jobs, for who takes a stream and for who looks again and again with an offset.

A driver or head that goes away for a while is no end of a log: it is read anew from where it was. A stream
is long, so the rules are asked before each part; a log at which nobody looks any more is not read.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

from heliostat.gateway.errors import CallError, Code
from heliostat.gateway.hypha.operations import CLOSED, Call
from heliostat.gateway.hypha.ports import Rules
from heliostat.gateway.hypha.streams import Tail
from heliostat.gateway.work.port import Work
from heliostat.model.gateway import Right

TAIL_IDLE_S = 60.0
"""So long the log of a job is followed after the last look at it."""

FIRST_S = 1.0
"""How long a first look at a log waits for what is there already."""

RETRY_AFTER_S = 5.0
RETRIES_MAX = 12
"""Tries in a row that bring nothing, after which a log is given up: a minute, and the time that they take."""

PASSING = (Code.UNAVAILABLE, Code.LOST, Code.TIMEOUT)
"""What is said while a driver or a head is away."""


@dataclass
class _Followed:
    """A log that is read for whoever looks. `error`: why it is read no more."""

    seen_s: float
    tail: Tail = field(default_factory=Tail)
    error: CallError | None = None
    task: asyncio.Task[None] | None = None


class Logs:
    """The logs that are read now. Whose they are is asked before."""

    def __init__(self, work: Work, rules: Rules) -> None:
        self._work, self._rules = work, rules
        self._followed: dict[str, _Followed] = {}
        self._closing = asyncio.Event()

    async def look(self, job_id: str, offset: int, *, wait_s: float) -> dict[str, Any]:
        """Return what a job has written since an offset, and whether it may write more.

        Raises `CallError` where there is no more to be had.
        """
        one = await self._follow(job_id)
        if one.error is None:
            await self._done(asyncio.ensure_future(one.tail.grown(offset, wait_s=wait_s)))
        one.seen_s = _now_s()
        text = one.tail.since(offset)
        if one.error is not None and not text:
            # Who looks again tries again.
            self._drop(job_id, one)
            raise CallError(one.error.code, one.error.message) from one.error
        # A log that is read anew may not be there yet.
        end = max(offset, one.tail.end)
        return {"text": text, "offset": end, "done": one.tail.is_closed and one.error is None}

    async def stream(self, call: Call, job_id: str) -> AsyncIterator[Any]:
        """Yield what the job writes until it ends; what else ends it is the last part, an answer."""
        parts = self._parts(job_id)
        try:
            while True:
                coming = asyncio.ensure_future(anext(parts, None))
                if not await self._done(coming):
                    raise CallError(Code.UNAVAILABLE, CLOSED)
                if (text := coming.result()) is None:
                    return
                self._rules.recheck(call.context, Right.RUN)
                yield text
        except CallError as error:
            yield error.answer(call.call_id)

    async def aclose(self) -> None:
        """Read no more; who waits has what is there."""
        self._closing.set()
        for job_id, one in list(self._followed.items()):
            self._drop(job_id, one)

    async def _follow(self, job_id: str) -> _Followed:
        one = self._followed.get(job_id)
        if one is None:
            one = self._followed[job_id] = _Followed(_now_s())
            one.task = asyncio.create_task(self._keep(job_id, one), name=f"log-{job_id}")
            # What is there already comes at once; only what is to come is worth waiting for.
            await self._done(asyncio.ensure_future(one.tail.grown(0, wait_s=FIRST_S)))
        one.seen_s = _now_s()
        return one

    async def _keep(self, job_id: str, one: _Followed) -> None:
        """Read a log for as long as somebody looks now and then."""
        reading = asyncio.create_task(self._read(job_id, one))
        try:
            while (left_s := one.seen_s + TAIL_IDLE_S - _now_s()) > 0:
                await asyncio.sleep(left_s)
        finally:
            reading.cancel()
            self._drop(job_id, one)

    async def _read(self, job_id: str, one: _Followed) -> None:
        try:
            async for text in self._parts(job_id):
                one.tail.add(text)
        except CallError as error:
            one.error = error
        one.tail.close()

    async def _parts(self, job_id: str) -> AsyncIterator[str]:
        """Yield a log until its job's end, once, however often it has to be opened."""
        seen = tries = 0
        while True:
            known = seen
            try:
                async for text in self._work.job_logs(job_id):
                    known, new = max(0, known - len(text)), text[known:]
                    if new:
                        seen, tries = seen + len(new), 0
                        yield new
                return
            except CallError as error:
                tries += 1
                if error.code not in PASSING or tries >= RETRIES_MAX:
                    raise
            await asyncio.sleep(RETRY_AFTER_S)

    async def _done(self, waiting: asyncio.Future[Any]) -> bool:
        """Wait for something, and say whether it is there; not if the gateway goes down before."""
        closing = asyncio.ensure_future(self._closing.wait())
        try:
            await asyncio.wait({waiting, closing}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            closing.cancel()
            if not waiting.done():
                waiting.cancel()
        return waiting.done() and not waiting.cancelled()

    def _drop(self, job_id: str, one: _Followed) -> None:
        if self._followed.get(job_id) is one:
            del self._followed[job_id]
        if one.task is not None:
            one.task.cancel()


def _now_s() -> float:
    return asyncio.get_running_loop().time()
