"""`cluster.json` in a cluster's state folder: what it is and where it runs, for later commands.

Written whole or not at all; keys of newer versions are passed over. Standard
library only: `heliostat status` reads it, and has to be quick.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from heliostat.model.gcs_storage import GcsStorage
from heliostat.ports.errors import HeliostatError

FORMAT = 1
"""The version of the record's format. New keys with defaults leave it; what an older reader would
misunderstand raises it, and such a reader refuses."""

Built = TypeVar("Built", "ProcessMark", "HeadJob", GcsStorage, "ClusterRecord")


@dataclass(frozen=True)
class ProcessMark:
    """A process that can't be mistaken for a later one with its number.

    `start_ticks` is the kernel's start time in clock ticks since boot (field 22 of
    /proc/<pid>/stat); both must match before a signal is sent.
    """

    pid: int
    start_ticks: int


@dataclass(frozen=True)
class HeadJob:
    """A head that is a Slurm job. `job_id` is empty until sbatch has answered.

    `log` is the job's own output; `lease_end_s` its end in Unix seconds, 0 while it waits or has none.
    """

    job_id: str
    log: str
    lease_end_s: float = 0.0


@dataclass(frozen=True)
class ClusterRecord:
    """Identity and whereabouts of one cluster.

    `source` is the user's cluster file, `address` the GCS's `host:port` (empty until known), `host` the
    head's host name, `node_ip` its address among Ray's nodes where it was chosen (empty: by Ray),
    `created_at_s` Unix seconds, `phase` a word of model.report.StatusReport; a process that does not
    run is None. `python` is the head's interpreter, `head_temp_dir` where Ray's files are on its host,
    `client_port` that of Ray's client server. While a head's job waits, `host` and `address` are empty.
    With a `gcs_storage` the record outlives a crash: the next `up` brings this very cluster back.
    `autoscaler` is empty where Heliostat decides, else the version of Ray's own: «v1», «v2».
    """

    cluster_name: str
    cluster_uid: str
    owner: str
    created_at_s: float
    source: str
    host: str
    runtime_dir: str
    token_path: str
    ray_version: str
    python_version: str
    phase: str = "starting"
    address: str = ""
    dashboard_url: str = ""
    session_name: str = ""
    node_ip: str = ""
    python: str = ""
    head_temp_dir: str = ""
    client_port: int = 0
    autoscaler: str = ""
    job: HeadJob | None = None
    gcs_storage: GcsStorage | None = None
    wrapper: ProcessMark | None = None
    controller: ProcessMark | None = None
    head: ProcessMark | None = None
    format: int = FORMAT


def write_record(path: Path, record: ClusterRecord) -> None:
    """Replace the record in one step; when this returns, it is on disk. Raises HeliostatError."""
    text = json.dumps(dataclasses.asdict(record), indent=2, sort_keys=True) + "\n"
    try:
        _replace(path, text.encode())
    except OSError as error:
        raise HeliostatError(f"{path} can't be written: {error.strerror}") from error


def create_record(path: Path, record: ClusterRecord) -> bool:
    """Write the record unless there is one; False if there is. Of several hosts one succeeds.

    Safe on shared file systems: link(2) is one step at their server, and where its answer was
    lost the number of links tells (open(2), O_EXCL).
    """
    draft = path.with_name(f".{path.name}-{record.cluster_uid}")
    write_record(draft, record)
    try:
        with contextlib.suppress(FileExistsError):
            os.link(draft, path)
        return draft.stat().st_nlink > 1
    except OSError as error:
        raise HeliostatError(f"{path} can't be written: {error.strerror}") from error
    finally:
        draft.unlink(missing_ok=True)


def remove_record(path: Path, cluster_uid: str) -> None:
    """Remove the record if it is that cluster's, and never another's that was put there meanwhile."""
    if not _is_of(path, cluster_uid):
        return
    aside = path.with_name(f".{path.name}-{cluster_uid}-gone")
    with contextlib.suppress(FileNotFoundError):
        # Another host may have done the same since we read it, and its `up` may have written the next one.
        os.replace(path, aside)
        if not _is_of(aside, cluster_uid):
            with contextlib.suppress(FileExistsError):
                os.link(aside, path)
        aside.unlink()


def _is_of(path: Path, cluster_uid: str) -> bool:
    record = read_record(path)
    return record is not None and record.cluster_uid == cluster_uid


def read_record(path: Path) -> ClusterRecord | None:
    """Return the record, None if there is none; raise HeliostatError for a damaged one."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise HeliostatError(f"{path} can't be read: {error.strerror}") from error
    except ValueError as error:
        raise _damaged(path, "it is not JSON") from error
    if not isinstance(found, dict):
        raise _damaged(path, "it holds no object")
    written = found.get("format", FORMAT)
    if isinstance(written, int) and written > FORMAT:
        raise HeliostatError(
            f"{path} was written by a newer heliostat (format {written}, this one knows {FORMAT}): "
            "use that version"
        )
    try:
        return _built(ClusterRecord, found)
    except ValueError as error:
        raise _damaged(path, str(error)) from error


def list_records(root: Path) -> tuple[list[ClusterRecord], list[str]]:
    """Return all clusters under a state root by name, and a sentence for each that can't be read."""
    records: list[ClusterRecord] = []
    problems: list[str] = []
    for path in sorted(root.glob("*/cluster.json")):
        try:
            record = read_record(path)
        except HeliostatError as error:
            problems.append(str(error))
        else:
            records += [record] if record else []
    return records, problems


def _built(kind: type[Built], found: Mapping[str, Any]) -> Built:
    """Build `kind` from the keys that it knows; ValueError names the first that is wrong."""
    given = {}
    for field in dataclasses.fields(kind):
        if field.name in found:
            try:
                given[field.name] = _READERS[str(field.type)](found[field.name])
            except (TypeError, ValueError) as error:
                raise ValueError(f"{field.name}: {error}") from error
        elif field.default is dataclasses.MISSING:
            raise ValueError(f"{field.name}: field required")
    return kind(**given)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError("input should be a valid string")
    return value


def _integer(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError("input should be a valid integer")
    return value


def _number(value: Any) -> float:
    return value if isinstance(value, float) else float(_integer(value))


def _object(kind: type[Built]) -> Callable[[Any], Built | None]:
    def read(value: Any) -> Built | None:
        if value is None:
            return None
        if not isinstance(value, dict):
            raise TypeError("input should be an object or null")
        return _built(kind, value)

    return read


_READERS: Mapping[str, Callable[[Any], Any]] = {
    "str": _text,
    "int": _integer,
    "float": _number,
    "ProcessMark | None": _object(ProcessMark),
    "HeadJob | None": _object(HeadJob),
    "GcsStorage | None": _object(GcsStorage),
    "bool": bool,
}
"""How a field's JSON value is read, by its annotation."""


def _damaged(path: Path, why: str) -> HeliostatError:
    return HeliostatError(
        f"{path} is damaged ({why}); if no process of this cluster runs any more, "
        f"remove the folder {path.parent}"
    )


def _replace(path: Path, content: bytes) -> None:
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    # The new name is only safe once the folder itself is on disk.
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
