"""Run a command as a Ray job of this host's head, show what it prints, and end with its exit code.

    python -m heliostat.raylink.job DASHBOARD_URL JOB_ID FOLDER COMMAND…
    python -m heliostat.raylink.job DASHBOARD_URL JOB_ID

It is started beside a head by `heliostat run` on another host. TERM, INT and HUP stop the job, and so
does the second form: srun kills what it has started at once when it is interrupted itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import shlex
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

LOOK_S = 0.5
SHOW_TIMEOUT_S = 10.0
FAILED_CODE = 1
STOPPED_CODE = 128 + signal.SIGTERM
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)

T = TypeVar("T")


class Jobs(Protocol):
    """What is needed of Ray's `JobSubmissionClient`; its errors are RuntimeError and OSError."""

    def submit_job(self, *, entrypoint: str, submission_id: str) -> str: ...

    def get_job_info(self, job_id: str) -> Any: ...

    def stop_job(self, job_id: str) -> bool: ...

    def tail_job_logs(self, job_id: str) -> AsyncIterator[str]: ...


def entrypoint(folder: str, argv: Sequence[str], *, python: str = sys.executable) -> str:
    """Return the job's command line: in `folder`, where `python` is the head's own."""
    path = f"{shlex.quote(str(Path(python).parent))}:$PATH"
    return f"cd {shlex.quote(folder)} && PATH={path} exec {shlex.join(argv)}"


async def run(jobs: Jobs, job_id: str, command: str, *, stop: asyncio.Event) -> int:
    """Submit `command`, print its output as it comes, and return its exit code.

    A job that is stopped gives 143; one that Ray can't start, or whose head goes away, 1, and
    why is printed.
    """
    try:
        await _call(jobs.submit_job, entrypoint=command, submission_id=job_id)
        info = await _ended(jobs, job_id, stop)
    except (RuntimeError, OSError) as error:
        _tell(f"the head can't be asked any more: {_first_line(error)}")
        return FAILED_CODE
    if stop.is_set():
        return STOPPED_CODE
    if info.driver_exit_code is None:
        _tell(info.message or f"the job ended as {info.status}")
        return FAILED_CODE
    return int(info.driver_exit_code)


async def _ended(jobs: Jobs, job_id: str, stop: asyncio.Event) -> Any:
    """Return Ray's account of the job once it has ended and all its output is shown."""
    showing = asyncio.create_task(_show(jobs, job_id))
    stopping = asyncio.create_task(_stop(jobs, job_id, stop))
    try:
        while not (info := await _call(jobs.get_job_info, job_id)).status.is_terminal():
            await asyncio.sleep(LOOK_S)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(showing, SHOW_TIMEOUT_S)
        return info
    finally:
        showing.cancel()
        stopping.cancel()


async def _show(jobs: Jobs, job_id: str) -> None:
    # A line that breaks costs what is printed, not the job.
    with contextlib.suppress(RuntimeError, OSError):
        async for lines in jobs.tail_job_logs(job_id):
            sys.stdout.write(lines)
            sys.stdout.flush()


async def _stop(jobs: Jobs, job_id: str, stop: asyncio.Event) -> None:
    await stop.wait()
    await stopped(jobs, job_id)


async def stopped(jobs: Jobs, job_id: str) -> int:
    """Stop a job; one that has ended, or that Ray does not know, is no failure."""
    with contextlib.suppress(RuntimeError, OSError):
        await _call(jobs.stop_job, job_id)
    return 0


def _call(function: Callable[..., T], *args: object, **kwargs: object) -> Awaitable[T]:
    return asyncio.to_thread(function, *args, **kwargs)


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _tell(text: str) -> None:
    sys.stderr.write(f"heliostat: {text}\n")


async def _main(url: str, job_id: str, command: str | None) -> int:
    from ray.job_submission import JobSubmissionClient

    # What it says of its own connections is not what the command prints.
    logging.getLogger("ray.dashboard.modules.job.sdk").setLevel(logging.WARNING)
    stop = asyncio.Event()
    for number in STOP_SIGNALS:
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    try:
        jobs = await asyncio.to_thread(JobSubmissionClient, url)
    except (RuntimeError, OSError) as error:
        _tell(f"the head takes no jobs: {_first_line(error)}")
        return FAILED_CODE
    return await (stopped(jobs, job_id) if command is None else run(jobs, job_id, command, stop=stop))


def main() -> None:
    url, job_id, *rest = sys.argv[1:]
    sys.exit(asyncio.run(_main(url, job_id, entrypoint(rest[0], rest[1:]) if rest else None)))


if __name__ == "__main__":
    main()
