"""The head that waits to follow the present one: where it is written, and when it becomes the cluster."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path

from heliostat.config.places import StatePlaces
from heliostat.config.record import ClusterRecord, read_record


@dataclass(frozen=True)
class SuccessorPlaces:
    """What waits in a state folder to be the cluster when the present one is over."""

    folder: Path

    @property
    def record(self) -> Path:
        return self.folder / "successor.json"

    @property
    def config(self) -> Path:
        return self.folder / "successor.yaml"

    def remove(self) -> None:
        self.record.unlink(missing_ok=True)
        self.config.unlink(missing_ok=True)


def present_record(places: StatePlaces) -> ClusterRecord | None:
    """Return the cluster of a state folder; where there is none, the successor that waits is it now."""
    record = read_record(places.record)
    if record is None and SuccessorPlaces(places.folder).record.exists():
        promote(places)
        record = read_record(places.record)
    return record


def promote(places: StatePlaces) -> None:
    """Put the successor in the place of what is, or was, the cluster."""
    after = SuccessorPlaces(places.folder)
    # The successor's own job may do the same at this moment, and either may be cut off in between.
    for waiting, present in ((after.config, places.config), (after.record, places.record)):
        with contextlib.suppress(FileNotFoundError):
            os.replace(waiting, present)
