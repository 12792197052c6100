"""What is left in the state root: records of clusters that are gone, half-written files, old logs."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

from heliostat.cli.clusters import way_back
from heliostat.cli.doctor.finding import Finding
from heliostat.cli.doctor.living import Host
from heliostat.cli.durations import humanise
from heliostat.cli.gcs_storage import forget_storage
from heliostat.cli.launch_file import LaunchFile
from heliostat.config.places import StatePlaces
from heliostat.config.record import ClusterRecord, remove_record
from heliostat.raylink.address_file import address_file, answers, release_address_file

HALF_WRITTEN = (".cluster.json-*", ".successor.json-*", ".write-test-*", "launch.json.new", "attached")
HALF_WRITTEN_S = 3600.0
UNUSED_S = 180 * 86_400.0
"""After so long without a change a state folder counts as given up. Its journal has what things have cost."""


def records(host: Host) -> list[Finding]:
    """Return the records that say of a cluster which is gone that it runs, and those that can't be read."""
    found = [*(_record(one, host) for one in host.gone), *(_kept(one, host) for one in host.kept)]
    return found + [
        Finding("record", "", text, "what runs of its cluster can't be told", hint="see there")
        for text in host.problems
    ]


def address_files(host: Host) -> list[Finding]:
    """Return the file by which plain `ray.init()` finds a cluster, where it names one that is gone."""
    path = address_file(host.environment)
    found = []
    for one in host.gone:
        if one.address and _text(path) == one.address and not answers(one.address):
            release = _releases(one.address, host)
            what = f"{path} names {one.address}"
            found.append(Finding("address", one.cluster_name, what, "nobody answers there", release))
    return found


def files(host: Host, *, old_s: float) -> list[Finding]:
    """Return what is old in folders of clusters that do not run: all of it, or logs and drafts."""
    living = {one.cluster_name for one in host.records}
    found: list[Finding] = []
    for folder in sorted(path for path in host.root.glob("*") if path.is_dir() and not path.is_symlink()):
        places = StatePlaces(folder)
        ours = places.journal.exists() or places.config.exists()
        if folder.name in living or not ours or folder.stat().st_uid != os.getuid():
            continue
        youngest_s = min((_age_s(path, host) for path in _files(folder)), default=0.0)
        if youngest_s > UNUSED_S:
            found.append(_unused(folder, youngest_s))
            continue
        found += _old_logs(places, host, old_s)
        drafts = [path for form in HALF_WRITTEN for path in folder.glob(form)]
        found += _half_written(folder, [path for path in drafts if _age_s(path, host) > HALF_WRITTEN_S])
    return found


def _record(record: ClusterRecord, host: Host) -> Finding:
    places = StatePlaces(host.root / record.cluster_name)

    def fix() -> None:
        forget_storage(record)
        remove_record(places.record, record.cluster_uid)
        if not places.record.exists():
            LaunchFile.remove(places.folder)

    pid = f" (pid {record.wrapper.pid})" if record.wrapper else ""
    return Finding("record", record.cluster_name, str(places.record), f"its wrapper{pid} is gone", fix)


def _kept(record: ClusterRecord, host: Host) -> Finding:
    """Return a cluster that waits for the next `up`: nothing of it is astray, and nobody may have noticed."""
    what = str(StatePlaces(host.root / record.cluster_name).record)
    why = "it crashed, and has kept its state and perhaps its workers"
    return Finding("record", record.cluster_name, what, why, hint=way_back(record))


def _unused(folder: Path, age_s: float) -> Finding:
    why = f"its cluster does not run, and nothing in it has changed for {humanise(age_s)}"
    what = f"{folder}, with the journal and logs of former runs"
    return Finding("state folder", folder.name, what, why, lambda: shutil.rmtree(folder))


def _old_logs(places: StatePlaces, host: Host, old_s: float) -> list[Finding]:
    logs = [path for path in places.logs.glob("*.log") if _age_s(path, host) > old_s]
    if not logs:
        return []
    size = sum(path.stat().st_size for path in logs)
    what = f"{len(logs)} files in {places.logs} ({size / 2**20:.1f} MiB)"
    why = f"older than {humanise(old_s)}"
    return [Finding("logs", places.folder.name, what, why, lambda: _remove(logs))]


def _half_written(folder: Path, drafts: list[Path]) -> list[Finding]:
    if not drafts:
        return []
    what = ", ".join(str(path) for path in drafts)
    return [Finding("file", folder.name, what, "its writer is gone", lambda: _remove(drafts))]


def _remove(paths: Iterable[Path]) -> None:
    for path in paths:
        path.unlink(missing_ok=True)


def _releases(address: str, host: Host) -> Callable[[], None]:
    return lambda: release_address_file(address, host.environment)


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def _age_s(path: Path, host: Host) -> float:
    return host.now_s - path.lstat().st_mtime


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except (OSError, UnicodeDecodeError):
        return ""
