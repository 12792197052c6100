"""The one adapter to the system's clock, randomness and host: everything else gets them as arguments."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import getpass
import hashlib
import os
import secrets
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

from heliostat.model.environ import is_overwritten

_ALPHABET = "abcdefghijkmnpqrstuvwxyz23456789"
"""Letters and digits that can't be mistaken for one another, fit for file, job and pod names."""

LAUNCH_ID_CHARS = 7

_OURS = b"HELIOSTAT_CLUSTER_UID="


class SystemClock:
    """`ports.clock.HostClock` on this machine: its wall clock may jump."""

    def now_s(self) -> float:
        return time.time()

    def uptime_s(self) -> float:
        return time.clock_gettime(time.CLOCK_BOOTTIME)

    def boot_id(self) -> str:
        return _boot_id()

    def monotonic_s(self) -> float:
        return time.monotonic()

    def utc_offset_s(self) -> float:
        return time.localtime().tm_gmtoff

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


@functools.cache
def _boot_id() -> str:
    """Return the system's own name of this boot, which no process outlives; empty where it has none."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""


class RandomIds:
    """`ports.clock.Ids`: 32^7 ids, 3e10, so that even a lost journal is not likely to repeat one."""

    def launch_id(self) -> str:
        return "l" + "".join(secrets.choice(_ALPHABET) for _ in range(LAUNCH_ID_CHARS))


def new_cluster_uid() -> str:
    """Return 128 random bits in hex: what tells this cluster from any other of the same name."""
    return secrets.token_hex(16)


def owner() -> str:
    """Return `user@host`, for tags that people read."""
    return f"{getpass.getuser()}@{socket.gethostname()}"


def process_start_ticks(pid: int) -> int | None:
    """Return when a process started, in clock ticks since boot; None when there is none.

    Together with the pid it is an identity: pids are used again, the pair is not.
    Field 22 of /proc/PID/stat, counted behind the command's closing parenthesis (proc(5)).
    """
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            fields = file.read().rpartition(")")[2].split()
    except OSError:
        return None
    # A zombie is over: nobody will hear from it again.
    return None if fields[0] in "ZX" else int(fields[19])


def is_process(pid: int, start_ticks: int) -> bool:
    """Say whether the very process that had this pid and start time still runs."""
    return pid > 0 and process_start_ticks(pid) == start_ticks


def signal_process(pid: int, start_ticks: int, number: int) -> bool:
    """Signal that very process; False when it is gone or another has its pid now."""
    try:
        descriptor = os.pidfd_open(pid)
    except OSError:
        return False
    try:
        if not is_process(pid, start_ticks):
            return False
        _send(descriptor, number)
        return True
    finally:
        os.close(descriptor)


def _send(descriptor: int, number: int) -> None:
    try:
        signal.pidfd_send_signal(descriptor, number)
    except ProcessLookupError:
        return


def tagged_processes(name: str, value: str | None = None) -> list[int]:
    """Return the pids of our own processes whose environment has `name=value`; None: any value.

    Ray's agents and workers change their title, which overwrites the place where the system
    shows their environment, in part or whole; such a one counts if its session is a tagged
    process's, or if none shows in it that is of no cluster (a head is in the session of its
    cluster's wrapper).
    """
    begins, whole = f"{name}=".encode(), f"{name}={value}".encode()
    environments = {pid: environment_of(pid) for pid in own_pids()}
    tagged = {
        pid
        for pid, found in environments.items()
        if (any(one.startswith(begins) for one in found) if value is None else whole in found)
    }
    hidden = {pid for pid, found in environments.items() if is_overwritten(found[0] if found else b"")}
    # What it still shows may be another's tag.
    hidden -= {pid for pid in hidden - tagged if any(one.startswith(begins) for one in environments[pid])}
    ours = {pid for pid, found in environments.items() if any(one.startswith(_OURS) for one in found)}
    strange = {_session(pid) for pid in environments.keys() - tagged - hidden - ours}
    sessions = {one for pid in tagged if (one := _session(pid)) in tagged or one not in strange}
    # Number 0 is every session that began outside this container, and the system's own threads.
    sessions -= {None, 0}
    return sorted({*tagged, *(pid for pid in hidden if _session(pid) in sessions)})


def _session(pid: int) -> int | None:
    """Return a living process's session; None for one that is gone or a zombie."""
    try:
        return os.getsid(pid) if process_start_ticks(pid) is not None else None
    except ProcessLookupError:
        return None


def own_pids() -> list[int]:
    """Return the pids of this user's processes."""
    mine = os.getuid()
    found = []
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            try:
                if entry.stat().st_uid == mine:
                    found.append(int(entry.name))
            except OSError:
                continue
    return found


def environment_of(pid: int) -> list[bytes]:
    """Return a process's environment as it was at its start; nothing of one that is gone or another's."""
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            return file.read().split(b"\0")
    except OSError:
        return []


END_GRACE_S = 3.0
END_POLL_S = 0.05


def end_tagged_now(name: str, value: str, *, but: str | None = None) -> int:
    """End every process of ours with `name=value` in its environment; return how many there were.

    TERM first, KILL for what is left after `END_GRACE_S`. Never this process itself, nor one of a session
    in which one has a variable `but`.
    """
    found = _others(name, value, but)
    for number in (signal.SIGTERM, signal.SIGKILL):
        for pid in _others(name, value, but):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        until_s = time.monotonic() + END_GRACE_S
        while _others(name, value, but) and time.monotonic() < until_s:
            time.sleep(END_POLL_S)
    return len(found)


def _others(name: str, value: str, but: str | None) -> list[int]:
    # By session: a process that changes its title may keep the one variable and lose the other (seen).
    spared = {_session(pid) for pid in tagged_processes(but)} if but else set()
    return [
        pid for pid in tagged_processes(name, value) if pid != os.getpid() and _session(pid) not in spared
    ]


def controller_lock(cluster_uid: str) -> str:
    """Return the name of the lock that a cluster's controller holds on the head's host while it lives."""
    return f"controller {cluster_uid}"


def up_lock(folder: Path) -> str:
    """Return the name of the lock that an `up` holds of the cluster with that state folder."""
    return f"up {folder}"


def lock_holder(what: str) -> int | None:
    """Return the pid of our own process that holds the lock `what`; None if none can be found.

    Asked of the system's tables: a connection would stay in the holder's queue, which nobody empties.
    """
    name = _lock_name(what).replace("\0", "@")
    with open("/proc/net/unix", encoding="utf-8", errors="replace") as file:
        rows = [line.split() for line in file]
    sockets = {f"socket:[{row[6]}]" for row in rows if len(row) == 8 and row[7] == name}
    return next((pid for pid in own_pids() if sockets and sockets & _open_files(pid)), None)


def _open_files(pid: int) -> set[str]:
    try:
        return {os.readlink(entry.path) for entry in os.scandir(f"/proc/{pid}/fd")}
    except OSError:
        return set()


@contextlib.contextmanager
def abstract_lock(what: str) -> Iterator[bool]:
    """Hold a lock that the kernel drops with this process; yields False if another holds it.

    A listening socket without a file (unix(7), abstract): locks on files are not to be
    trusted where login nodes keep their homes.
    """
    with socket.socket(socket.AF_UNIX) as held:
        try:
            held.bind(_lock_name(what))
        except OSError:
            yield False
            return
        held.listen(1)
        yield True


def _lock_name(what: str) -> str:
    digest = hashlib.sha256(what.encode()).hexdigest()[:24]
    return f"\0heliostat-{os.getuid()}-{digest}"
