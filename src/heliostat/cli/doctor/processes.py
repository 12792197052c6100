"""Processes of clusters that are gone: workers, heads, and what they started."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from heliostat.cli.doctor.finding import Finding
from heliostat.cli.doctor.living import UID_TAG, Host, Process, seen
from heliostat.cli.system import is_process, signal_process, tagged_processes
from heliostat.ports.errors import HeliostatError

GRACE_S = 20.0
"""A worker's bootstrap ends what it has started, in order, and removes its temp folder."""
KILLED_S = 5.0
POLL_S = 0.1

BOOTSTRAP = "bootstrap.py"
HEAD = "the head"


def astray(host: Host, runtime_root: Path) -> list[Finding]:
    """Return a finding for each worker or head of which processes are left.

    Its cluster is gone for certain where a record in the state root says so, or the worker's own record
    in a runtime folder that no living cluster has.
    """
    gone = {one.cluster_uid: one.cluster_name for one in host.gone}
    families: dict[tuple[str, str], list[Process]] = {}
    for uid in sorted({one.cluster_uid for one in host.processes} - {""}):
        if not host.lives(uid):
            for one in _tagged(uid, host):
                families.setdefault((uid, one.instance_id), []).append(one)
    recorded = _recorded(runtime_root)
    return [
        _finding(members, gone.get(uid, ""), certain=uid in gone or _is_recorded(members, recorded))
        for (uid, _), members in sorted(families.items())
    ]


def _tagged(uid: str, host: Host) -> list[Process]:
    """Return the cluster's processes; one that has overwritten its environment is of whom its session is."""
    known = {one.pid for one in host.processes}
    found = [one for one in seen(tagged_processes(UID_TAG.decode(), uid)) if one.pid in known]
    owners = {one.session: one.instance_id for one in found if one.cluster_uid}
    return [replace(one, cluster_uid=uid, instance_id=owners.get(one.session, "")) for one in found]


def _finding(members: Sequence[Process], cluster: str, *, certain: bool) -> Finding:
    instance = members[0].instance_id
    pids = ", ".join(str(one.pid) for one in members)
    what = f"{f'worker {instance}' if instance else HEAD}: {_counted(members)} ({pids})"
    uid = members[0].cluster_uid
    if certain:
        return Finding("process", cluster or uid, what, "its cluster is gone", lambda: end(members))
    why = "no wrapper of its cluster runs here, and nothing here tells of it"
    leaders = [str(one.pid) for one in members if _is_bootstrap(one)] or [pids.replace(",", "")]
    return Finding("process", uid, what, why, hint=f"kill {' '.join(leaders)}")


def end(members: Sequence[Process]) -> None:
    """End processes: bootstraps are told, who end their own; what is left after `GRACE_S` is killed."""
    leaders = [one for one in members if _is_bootstrap(one)]
    for one in leaders or members:
        signal_process(one.pid, one.start_ticks, signal.SIGTERM)
    if _wait(members, GRACE_S):
        for one in members:
            signal_process(one.pid, one.start_ticks, signal.SIGKILL)
    left = _wait(members, KILLED_S)
    if left:
        raise HeliostatError(f"still there: {', '.join(str(one.pid) for one in left)}")


def _wait(members: Sequence[Process], seconds: float) -> list[Process]:
    """Return those that still run after so long, or as soon as none does."""
    until_s = time.monotonic() + seconds
    while (left := [one for one in members if is_process(one.pid, one.start_ticks)]) and (
        time.monotonic() < until_s
    ):
        time.sleep(POLL_S)
    return left


def _is_bootstrap(one: Process) -> bool:
    return any(word.endswith(BOOTSTRAP) for word in one.argv)


def _is_recorded(members: Iterable[Process], recorded: set[tuple[str, int, int]]) -> bool:
    return any((one.cluster_uid, one.pid, one.start_ticks) in recorded for one in members)


def _recorded(runtime_root: Path) -> set[tuple[str, int, int]]:
    """Return (cluster uid, pid, start) of the workers that the local backend has written down here."""
    found = set()
    for path in runtime_root.glob("*/i/*/slot.json"):
        try:
            slot = json.loads(path.read_text(encoding="utf-8"))
            found.add((slot["cluster_uid"], slot["process"]["pid"], slot["process"]["start_ticks"]))
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return found


def _counted(members: Sequence[Process]) -> str:
    return "1 process" if len(members) == 1 else f"{len(members)} processes"
