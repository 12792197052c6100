"""Whose a job is: kept in a file beside the gateway, so that a restart forgets nobody's.

One line of JSON for each job, added before it is submitted. A torn last line is the end of a crash and counts
for nothing.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

JOBS_MAX = 10_000
"""Jobs that are remembered; a job whose owner is forgotten is nobody's."""


class Owners:
    """The owners of jobs, by id. `path` is made for this user alone; it is read once."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._owners = dict(list(_read(path))[-JOBS_MAX:])

    def add(self, job_id: str, owner: str) -> None:
        """Keep whose a job is; raises OSError if that can't be written: then only this gateway knows."""
        if self.has(job_id, owner):
            return
        self._owners[job_id] = owner
        handle = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        with os.fdopen(handle, "ab") as file:
            # Before it, too: the line of a crash must not swallow this one.
            file.write(b"\n" + json.dumps([job_id, owner]).encode() + b"\n")

    def has(self, job_id: str, owner: str) -> bool:
        return self._owners.get(job_id) == owner


def _read(path: Path) -> Iterator[tuple[str, str]]:
    if not path.exists():
        return
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            job_id, owner = json.loads(line)
        except ValueError:
            continue
        if isinstance(job_id, str) and isinstance(owner, str):
            yield job_id, owner
