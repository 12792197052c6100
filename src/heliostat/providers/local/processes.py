"""Processes of this machine: who they are, whose they are, and how they are started and ended.

A process is known by its pid *and* its start time, since pids are used again; nothing
here signals a pid alone. A worker's whole family is known by the tag in its environment,
which children inherit, or by its session: Ray's agents and workers change their title,
and that overwrites the place where the system shows their environment (seen).
"""

from __future__ import annotations

import functools
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from heliostat.model.environ import is_overwritten

PROC = Path("/proc")
BOOT_ID = PROC / "sys/kernel/random/boot_id"
CLUSTER_TAG = "HELIOSTAT_CLUSTER_UID"
INSTANCE_TAG = "HELIOSTAT_INSTANCE_ID"
DEAD_STATES = frozenset("ZXx")


@dataclass(frozen=True)
class Identity:
    """One process for ever: `start_ticks` is field 22 of /proc/<pid>/stat, counted from boot."""

    pid: int
    start_ticks: int


@dataclass(frozen=True)
class Stat:
    """What we need of /proc/<pid>/stat."""

    state: str
    parent_pid: int
    session: int
    start_ticks: int


def parse_stat(text: str) -> Stat:
    """Read /proc/<pid>/stat; the command's name in brackets may hold spaces and brackets."""
    fields = text[text.rindex(")") + 1 :].split()
    return Stat(fields[0], int(fields[1]), int(fields[3]), int(fields[19]))


def parse_tags(environ: bytes) -> tuple[str, str] | None:
    """Return (cluster uid, instance id) of a /proc/<pid>/environ; None if it has no tags.

    Where a name stands twice the first counts, as for getenv().
    """
    found: dict[bytes, bytes] = {}
    for entry in environ.split(b"\0"):
        name, _, value = entry.partition(b"=")
        found.setdefault(name, value)
    cluster, instance = found.get(CLUSTER_TAG.encode()), found.get(INSTANCE_TAG.encode())
    if not cluster or not instance:
        return None
    return cluster.decode(errors="replace"), instance.decode(errors="replace")


def boot_id() -> str:
    """Return an id of this boot of the machine: start times before it mean nothing. Empty: not known."""
    try:
        return _read_boot_id()
    except OSError:
        return ""


@functools.cache
def _read_boot_id() -> str:
    """Read it once: no process outlives its boot. A read that fails is not kept."""
    return BOOT_ID.read_text().strip()


def stat_of(pid: int) -> Stat | None:
    """Return a process' stat; None where there is no such process."""
    try:
        return parse_stat((PROC / str(pid) / "stat").read_text(errors="replace"))
    except (OSError, ValueError, IndexError):
        return None


def is_alive(identity: Identity) -> bool:
    """Say whether this very process still runs; a zombie does not."""
    stat = stat_of(identity.pid)
    return stat is not None and stat.start_ticks == identity.start_ticks and stat.state not in DEAD_STATES


def reap(identity: Identity) -> int | None:
    """Collect a dead child of ours and return its exit code (negative: the signal).

    None where it lives, or is no child of ours: then nobody but its parent can know.
    """
    stat = stat_of(identity.pid)
    if stat is None or stat.start_ticks != identity.start_ticks or stat.parent_pid != os.getpid():
        return None
    try:
        pid, status = os.waitpid(identity.pid, os.WNOHANG)
    except ChildProcessError:
        return None
    return os.waitstatus_to_exitcode(status) if pid else None


def families(cluster_uid: str, leaders: Mapping[str, Identity]) -> dict[str, list[Identity]]:
    """Return instance id -> its living processes, of this cluster and this user, oldest first.

    `leaders` are the bootstraps by instance id, each the leader of its session. Reads the
    environment of every process of ours: some 10 µs each, so not for the loop's thread.
    """
    sessions = {leader.pid: (instance_id, leader) for instance_id, leader in leaders.items()}
    found: dict[str, list[Identity]] = {}
    for pid in _pids():
        environ, stat = _environ_of(pid), stat_of(pid)
        if environ is None or stat is None or stat.state in DEAD_STATES:
            continue
        tags = parse_tags(environ)
        if tags is None:
            instance_id = _by_session(stat, environ, sessions)
        else:
            instance_id = tags[1] if tags[0] == cluster_uid else None
        if instance_id is not None:
            found.setdefault(instance_id, []).append(Identity(pid, stat.start_ticks))
    for family in found.values():
        family.sort(key=lambda one: (one.start_ticks, one.pid))
    return found


def _by_session(stat: Stat, environ: bytes, sessions: Mapping[int, tuple[str, Identity]]) -> str | None:
    """Return the instance whose session an untagged process is in; None if that is not certain.

    While its leader is there, a session's number is taken. Afterwards it might in time be
    somebody else's, so then only a process that changed its title counts.
    """
    if stat.session not in sessions:
        return None
    instance_id, leader = sessions[stat.session]
    now = stat_of(leader.pid)
    if now is not None:
        return instance_id if now.start_ticks == leader.start_ticks else None
    return instance_id if is_overwritten(environ) and stat.start_ticks >= leader.start_ticks else None


def _pids() -> list[int]:
    return [int(name) for name in os.listdir(PROC) if name.isdigit()]


def _environ_of(pid: int) -> bytes | None:
    """Return a process' environment; None if it ended, or is not ours to look at and to touch."""
    folder = PROC / str(pid)
    try:
        return (folder / "environ").read_bytes() if folder.stat().st_uid == os.getuid() else None
    except OSError:
        return None


def send(identity: Identity, number: signal.Signals) -> bool:
    """Signal this very process, and never another that got its pid; False if it is gone."""
    try:
        handle = os.pidfd_open(identity.pid)
    except OSError:
        return False
    # The handle holds on to one process: if it is the right one now, it stays the right one.
    try:
        if not is_alive(identity):
            return False
        signal.pidfd_send_signal(handle, number)
    except OSError:
        return False
    finally:
        os.close(handle)
    return True


def spawn(command: Sequence[str], *, environment: Mapping[str, str], log: Path) -> Identity:
    """Start a process in a session of its own, its output appended to `log`. Raises OSError."""
    descriptor = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    with os.fdopen(descriptor, "ab") as output:
        child = subprocess.Popen(
            command,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            close_fds=True,
        )
    stat = stat_of(child.pid)
    # `reap` collects it by pid, also for a provider made anew in this process; so Popen
    # shall neither wait for it nor complain that it outlives us, which it is meant to.
    child.returncode = 0
    return Identity(child.pid, stat.start_ticks if stat else 0)
