"""The gateway's end of one driver: started, asked, watched, ended. When it goes, whoever waits hears so."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import signal
from asyncio.subprocess import PIPE, Process
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from heliostat.gateway.errors import CallError, Code
from heliostat.gateway.work.frames import Broken, Frames
from heliostat.gateway.work.parcel import Damaged, pack, unpack
from heliostat.ports.errors import HeliostatError

log = logging.getLogger(__name__)

START_TIMEOUT_S = 60.0
"""Ray takes seconds to connect, on a busy login node many."""
PING_S = 5.0
SILENT_S = 20.0
"""A driver that does not answer a ping for so long hangs, and is replaced."""
END_S = 5.0
"""For a driver whose input has ended to end as well."""
TOLD_S = 3.0
"""For one that is told to end: `srun` passes that on as KILL, and waits for the step's end."""
STREAM_BYTES = 2**20
LARGE_BYTES = 2**20

Heard = Callable[[Mapping[str, Any]], None]
"""Takes the words that the work has begun, and on which node."""

LOST = "the cluster's head or the gateway's driver went away while it ran; it may have had effects"


class NotStarted(HeliostatError):
    """The driver did not come up: the head does not answer, or does not let it in."""


@dataclass(frozen=True)
class _Asked:
    """One request under way; `saying` is done once the driver has all of it."""

    answer: asyncio.Future[Any]
    heard: Heard
    saying: asyncio.Task[None]


class Link:
    """One driver from its start to its end. Every request gets its answer or CallError."""

    def __init__(self, process: Process) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._process = process
        self._frames = Frames(process.stdout, process.stdin)
        self._numbers = itertools.count(1)
        self._waiting: dict[int, _Asked] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self.ended = asyncio.Event()
        self.trouble = ""

    @classmethod
    async def start(
        cls, argv: Sequence[str], environment: Mapping[str, str], *, functions: str | None
    ) -> Link:
        """Return a driver that is connected to Ray; raises NotStarted, and leaves nothing behind."""
        try:
            process = await asyncio.create_subprocess_exec(
                *argv,
                env=dict(environment),
                stdin=PIPE,
                stdout=PIPE,
                limit=STREAM_BYTES,
                # A Ctrl-C is for the gateway, which lets the driver finish what it does.
                start_new_session=True,
            )
        except OSError as error:
            raise NotStarted(f"{argv[0]} can't be run: {error.strerror}") from error
        link = cls(process)
        try:
            async with asyncio.timeout(START_TIMEOUT_S):
                await link._frames.greeted()
                await link._frames.send(pack({"functions": functions}))
                link.trouble = str(unpack(await link._frames.receive())["trouble"])
        except (TimeoutError, Broken, Damaged, KeyError, TypeError) as error:
            await link.end(0.0)
            raise NotStarted(f"the driver did not come up ({type(error).__name__})") from error
        except asyncio.CancelledError:
            await link.end(0.0)
            raise
        link._keep(link._receive())
        link._keep(link._watch())
        return link

    async def ask(self, op: str, args: Mapping[str, Any], *, heard: Heard | None = None) -> Any:
        """Return the answer, an outcome or a value. Cancelling it ends the work."""
        number = next(self._numbers)
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        message = await asyncio.to_thread(pack, {"n": number, "op": op, "args": dict(args)})
        if self.ended.is_set():
            raise CallError(Code.UNAVAILABLE, "the cluster does not answer; nothing was begun")
        asked = self._waiting[number] = _Asked(answer, heard or _unheard, self._keep(self._say(message)))
        try:
            # What takes it back has to come behind it.
            await asyncio.shield(asked.saying)
            return await answer
        except asyncio.CancelledError:
            self._keep(self._take_back(number, asked))
            raise
        finally:
            del self._waiting[number]
            if answer.done() and not answer.cancelled():
                answer.exception()

    def give_up(self, error: CallError) -> None:
        """Answer all that wait with `error`, and have their work ended."""
        for number, asked in self._waiting.items():
            if not asked.answer.done():
                asked.answer.set_exception(error)
            self._keep(self._take_back(number, asked))

    async def _take_back(self, number: int, asked: _Asked) -> None:
        # A large request is overtaken by short words: it has to be there before it can be cancelled.
        await asyncio.wait([asked.saying])
        await self._say(pack({"n": number, "op": "cancel"}))

    async def end(self, timeout_s: float = END_S) -> None:
        """End the driver, gently for `timeout_s`, then surely. Whatever still waits is lost.

        It is never killed untold: that would end no more than the `srun` before a driver elsewhere.
        """
        self._frames.close()
        if not await self._ends_within(timeout_s):
            self._signal(signal.SIGTERM)
        if not await self._ends_within(TOLD_S):
            self._signal(signal.SIGKILL)
        await self._process.wait()
        self._over()

    async def _ends_within(self, timeout_s: float) -> bool:
        # Often in a task that was cancelled, where `asyncio.timeout` of Python 3.11.2 ends in CancelledError.
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._process.wait(), timeout_s)
        return self._process.returncode is not None

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(number)

    def _keep(self, coroutine: Any) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _say(self, message: bytes) -> None:
        # A pipe that is broken is the receiver's to tell: it ends everything.
        with contextlib.suppress(Broken):
            await self._frames.send(message)

    async def _receive(self) -> None:
        try:
            while True:
                self._hear(await _opened(await self._frames.receive()))
        except (Broken, Damaged) as error:
            log.warning("the driver's pipe has ended: %s", error)
        finally:
            self._over()

    def _hear(self, message: Mapping[str, Any]) -> None:
        asked = self._waiting.get(message["n"])
        if asked is None or asked.answer.done():
            return
        answer = asked.answer
        if "began" in message:
            asked.heard(message["began"])
        elif "error" in message:
            error = message["error"]
            answer.set_exception(CallError(Code(error["code"]), error["message"]))
        else:
            answer.set_result(message["outcome"] if "outcome" in message else message["value"])

    async def _watch(self) -> None:
        """End a driver that does not answer any more."""
        try:
            while not self.ended.is_set():
                await asyncio.sleep(PING_S)
                async with asyncio.timeout(SILENT_S):
                    await self.ask("ping", {})
        except TimeoutError:
            log.warning("the driver has not answered for %g s: it is replaced", SILENT_S)
            self._over()
            await self.end(0.0)
        except CallError:
            pass

    def _over(self) -> None:
        self.ended.set()
        for asked in self._waiting.values():
            if not asked.answer.done():
                asked.answer.set_exception(CallError(Code.LOST, LOST))
        self._frames.close()


def _unheard(_: Mapping[str, Any]) -> None:
    """Where nobody asks when it begins."""


async def _opened(message: bytes) -> Any:
    return await asyncio.to_thread(unpack, message) if len(message) > LARGE_BYTES else unpack(message)
