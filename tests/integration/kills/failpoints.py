"""Named places in the controller at which a test kills it, and the folder in which they are armed.

A file with the place's name arms it, and is gone once the controller has died there.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterable, Mapping
from pathlib import Path

VARIABLE = "HELIOSTAT_TEST_FAILPOINTS"
"""Where the folder is; only a controller that a test has started looks for it."""

HISTORY = "history written"

EVERYWHERE: Mapping[str, str] = {
    "start": "nothing has been read",
    "before the first round": "the journal is open, and the backends are known",
    "listing asked": "before the backend is asked",
    "listing answered": "the backend has listed, the loop has not heard it",
    "launch decided": "before the journal has it",
    "launch journalled": "the journal has it, the backend was not asked",
    "launch begun": "before the first command to the backend",
    "launch answered": "the backend has taken it, the loop has not heard it",
    "drain decided": "before Ray is asked",
    "drain agreed": "Ray lets the node go, nobody has noted it",
    "release decided": "before the journal has it",
    "release journalled": "the journal has it, the backend was not asked",
    "release begun": "before the first command to the backend",
    "release answered": "the backend has taken it, the loop has not heard it",
    "report sent": "Ray has the report of the round",
    HISTORY: "what is remembered between rounds is on the disk",
    "forgotten": "the tombstone is noted as gone, the claim still in the head",
}

OF_BACKEND: Mapping[str, Mapping[str, str]] = {
    "local": {
        "worker claimed": "its record is on the disk, its process not started",
        "worker forked": "its process runs, the record does not name it",
        "stop noted": "the record says so, the process has not been told",
        "stop told": "the process has TERM, the provider has not answered",
    },
    "slurm": {
        "sbatch running": "the command runs, nobody will hear its answer",
        "sbatch done": "the job is in the queue, its id is lost",
        "scancel running": "the command runs, nobody will hear its answer",
        "scancel done": "the job has been told, nobody has noted it",
    },
}

ADOPTION = "adoption journalled"
"""Instances that a lost journal did not know are in the new one."""
DOWN = "down journalled"
"""The cluster goes down: all releases are in the journal, the backend was not asked."""

_JOURNAL_LOST, _PID = "the journal is lost", "pid"


class Failpoints:
    """The folder, as the test and the controller see it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    # The test.

    def arm(self, names: Iterable[str]) -> None:
        for name in names:
            (self.folder / name).touch()

    def disarm(self, name: str) -> None:
        (self.folder / name).unlink(missing_ok=True)

    def armed(self, names: Iterable[str]) -> list[str]:
        return [name for name in names if (self.folder / name).exists()]

    def lose_journal(self) -> None:
        """Let the next controller find no journal."""
        (self.folder / _JOURNAL_LOST).touch()

    def pid(self) -> int:
        """Return the pid of the last controller that began; it may be dead."""
        return int((self.folder / _PID).read_text())

    # The controller.

    def begin(self, journal: Path) -> None:
        new = self.folder / f"{_PID}.new"
        new.write_text(str(os.getpid()))
        new.replace(self.folder / _PID)
        if (self.folder / _JOURNAL_LOST).exists():
            for path in journal.parent.glob(f"{journal.name}*"):
                path.unlink()
            (self.folder / _JOURNAL_LOST).unlink()

    def reach(self, name: str) -> None:
        """Die here, if this place is armed."""
        path = self.folder / name
        if path.exists():
            path.unlink()
            os.kill(os.getpid(), signal.SIGKILL)
