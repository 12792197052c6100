"""The instances that were asked to end, on this host's disk, so that the next controller knows them.

slurmctld lists an ended job for minutes. Without this file a new controller would take one that we
ended for one that ended by itself.
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection
from pathlib import Path

from heliostat.ports.errors import Unavailable

NAME = "slurm-ended.json"


def load(folder: Path) -> set[str]:
    """Return the ids; none where the file is missing or can't be read: the loop asks again then."""
    try:
        found = json.loads((folder / NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return set()
    return {str(one) for one in found} if isinstance(found, list) else set()


def save(folder: Path, instance_ids: Collection[str]) -> None:
    """Replace the file, whole or not at all; Unavailable where the disk does not take it."""
    new = folder / f"{NAME}.new"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with new.open("w", encoding="utf-8") as file:
            json.dump(sorted(instance_ids), file)
            file.flush()
            os.fsync(file.fileno())
        new.replace(folder / NAME)
    except OSError as error:
        raise Unavailable(f"{folder}: {error.strerror or error}") from error
