"""Find this user's processes by what stands in their environment, on Linux.

A process is (pid, start time), because pids are used again.

    python -m tools.processes list           print every process that belongs to a Heliostat cluster
    python -m tools.processes left-since F   print those that are not in file F; exit 1 if there are any
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

OURS = (b"HELIOSTAT_INSTANCE_ID=", b"HELIOSTAT_CLUSTER_UID=")
SETTLE_S = 15.0
TERM_S = 5.0
POLL_S = 0.1


@dataclass(frozen=True, order=True)
class Process:
    """One process; `started` is in clock ticks since boot."""

    pid: int
    started: int
    command: str

    @property
    def key(self) -> str:
        return f"{self.pid}@{self.started}"

    def __str__(self) -> str:
        return f"{self.key} {self.command}"


def find(belongs: Callable[[bytes], bool]) -> list[Process]:
    """Return this user's living processes whose environment (NUL-separated) `belongs`."""
    return sorted(process for process in _all() if belongs(_read(process.pid, "environ")))


def of_a_cluster(environ: bytes) -> bool:
    """Say whether an environment carries a tag of ours."""
    return any(entry.startswith(OURS) for entry in environ.split(b"\0"))


def wait_until_gone(
    belongs: Callable[[bytes], bool], *, known: Collection[str] = (), timeout_s: float = SETTLE_S
) -> list[Process]:
    """Wait for all such processes, but those `known` by their `key`, to end; return those that did not."""
    deadline_s = time.monotonic() + timeout_s
    while True:
        left = [process for process in find(belongs) if process.key not in known]
        if not left or time.monotonic() > deadline_s:
            return left
        time.sleep(POLL_S)


def end(processes: Iterable[Process]) -> None:
    """End exactly these, gently first."""
    left = list(processes)
    for number in (signal.SIGTERM, signal.SIGKILL):
        for process in left:
            _signal(process, number)
        deadline_s = time.monotonic() + TERM_S
        while (left := [one for one in left if one in _all()]) and time.monotonic() < deadline_s:
            time.sleep(POLL_S)


def _signal(process: Process, number: int) -> None:
    # The start time tells whether the pid still means the same process.
    if process in _all():
        try:
            os.kill(process.pid, number)
        except ProcessLookupError:
            return


def _all() -> Iterator[Process]:
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit() and int(folder.name) != os.getpid():
            process = _process(int(folder.name))
            if process is not None:
                yield process


def _process(pid: int) -> Process | None:
    """Return the process, or None if it is gone, a zombie, or somebody else's."""
    try:
        if os.stat(f"/proc/{pid}").st_uid != os.getuid():
            return None
    except OSError:
        return None
    # The second field, the name, may hold spaces and brackets: cut behind its end.
    fields = _read(pid, "stat").rpartition(b")")[2].split()
    if not fields or fields[0] in (b"Z", b"X"):
        return None
    command = _read(pid, "cmdline").replace(b"\0", b" ").decode(errors="replace").strip()
    return Process(pid, int(fields[19]), command[:200])


def _read(pid: int, name: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes()
    except OSError:
        return b""


def main(arguments: Sequence[str]) -> int:
    """List, or compare with an earlier list; return the exit code."""
    if arguments == ["list"]:
        print("\n".join(map(str, find(of_a_cluster))))
        return 0
    if len(arguments) == 2 and arguments[0] == "left-since":
        lines = Path(arguments[1]).read_text(encoding="utf-8").splitlines()
        left = wait_until_gone(of_a_cluster, known={line.partition(" ")[0] for line in lines})
        print("\n".join(map(str, left)) or "no process of a cluster is left")
        return 1 if left else 0
    print(__doc__)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
