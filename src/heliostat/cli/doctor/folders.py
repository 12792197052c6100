"""Folders on this host's own disk that clusters have left: runtime folders, and Ray's temp folders."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from heliostat.cli.doctor.finding import Finding
from heliostat.cli.doctor.living import Host, look
from heliostat.cli.durations import humanise
from heliostat.cli.head import TEMP_ROOT
from heliostat.cli.launch_file import LaunchFile
from heliostat.config.places import RUNTIME_ID_CHARS, RUNTIME_VARIABLE
from heliostat.journal import past_events
from heliostat.ports.errors import HeliostatError

YOUNG_S = 600.0
"""What was touched so lately may belong to a cluster that is just being made."""

RUNTIME_NAME = re.compile(rf"[0-9a-f]{{{RUNTIME_ID_CHARS}}}")
TEMP_NAME = re.compile(r"hel-[a-z0-9_]{8}")
SESSION_NAME = re.compile(r"session_\d{4}-\d\d-\d\d_[0-9-]+_\d+_\d+")
SESSIONS_READ = 1000
ANSWER_S = 0.5


def runtime_folders(host: Host, root: Path) -> list[Finding]:
    """Return the runtime folders, with sockets and slots, of clusters that are gone."""
    gone = {one.runtime_dir: one.cluster_name for one in host.gone}
    found, strangers = [], []
    for folder in _own(root, RUNTIME_NAME):
        if str(folder) in host.living_folders or _is_heard(folder / "control.sock"):
            continue
        recorded, uids = str(folder) in gone, _uids_of(folder)
        if any(map(host.lives, uids)) or (not recorded and _age_s(folder, host) < YOUNG_S):
            continue
        # A root of the user's choice may be on a shared file system, and the folder another host's.
        if recorded or RUNTIME_VARIABLE not in host.environment:
            cluster = gone.get(str(folder)) or ", ".join(sorted(uids))
            found.append(_folder("runtime folder", cluster, folder, host=host))
        else:
            strangers.append(folder)
    return found + _strangers("runtime folder", strangers)


def temp_folders(host: Host, runtime_root: Path) -> list[Finding]:
    """Return Ray's temp folders that heads and workers of clusters that are gone have left.

    A launch file, a slot or the folder's own session names the cluster; a name like ours proves nothing.
    """
    sessions, told = _past_sessions(host), _told(host, runtime_root)
    living = {one.session_name for one in host.records if one.cluster_uid in host.living_uids}
    roots = {Path(TEMP_ROOT), *(Path(one).parent for one in told)}
    found, strangers = [], []
    for folder in (one for root in sorted(roots) for one in _own(root, TEMP_NAME)):
        of_folder = {one.name for one in folder.glob("session_2*") if one.is_dir()}
        if of_folder & living or str(folder) in host.living_folders or host.uses(folder):
            continue
        whose = told.get(str(folder)) or next((sessions[one] for one in of_folder if one in sessions), "")
        if whose:
            found.append(_folder("temp folder", whose, folder, host=host))
        elif of_folder and _age_s(folder, host) >= YOUNG_S:
            strangers.append(folder)
    return found + _strangers("temp folder", strangers)


def _told(host: Host, runtime_root: Path) -> dict[str, str]:
    """Return temp folder -> cluster, as launch files and slots of clusters that are gone have it."""
    found = {}
    for record in host.gone:
        with contextlib.suppress(HeliostatError):
            launch = LaunchFile.read(host.root / record.cluster_name)
            if launch.cluster_uid == record.cluster_uid:
                found[launch.head_temp_dir] = record.cluster_name
    names = {one.cluster_uid: one.cluster_name for one in host.gone}
    for slot in runtime_root.glob("*/i/*/slot.json"):
        uid = str(_json(slot).get("cluster_uid", ""))
        if uid and not host.lives(uid):
            found[str(_json(slot.with_name("status")).get("temp_dir", ""))] = names.get(uid, uid)
    return {folder: cluster for folder, cluster in found.items() if folder}


def _folder(kind: str, cluster: str, folder: Path, *, host: Host) -> Finding:
    def fix() -> None:
        if look(host.root, host.environment, now_s=host.now_s).uses(folder):
            raise HeliostatError(f"{folder} is still in use")
        shutil.rmtree(folder)

    what = f"{folder} ({_size(folder) / 2**20:.1f} MiB, {humanise(_age_s(folder, host))} old)"
    return Finding(kind, cluster, what, "its cluster is gone", fix, items=(str(folder),))


def _strangers(kind: str, folders: list[Path]) -> list[Finding]:
    """Return one finding for all the folders of which nothing here tells whose they were."""
    if not folders:
        return []
    size = sum(map(_size, folders)) / 2**20
    more = f" and {len(folders) - 1} more" if len(folders) > 1 else ""
    why = "no living process uses it, and nothing here tells whose it was"
    hint = f"rm -r {folders[0]}" + ("; --json lists all" if more else "")
    items = tuple(map(str, folders))
    return [Finding(kind, "", f"{folders[0]}{more} ({size:.1f} MiB)", why, hint=hint, items=items)]


def _own(root: Path, name: re.Pattern[str]) -> Iterator[Path]:
    """Yield the folders of this user's in `root` whose name matches: no links, nobody else's."""
    try:
        entries = sorted(os.scandir(root), key=lambda one: one.name)
    except OSError:
        return
    for entry in entries:
        if not name.fullmatch(entry.name) or not entry.is_dir(follow_symlinks=False):
            continue
        if entry.stat(follow_symlinks=False).st_uid == os.getuid():
            yield Path(entry.path)


def _uids_of(folder: Path) -> set[str]:
    return {str(uid) for path in folder.glob("i/*/slot.json") if (uid := _json(path).get("cluster_uid"))}


def _json(path: Path) -> dict[str, Any]:
    """Return the object in a file; an empty one where there is none that can be read."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _past_sessions(host: Host) -> dict[str, str]:
    """Return session -> cluster name of the clusters that are gone, by their records and journals."""
    living = {one.cluster_name for one in host.records if one.cluster_uid in host.living_uids}
    found = {one.session_name: one.cluster_name for one in host.gone if one.session_name}
    for path in host.root.glob("*/journal.db"):
        # A living controller has its journal for itself.
        if path.parent.name in living:
            continue
        for event in past_events(path, "head", limit=SESSIONS_READ):
            found |= dict.fromkeys(SESSION_NAME.findall(event.text), path.parent.name)
    return found


def _is_heard(socket_path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as asking:
        asking.settimeout(ANSWER_S)
        try:
            asking.connect(str(socket_path))
        except (FileNotFoundError, ConnectionRefusedError):
            return False
        except OSError:
            return True
    return True


def _age_s(path: Path, host: Host) -> float:
    return max(0.0, host.now_s - path.stat().st_mtime)


def _size(folder: Path) -> int:
    """Return how many bytes the files of a folder take."""
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.lstat(os.path.join(parent, name)).st_size
            except OSError:
                continue
    return total
