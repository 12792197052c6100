"""Calls that others look on at: what they say while they run, and their answer.

Over RPC a caller may take a stream, over HTTP, which carries none, it looks again and again with an offset;
both are views of the same `Underway`. A call whose caller has gone is ended, so that its slot is free:
nobody waits for it (`ABANDONED_S`), or the client that waits is no longer there (`presence`).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from heliostat.gateway.hypha.presence import ABSENCE, ABSENCE_MAX, Presence

ABANDONED_S = 60.0
"""So long nobody may look at a call that is not waited for; a lost connection is made again by then."""

LOOK_EVERY_S = 10.0
TEXT_MAX = 2**20
"""Characters that are kept of what a call says, or a job writes; the oldest go first."""

WAIT_MAX_S = 25.0
"""The longest that one look waits: proxies end silent requests after 30 s and more."""

SENT_S = 0.3
"""After the last call has ended, until its answer has left."""

KEPT_MAX_BYTES = 256 * 2**20
"""Answers that nobody has fetched yet; beyond it the oldest are dropped."""

Answer = Mapping[str, Any]
Look = Callable[[str], Awaitable[Presence]]


class Tail:
    """The last of a growing text, with offsets from its very beginning."""

    def __init__(self) -> None:
        self._text = ""
        self._first = 0
        self._grown = asyncio.Event()
        self.is_closed = False

    @property
    def end(self) -> int:
        return self._first + len(self._text)

    def add(self, text: str) -> None:
        self._text += text
        excess = max(0, len(self._text) - TEXT_MAX)
        self._text, self._first = self._text[excess:], self._first + excess
        self._wake()

    def close(self) -> None:
        self.is_closed = True
        self._wake()

    def since(self, offset: int) -> str:
        """Return what came at and after an offset, as far as it is kept."""
        return self._text[max(0, offset - self._first) :]

    async def grown(self, offset: int, *, wait_s: float) -> None:
        """Wait until there is more than `offset`, nothing more comes, or `wait_s` is over."""
        with suppress(TimeoutError):
            async with asyncio.timeout(min(wait_s, WAIT_MAX_S)):
                while self.end <= offset and not self.is_closed:
                    await self._grown.wait()

    async def follow(self) -> AsyncIterator[str]:
        """Yield what is there and what comes, until nothing more does."""
        offset = 0
        while True:
            await self.grown(offset, wait_s=WAIT_MAX_S)
            text, offset = self.since(offset), self.end
            if text:
                yield text
            elif self.is_closed:
                return

    def _wake(self) -> None:
        # Whoever waits holds the old event; a new one is for what comes next.
        self._grown.set()
        self._grown = asyncio.Event()


@dataclass
class Underway:
    """One call. `owner` is whose it is, once it is let in; `peers` are the clients that wait for it.

    `size_bytes` is that of the value in its answer, once it has one.
    """

    call_id: str
    seen_s: float
    owner: str | None = None
    task: asyncio.Task[Answer] = field(init=False)
    tail: Tail = field(default_factory=Tail)
    peers: list[str] = field(default_factory=list)
    absence: int = 0
    answer: Answer | None = None
    size_bytes: int = 0
    _settled: asyncio.Event = field(default_factory=asyncio.Event)

    def say(self, line: str) -> None:
        self.tail.add(f"{line}\n")

    def admit(self, owner: str) -> None:
        self.owner = owner
        self._settled.set()

    async def admitted(self) -> None:
        """Wait until it is let in, or has its answer without that."""
        await self._settled.wait()

    def end(self, answer: Answer) -> None:
        self.answer = answer
        self._settled.set()
        self.tail.close()


class CallsUnderway:
    """The calls of this gateway that run, or whose answers wait to be fetched.

    `now_s` is a clock that never jumps. Used from one event loop only.
    """

    def __init__(self, now_s: Callable[[], float]) -> None:
        self.now_s = now_s
        self._calls: dict[str, Underway] = {}

    def begin(
        self, call_id: str, work: Callable[[Underway], Coroutine[Any, Any, Answer]], *, ended: Answer
    ) -> Underway:
        """Run a call in a task of its own; `ended` is its answer if that is cancelled."""
        call = Underway(call_id, self.now_s())
        call.task = asyncio.create_task(work(call), name=f"call-{call_id}")
        call.task.add_done_callback(lambda task: self._done(call, task, ended))
        self._calls[call_id] = call
        return call

    def find(self, call_id: str, owner: str | None = None) -> Underway | None:
        """Return a call, if it is the owner's (None: whosever it is)."""
        call = self._calls.get(call_id)
        return call if call is not None and (owner is None or owner == call.owner) else None

    def stop(self, call_id: str) -> bool:
        """End a call; say whether it still ran."""
        call = self._calls.get(call_id)
        return call is not None and call.task.cancel()

    async def finished(self, call: Underway, *, peer: str) -> Answer:
        """Wait for a call's answer on behalf of a client. If the waiting is cancelled, so is the call."""
        call.peers.append(peer)
        try:
            await asyncio.wait([call.task])
        except asyncio.CancelledError:
            call.task.cancel()
            raise
        finally:
            call.peers.remove(peer)
        self._calls.pop(call.call_id, None)
        assert call.answer is not None, "a task's callbacks run before those who wait for it"
        return call.answer

    async def look(self, call: Underway, offset: int, *, wait_s: float, peer: str) -> dict[str, Any]:
        """Return what a call has said since an offset, and its answer once it has one."""
        call.peers.append(peer)
        try:
            await call.tail.grown(offset, wait_s=wait_s)
        finally:
            call.peers.remove(peer)
            call.seen_s = self.now_s()
        lines = call.tail.since(offset).splitlines()
        return {
            "lines": lines,
            "offset": call.tail.end,
            "done": call.answer is not None,
            "answer": call.answer,
        }

    async def stream(self, call: Underway, *, peer: str) -> AsyncGenerator[Answer, None]:
        """Yield `{"call_id", "progress"}` for each line, last the answer; closing it ends the call."""
        offset = 0
        try:
            yield {"call_id": call.call_id, "progress": "accepted"}
            while True:
                seen = await self.look(call, offset, wait_s=WAIT_MAX_S, peer=peer)
                offset = seen["offset"]
                for line in seen["lines"]:
                    yield {"call_id": call.call_id, "progress": line}
                if call.answer is not None and call.tail.end <= offset:
                    break
        except GeneratorExit:
            call.task.cancel()
            raise
        self._calls.pop(call.call_id, None)
        yield call.answer

    async def watch(self, look: Look, *, sleep: Callable[[float], Any]) -> None:
        """Look after callers that have gone, until cancelled."""
        while True:
            await sleep(LOOK_EVERY_S)
            await self.sweep(look)

    async def sweep(self, look: Look) -> None:
        """End what nobody waits for, and drop answers that nobody has fetched."""
        peers = sorted({peer for call in self._calls.values() for peer in call.peers})
        found = dict(zip(peers, await asyncio.gather(*map(look, peers)), strict=True))
        for call in list(self._calls.values()):
            if call.peers:
                call.seen_s = self.now_s()
                absence = min(ABSENCE[found.get(peer, Presence.THERE)] for peer in call.peers)
                call.absence = call.absence + absence if absence else 0
            if call.absence >= ABSENCE_MAX or self.now_s() - call.seen_s > ABANDONED_S:
                call.task.cancel()
                if call.answer is not None:
                    self._calls.pop(call.call_id, None)

    async def drain(self, timeout_s: float) -> None:
        """Let what runs come to its end for so long, then end it; every call has its answer afterwards."""
        tasks = [call.task for call in self._calls.values() if not call.task.done()]
        if not tasks:
            return
        _, late = await asyncio.wait(tasks, timeout=timeout_s)
        for task in late:
            task.cancel()
        if late:
            await asyncio.wait(late)
        # The client sends answers in tasks of its own, and tells nobody when they are through.
        await asyncio.sleep(SENT_S)

    def _done(self, call: Underway, task: asyncio.Task[Answer], ended: Answer) -> None:
        call.end(ended if task.cancelled() else task.result())
        kept = [one for one in self._calls.values() if one.answer is not None]
        size = sum(one.size_bytes for one in kept)
        for oldest in kept:
            if size <= KEPT_MAX_BYTES:
                break
            if not oldest.peers:
                size -= oldest.size_bytes
                self._calls.pop(oldest.call_id, None)
