"""Children of the head's wrapper: started so that they go when it goes, ended gently, then surely."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import multiprocessing
import os
import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from heliostat.cli.system import process_start_ticks, tagged_processes

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36

ORPHAN_SIGNAL = signal.SIGUSR2
"""What the controller hears when its wrapper was killed: not TERM, which asks it to let all workers go."""

POLL_S = 0.1
REAP_S = 2.0


@dataclass(frozen=True)
class ChildSpec:
    """What to start: `tag` is an environment variable that every descendant inherits.

    `orphan_signal` is what it gets when this process dies, `end_signal` when it shall end.
    """

    name: str
    argv: Sequence[str]
    environment: Mapping[str, str]
    log: Path
    tag: tuple[str, str] | None = None
    orphan_signal: int = signal.SIGTERM
    end_signal: int = signal.SIGTERM


class Child:
    """One running child. Its death, however it comes, ends `wait()` with its exit code."""

    def __init__(self, spec: ChildSpec, process: asyncio.subprocess.Process) -> None:
        self.spec = spec
        self._process = process
        self.start_ticks = process_start_ticks(process.pid) or 0

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process.returncode is None

    async def wait(self) -> int:
        return await self._process.wait()

    def terminate(self) -> None:
        if self.running:
            self._process.send_signal(self.spec.end_signal)

    async def end(self, *, grace_s: float) -> None:
        """Send TERM, wait up to `grace_s`, then kill it and all that carries its tag."""
        self.terminate()
        try:
            async with asyncio.timeout(grace_s):
                await self.wait()
        except TimeoutError:
            self._process.kill()
            await self.wait()
        if self.spec.tag is not None:
            await end_tagged(*self.spec.tag, grace_s=min(grace_s, 3.0))


async def start_child(spec: ChildSpec) -> Child:
    """Start `spec` in a process group of its own; it gets its `orphan_signal` when this process dies."""
    with spec.log.open("ab") as log:
        process = await asyncio.create_subprocess_exec(
            *spec.argv,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=dict(spec.environment),
            process_group=0,
            preexec_fn=_hears_of_parents_death(os.getpid(), spec.orphan_signal),
        )
    return Child(spec, process)


def adopt_orphans() -> None:
    """Make orphaned descendants ours (PR_SET_CHILD_SUBREAPER), so that they are seen and reaped."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


async def end_tagged(
    name: str, value: str, *, grace_s: float, but: tuple[str, str] | None = None
) -> list[int]:
    """End every process of ours with `name=value` in its environment: TERM, then KILL.

    Never this process, nor those that carry the tag `but`. Returns the pids that had to be killed.
    """
    left = _others(name, value, but)
    for pid in left:
        _signal(pid, signal.SIGTERM)
    for _ in range(round(grace_s / POLL_S)):
        if not left:
            return []
        await asyncio.sleep(POLL_S)
        left = _others(name, value, but)
    for pid in left:
        _signal(pid, signal.SIGKILL)
    return left


def _others(name: str, value: str, but: tuple[str, str] | None) -> list[int]:
    spared = {os.getpid(), *(tagged_processes(*but) if but else ())}
    return [pid for pid in tagged_processes(name, value) if pid not in spared]


async def reap_adopted(own: Callable[[], set[int]]) -> None:
    """Collect adopted descendants that have ended, until cancelled; `own` are not ours to collect here."""
    while True:
        await asyncio.sleep(REAP_S)
        for pid in _zombies() - own():
            with contextlib.suppress(ChildProcessError):
                # It has ended: this returns at once.
                os.waitpid(pid, os.WNOHANG)  # noqa: ASYNC222


def _zombies() -> set[int]:
    found = set()
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                text = Path("/proc", entry, "stat").read_text(encoding="utf-8", errors="replace")
            except OSError:
                continue
            state, parent = text.rpartition(")")[2].split()[:2]
            if state == "Z" and int(parent) == os.getpid():
                found.add(int(entry))
    return found


def _signal(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return


def ends_with_its_parent() -> None:
    """Have the kernel end this process of `multiprocessing` when the one that began it dies, however it does.

    That may be Python's fork server, which goes with the process that it serves.
    """
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    parent = multiprocessing.parent_process()
    # It may have died before the line above took effect.
    if parent is not None and not parent.is_alive():
        os._exit(1)


def _hears_of_parents_death(parent: int, number: int) -> Callable[[], None]:
    """Return what a child of `parent` runs first, so that the kernel sends it `number` when that one dies."""
    library = ctypes.CDLL(None, use_errno=True)

    def in_child() -> None:
        library.prctl(_PR_SET_PDEATHSIG, number, 0, 0, 0)
        # The parent may have died before the line above took effect.
        if os.getppid() != parent:
            os._exit(1)

    return in_child
