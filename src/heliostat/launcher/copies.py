"""Copies in place: the head's files are this machine's, or on a file system that both share.

As rsync would name things: a folder with a slash at its end stands for what is in it. A copy onto
itself is nothing, and no folder goes into itself.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from heliostat.config.record import ClusterRecord
from heliostat.launcher.asked import Refused
from heliostat.launcher.cluster import is_here

COPY_TIMEOUT_S = 3_600.0

OWN_FOLDERS = ("/tmp", "/var/tmp", "/dev/shm", "/run")
"""What each host of a site has for itself, whatever they share."""


@dataclass(frozen=True)
class Copy:
    """From where to where; `excludes` and `filters` are Ray's `rsync_exclude` and `rsync_filter`."""

    source: str
    target: str
    excludes: Sequence[str] = ()
    filters: Sequence[str] = ()

    @property
    def from_path(self) -> Path:
        return Path(os.path.expanduser(self.source))

    @property
    def to_path(self) -> Path:
        """Return where the source itself comes to lie."""
        target = Path(os.path.expanduser(self.target))
        into = self.target.endswith("/") or target.is_dir()
        contents = self.source.endswith("/")
        return target / self.from_path.name if into and not contents else target


def refuse_far_place(record: ClusterRecord, path: str) -> None:
    """Pass where the head's host sees this host's `path`, as far as can be told; else raise Refused.

    A head on another host shares the home folder, as it has its cluster's state from there, and
    in all likelihood the folder of the cluster file.
    """
    if is_here(record):
        return
    place = Path(os.path.expanduser(path)).resolve()
    beside = Path(record.source).parent.resolve()
    shared = [Path.home().resolve()]
    shared += [] if any(beside.is_relative_to(one) for one in OWN_FOLDERS) else [beside]
    if not any(place.is_relative_to(one) for one in shared):
        folders = " or ".join(map(str, dict.fromkeys(shared)))
        raise Refused(
            f"{path}: the head is on {record.host}, which need not see this host's files there; allowed is "
            f"a path in {folders}, or copy it yourself: `scp` to or from {record.host}"
        )


def copy_in_place(copy: Copy) -> str:
    """Copy, and return in words what was done. Raises Refused with the reason where it can't be."""
    source, target = copy.from_path, copy.to_path
    if not source.exists():
        raise Refused(f"{copy.source}: no such file or folder")
    for place in (target, Path(os.path.expanduser(copy.target))):
        if place.exists() and source.samefile(place):
            return f"{place} is there already: nothing to copy"
    if source.is_dir() and target.resolve().is_relative_to(source.resolve()):
        raise Refused(f"{copy.source} can't be copied into itself ({target})")
    try:
        if source.is_dir():
            _copy_folder(copy)
        else:
            shutil.copy2(source, target)
    except OSError as error:
        raise Refused(f"{copy.source} can't be copied to {target}: {error.strerror or error}") from error
    return f"{source} is copied to {target}"


def _copy_folder(copy: Copy) -> None:
    rsync = shutil.which("rsync")
    if rsync is None and (copy.excludes or copy.filters):
        raise Refused("rsync_exclude and rsync_filter need rsync, which is not installed here")
    if rsync is None:
        shutil.copytree(copy.from_path, copy.to_path, symlinks=True, dirs_exist_ok=True)
        return
    options = [f"--exclude={one}" for one in copy.excludes]
    options += [f"--filter=dir-merge,- {one}" for one in copy.filters]
    argv = [rsync, "-a", *options, "--", f"{copy.from_path}/", f"{copy.to_path}/"]
    try:
        done = subprocess.run(argv, check=False, timeout=COPY_TIMEOUT_S, capture_output=True, text=True)
    except subprocess.TimeoutExpired as error:
        text = f"not done within {error.timeout:.0f} s; a part of it may be there"
        raise Refused(f"{copy.source} can't be copied to {copy.to_path}: {text}") from error
    if done.returncode:
        raise Refused(f"{copy.source} can't be copied to {copy.to_path}: {done.stderr.strip()}")
