"""Callers' jobs through Ray's job API, in the driver.

Ray's client blocks, so each of its calls has a thread. Its own way to a log asks an agent on the job's node,
which looks in another node's folder where one host has several: so logs are read by tasks of ours. The log of
a job is read by whoever pulls: a slow reader holds up nobody, and one who stops pulling costs some memory
until `LOG_IDLE_S` are over. One of the modules that know Ray; none but the driver imports it.
"""

from __future__ import annotations

import asyncio
import codecs
import contextlib
import dataclasses
import functools
import itertools
import logging
import shlex
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from ray.exceptions import RayError

from heliostat.gateway.errors import CallError, Code
from heliostat.gateway.work.port import JobStatus, Needs

log = logging.getLogger(__name__)

CALL_TIMEOUT_S = 30.0
THREADS_MAX = 16
LOG_IDLE_S = 120.0
LOG_LOOK_S = 1.0
TERM_S = 10
"""How long after its time a job has to end by itself."""
TYPED = "entrypoint"
NOT_REACHED = "Failed to establish a new connection"
"""How Ray's client says that a request never left."""

UNCLEAR = "the cluster's job service did not answer; it may have acted"

Started = Callable[[Future[Any]], None]
ReadLog = Callable[[str, str, int], Awaitable[bytes]]
"""Takes a node, a job and an offset in bytes; returns what the job's log holds from there on, if anything."""


class Jobs:
    """The jobs of one head. Use from one event loop; every method raises CallError."""

    def __init__(self, connect: Callable[[], Any], read_log: ReadLog) -> None:
        """`connect` makes Ray's client; it blocks, and is called again after it has failed."""
        self._connect = connect
        self._read_log = read_log
        self._client: Any = None
        self._submitting: set[str] = set()
        self._logs: dict[int, _Tail] = {}
        self._numbers = itertools.count(1)
        # Its own: a head that is silent must not take the threads by which calls are launched.
        self._threads = ThreadPoolExecutor(THREADS_MAX, thread_name_prefix="jobs")

    async def submit(
        self, job_id: str, entrypoint: str, *, runtime_env: Mapping[str, Any] | None, needs: Needs
    ) -> str:
        """Submit a job. LOST: Ray may have it, or may get it yet; while it may get it, `status` says LOST."""
        asked = {
            "entrypoint": timed(entrypoint, needs.timeout_s),
            "submission_id": job_id,
            "metadata": {TYPED: entrypoint},
            "runtime_env": dict(runtime_env or {}),
            "entrypoint_num_cpus": needs.cpus,
            "entrypoint_num_gpus": needs.gpus,
            **({"entrypoint_memory": needs.memory_bytes} if needs.memory_bytes else {}),
        }
        await self._connected()
        try:
            found: str = await self._ask("submit_job", started=functools.partial(self._note, job_id), **asked)
        except CallError as error:
            # A service that broke off may have acted before that.
            if error.code is Code.UNAVAILABLE and NOT_REACHED not in str(error.__cause__):
                raise CallError(Code.LOST, UNCLEAR) from error
            raise
        return found

    async def status(self, job_id: str) -> dict[str, Any]:
        """Return a `JobStatus` as a plain object."""
        is_submitting = job_id in self._submitting
        try:
            info = await self._ask("get_job_info", job_id)
        except CallError as error:
            if is_submitting and error.code is Code.UNKNOWN_JOB:
                raise CallError(Code.LOST, UNCLEAR) from error
            raise
        found = JobStatus(
            job_id=job_id,
            state=str(getattr(info.status, "value", info.status)).lower(),
            message=info.message or "",
            entrypoint=(info.metadata or {}).get(TYPED, info.entrypoint),
            started_at_s=None if info.start_time is None else info.start_time / 1000,
            ended_at_s=None if info.end_time is None else info.end_time / 1000,
        )
        return dataclasses.asdict(found)

    async def stop(self, job_id: str) -> bool:
        """Say whether it still ran."""
        return bool(await self._ask("stop_job", job_id))

    async def open_log(self, job_id: str) -> int:
        """Return a number by which the log's next lines are asked for."""
        await self.status(job_id)
        number = next(self._numbers)
        self._logs[number] = _Tail(self._lines(job_id))
        return number

    async def next_lines(self, number: int) -> str | None:
        """Wait for the next lines; None at the log's end, which is the job's. It can be cancelled."""
        tail = self._logs.get(number)
        if tail is None:
            raise CallError(Code.LOST, "the job's log was not read for too long: ask for it anew")
        try:
            lines = await tail.next()
        except CallError:
            await self.close_log(number)
            raise
        if lines is None:
            await self.close_log(number)
        return lines

    async def close_log(self, number: int) -> None:
        tail = self._logs.pop(number, None)
        if tail is not None:
            await tail.aclose()

    async def close_idle_logs(self) -> None:
        """Close those that nobody has pulled at for `LOG_IDLE_S`."""
        now_s = asyncio.get_running_loop().time()
        for number, tail in list(self._logs.items()):
            if tail.idle_since_s is not None and now_s - tail.idle_since_s > LOG_IDLE_S:
                await self.close_log(number)

    async def _lines(self, job_id: str) -> AsyncIterator[str]:
        """Yield the log as it grows, and end with the job."""
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        offset = 0
        while True:
            info = await self._ask("get_job_info", job_id)
            while info.driver_node_id and (read := await self._read(info.driver_node_id, job_id, offset)):
                offset += len(read)
                yield decoder.decode(read)
            # What it wrote until it ended was read after that was known.
            if info.status.is_terminal():
                return
            await asyncio.sleep(LOG_LOOK_S)

    async def _read(self, node_id: str, job_id: str, offset: int) -> bytes:
        try:
            return await self._read_log(node_id, job_id, offset)
        except (RayError, TimeoutError) as error:
            log.warning("the log of job %s can't be read: %s", job_id, error)
            raise CallError(Code.LOST, "the job's log can't be read any more: its node is gone") from error

    async def _ask(self, method: str, *args: object, started: Started | None = None, **kwargs: object) -> Any:
        """Have a method of Ray's client called in a thread. A silent head costs the caller the deadline.

        `started` takes what the thread will return, however long nobody waits for it any more.
        """
        client = await self._connected()
        with _typed():
            async with asyncio.timeout(CALL_TIMEOUT_S):
                running = self._threads.submit(getattr(client, method), *args, **kwargs)
                if started is not None:
                    started(running)
                return await asyncio.wrap_future(running)

    async def _connected(self) -> Any:
        if self._client is None:
            with _typed():
                async with asyncio.timeout(CALL_TIMEOUT_S):
                    loop = asyncio.get_running_loop()
                    self._client = await loop.run_in_executor(self._threads, self._connect)
        return self._client

    def _note(self, job_id: str, running: Future[Any]) -> None:
        loop = asyncio.get_running_loop()
        self._submitting.add(job_id)

        def over(_: Future[Any]) -> None:
            # The driver may have ended by then.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(self._submitting.discard, job_id)

        running.add_done_callback(over)


class _Tail:
    """The lines of one job's log."""

    def __init__(self, lines: AsyncIterator[str]) -> None:
        self._lines = lines
        self._reading: asyncio.Task[str | None] | None = None
        self.idle_since_s: float | None = asyncio.get_running_loop().time()

    async def next(self) -> str | None:
        # A reader that is cancelled does not take with it the lines that come a moment later.
        if self._reading is None:
            self._reading = asyncio.ensure_future(anext(self._lines, None))
        self.idle_since_s = None
        try:
            found = await asyncio.shield(self._reading)
            self._reading = None
            return found
        finally:
            self.idle_since_s = asyncio.get_running_loop().time()

    async def aclose(self) -> None:
        if self._reading is not None:
            self._reading.cancel()
            with contextlib.suppress(asyncio.CancelledError, CallError):
                await self._reading
        close = getattr(self._lines, "aclose", None)
        if close is not None:
            await close()


def timed(entrypoint: str, timeout_s: float) -> str:
    """Return the command that ends the job after its time, whoever of us is there to see it."""
    return f"timeout --kill-after={TERM_S} {timeout_s:g} sh -c {shlex.quote(entrypoint)}"


def client() -> Any:
    """Return Ray's client for the head that the environment names."""
    from ray.job_submission import JobSubmissionClient

    logging.getLogger("ray.dashboard.modules.job.sdk").setLevel(logging.WARNING)
    return JobSubmissionClient()


@contextlib.contextmanager
def _typed() -> Iterator[None]:
    """Raise what Ray's client raises as CallError."""
    try:
        yield
    except (RayError, RuntimeError, OSError, ValueError) as error:
        raise _told(error) from error


def _told(error: Exception) -> CallError:
    text = str(error)
    if isinstance(error, TimeoutError):
        return CallError(Code.LOST, "the cluster's job service did not answer in time; it may have acted")
    if "status code 404" in text or "does not exist" in text:
        return CallError(Code.UNKNOWN_JOB, "there is no such job")
    log.warning("Ray's job API failed: %s", text)
    if "status code 400" in text or isinstance(error, ValueError):
        return CallError(Code.INVALID, "Ray refuses a job like this")
    return CallError(Code.UNAVAILABLE, "the cluster's job service does not answer")
