"""What is on disk of each instance: one folder, one record, replaced in one step.

    <runtime dir>/i/<instance id>/slot.json    the record
                                  start.json   the bootstrap's start document
                                  status       written by the bootstrap

A folder is made beside its place with the record inside and then moved there: the move
is the claim. So an instance either is there with all that it holds, or is not there.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from heliostat.model.resources import Resources
from heliostat.ports.errors import ProviderError, Unavailable
from heliostat.providers.local.processes import Identity

RECORD, START, STATUS = "slot.json", "start.json", "status"
UNFINISHED = ".new-"
VALID_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*(\.[A-Za-z0-9_-]+)*")


@dataclass(frozen=True)
class Stop:
    """Termination was asked for; times are of the monotonic clock, which this boot's processes share.

    `last_resort_s` is when what is left gets killed.
    """

    asked_s: float
    last_resort_s: float


@dataclass(frozen=True)
class End:
    """The bootstrap's process is over. `code` None: nobody could know. `at_s` is Unix time.

    `left` are the processes of the instance that it left behind; `alone` is True when
    none of the instance was left any more.
    """

    code: int | None
    at_s: float
    detail: str
    failed: bool
    alone: bool = False
    left: tuple[Identity, ...] = ()


@dataclass(frozen=True)
class Record:
    """One instance. `claimed_at_s` is Unix time, `claimed_s` the same on the monotonic clock."""

    instance_id: str
    cluster_uid: str
    node_type: str
    shape_id: str
    native_id: str
    gpus: tuple[str, ...]
    units: Mapping[str, float]
    grace_s: float
    boot_id: str
    claimed_at_s: float
    claimed_s: float
    process: Identity | None = None
    stop: Stop | None = None
    end: End | None = None

    @property
    def resources(self) -> Resources:
        return Resources.of(self.units)

    @property
    def holds_its_slot(self) -> bool:
        return self.end is None or not self.end.alone


class Records:
    """The folder of all instances of one cluster on this machine.

    Every method may raise Unavailable, in words, when the disk is full, read-only or gone.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def place(self, instance_id: str) -> Path:
        return self.folder / instance_id

    def exists(self, instance_id: str) -> bool:
        return VALID_ID.fullmatch(instance_id) is not None and self.place(instance_id).is_dir()

    def claim(self, record: Record, start: Mapping[str, object]) -> bool:
        """Put a new instance on disk; False if it was there already, and nothing is changed."""
        with self._in_words():
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            unfinished = self.folder / f"{UNFINISHED}{record.instance_id}"
            shutil.rmtree(unfinished, ignore_errors=True)
            unfinished.mkdir(mode=0o700)
            try:
                _write(unfinished / START, json.dumps(start))
                _write(unfinished / RECORD, _dumped(record))
                unfinished.rename(self.place(record.instance_id))
            except OSError as error:
                shutil.rmtree(unfinished, ignore_errors=True)
                if error.errno in {errno.ENOTEMPTY, errno.EEXIST}:
                    return False
                raise
        return True

    def save(self, record: Record) -> None:
        """Replace the record of an instance that is there."""
        with self._in_words():
            folder = self.place(record.instance_id)
            _write(folder / f"{RECORD}.new", _dumped(record))
            (folder / f"{RECORD}.new").replace(folder / RECORD)

    def remove(self, instance_id: str) -> None:
        """Take an instance off the disk: first out of the list, in one step, then its files."""
        with self._in_words():
            away = self.folder / f"{UNFINISHED}{instance_id}"
            shutil.rmtree(away, ignore_errors=True)
            self.place(instance_id).rename(away)
        shutil.rmtree(away, ignore_errors=True)

    def all(self, cluster_uid: str) -> list[Record]:
        """Return every instance of this cluster, by instance id; other clusters' are left out."""
        with self._in_words():
            try:
                names = sorted(os.listdir(self.folder))
            except FileNotFoundError:
                return []
            found = [self._read(name, cluster_uid) for name in names if VALID_ID.fullmatch(name)]
        return [record for record in found if record.cluster_uid == cluster_uid]

    def sweep(self) -> None:
        """Remove what a crash left half made or half removed; nothing was ever started for it."""
        with self._in_words(), contextlib.suppress(FileNotFoundError):
            for path in self.folder.glob(f"{UNFINISHED}*"):
                shutil.rmtree(path, ignore_errors=True)

    def _read(self, name: str, cluster_uid: str) -> Record:
        path = self.folder / name / RECORD
        try:
            return _loaded(path.read_text())
        except (ValueError, TypeError, KeyError, FileNotFoundError) as error:
            # Only a broken disk or a foreign hand does this. Listed, it can be terminated.
            words = f"its record {path} can't be read: {error}"
            end = End(None, 0.0, words, failed=True)
            return Record(name, cluster_uid, "", "", name, (), {}, 0.0, "", 0.0, 0.0, end=end)

    @contextlib.contextmanager
    def _in_words(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise disk_error(self.folder, error) from error


def disk_error(folder: Path, error: OSError) -> ProviderError:
    """Return what an error of the disk under `folder` means, and what to do."""
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return Unavailable(f"the disk of {folder} is full: free some space; nothing is started until then")
    if error.errno in {errno.EROFS, errno.EACCES, errno.EPERM}:
        return Unavailable(
            f"{folder} can't be written ({error.strerror}): make it writable, "
            "or set HELIOSTAT_RUNTIME_DIR to a folder that is"
        )
    return Unavailable(f"{folder}: {error.strerror or error}")


def _write(path: Path, text: str) -> None:
    """Write a file and wait until the disk has it; readable by its owner only."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def _dumped(record: Record) -> str:
    return json.dumps(asdict(record), indent=1)


def _loaded(text: str) -> Record:
    fields = _known(Record, json.loads(text))
    return Record(
        **{
            **fields,
            "gpus": tuple(fields["gpus"]),
            "process": Identity(**_known(Identity, fields["process"])) if fields["process"] else None,
            "stop": Stop(**_known(Stop, fields["stop"])) if fields["stop"] else None,
            "end": _loaded_end(fields["end"]) if fields["end"] else None,
        }
    )


def _loaded_end(fields: Mapping[str, Any]) -> End:
    left = tuple(Identity(**_known(Identity, one)) for one in fields["left"])
    return End(**{**_known(End, fields), "left": left})


def _known(kind: type[Record | Identity | Stop | End], found: Mapping[str, Any]) -> dict[str, Any]:
    """Pass over what a newer version has added: its worker must not count as broken."""
    return {one.name: found[one.name] for one in dataclasses.fields(kind) if one.name in found}
