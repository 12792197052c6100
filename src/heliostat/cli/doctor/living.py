"""Who lives: this user's processes with our tags, and the clusters that must not be touched."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from heliostat.cli.gcs_storage import has_kept_state
from heliostat.cli.launch_file import LaunchFile
from heliostat.cli.successor import SuccessorPlaces
from heliostat.cli.system import (
    abstract_lock,
    controller_lock,
    environment_of,
    is_process,
    lock_holder,
    own_pids,
    process_start_ticks,
    up_lock,
)
from heliostat.config.places import StatePlaces
from heliostat.config.record import ClusterRecord, list_records, read_record
from heliostat.ports.errors import HeliostatError

UID_TAG, INSTANCE_TAG = b"HELIOSTAT_CLUSTER_UID", b"HELIOSTAT_INSTANCE_ID"
KEEPERS = ("heliostat.cli.wrapper", "heliostat.cli.controller", "heliostat.cli.head_job")
"""Modules whose processes are a cluster that lives; the word behind is its state folder."""

START_S = 300.0
"""A cluster that was recorded so lately may be on its way up, with no process of its own yet."""


@dataclass(frozen=True)
class Process:
    """One of this user's processes, by pid and start. The tags are empty where it has none to be read."""

    pid: int
    start_ticks: int
    argv: tuple[str, ...]
    cluster_uid: str = ""
    instance_id: str = ""
    session: int = 0


@dataclass(frozen=True)
class Host:
    """This host as `doctor` sees it: its processes, the records of a state root, and the time."""

    root: Path
    environment: Mapping[str, str]
    now_s: float
    processes: Sequence[Process] = ()
    records: Sequence[ClusterRecord] = ()
    problems: Sequence[str] = field(default=())

    @cached_property
    def gone(self) -> tuple[ClusterRecord, ...]:
        """Return the clusters of this host of which the record is all that is certain to be left."""
        return tuple(one for one in self.records if one.job is None and self._is_gone(one))

    @cached_property
    def living_uids(self) -> frozenset[str]:
        """Return the uids of clusters that live, or may live elsewhere."""
        gone = {one.cluster_uid for one in self.gone}
        believed = {one.cluster_uid for one in self.records} - gone
        return frozenset(believed | {one.cluster_uid for one in self.keepers if one.cluster_uid})

    @cached_property
    def keepers(self) -> tuple[Process, ...]:
        return tuple(one for one in self.processes if any(word in KEEPERS for word in one.argv))

    @cached_property
    def living_folders(self) -> frozenset[str]:
        """Return runtime and temp folders of clusters that live, whatever state root they are in."""
        believed = [one for one in self.records if one.cluster_uid in self.living_uids]
        folders = {one.runtime_dir for one in believed}
        homes = {self.root / one.cluster_name for one in believed}
        for home in homes.union(map(_state_folder, self.keepers)):
            with contextlib.suppress(HeliostatError):
                launch = LaunchFile.read(home)
                folders |= {launch.runtime_dir, launch.head_temp_dir}
        return frozenset(folders - {""})

    def lives(self, cluster_uid: str) -> bool:
        return cluster_uid in self.living_uids or lock_holder(controller_lock(cluster_uid)) is not None

    def uses(self, folder: Path) -> bool:
        """Say whether a living process of this user names the folder in its command line."""
        name = str(folder)
        return any(name in word for one in self.processes for word in one.argv)

    @cached_property
    def kept(self) -> tuple[ClusterRecord, ...]:
        """Return the clusters of this host that crashed and have kept their state: the next `up` goes on."""
        return tuple(one for one in self.records if has_kept_state(one) and self._has_no_keeper(one))

    def _is_gone(self, record: ClusterRecord) -> bool:
        return not has_kept_state(record) and self._has_no_keeper(record)

    def _has_no_keeper(self, record: ClusterRecord) -> bool:
        if record.host != socket.gethostname() or any(
            one.cluster_uid == record.cluster_uid for one in self.keepers
        ):
            return False
        if record.wrapper is None and self.now_s - record.created_at_s < START_S:
            return False
        if record.wrapper is not None and is_process(record.wrapper.pid, record.wrapper.start_ticks):
            return False
        starting = not _is_free(up_lock(self.root / record.cluster_name))
        return not starting and lock_holder(controller_lock(record.cluster_uid)) is None


def look(root: Path, environment: Mapping[str, str], *, now_s: float) -> Host:
    """Look at this host; processes that began this one (its shell, …) are left out, whatever they carry."""
    records, problems = list_records(root)
    for path in sorted(root.glob(f"*/{SuccessorPlaces(root).record.name}")):
        with contextlib.suppress(HeliostatError):
            found = read_record(path)
            records += [found] if found else []
    mine = set(_ancestors(os.getpid()))
    processes = tuple(one for one in seen(own_pids()) if one.pid not in mine)
    return Host(root, environment, now_s, processes, tuple(records), tuple(problems))


def seen(pids: Iterable[int]) -> list[Process]:
    return [one for pid in pids if (one := process(pid)) is not None]


def process(pid: int) -> Process | None:
    """Return a process as it is now; None if it is gone."""
    ticks = process_start_ticks(pid)
    if ticks is None:
        return None
    tags = dict(entry.partition(b"=")[::2] for entry in reversed(environment_of(pid)))
    try:
        argv = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
        session = os.getsid(pid)
    except OSError:
        return None
    uid, instance = (tags.get(one, b"").decode(errors="replace") for one in (UID_TAG, INSTANCE_TAG))
    return Process(pid, ticks, tuple(argv), uid, instance, session)


def _ancestors(pid: int) -> list[int]:
    found = []
    while pid > 0 and pid not in found:
        found.append(pid)
        try:
            stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        except OSError:
            break
        pid = int(stat.rpartition(")")[2].split()[1])
    return found


def _state_folder(keeper: Process) -> Path:
    place = next(index for index, word in enumerate(keeper.argv) if word in KEEPERS)
    return StatePlaces(Path(*keeper.argv[place + 1 : place + 2])).folder


def _is_free(what: str) -> bool:
    with abstract_lock(what) as held:
        return held
