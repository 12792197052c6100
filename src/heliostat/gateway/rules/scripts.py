"""The texts of scripts, for owners who want them: a file each, beside the audit log and not in it.

There, a few large ones would push the lines of everybody out. They are named by their SHA-256, which is what
the log has of them, so one that runs a thousand times is kept once.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from heliostat.gateway.rules.audit import SYNC_TIMEOUT_S, refusal
from heliostat.gateway.rules.lines import digest

NAME = "scripts"
ALL_MAX_BYTES = 256 * 2**20
"""What all of them may take: four of the largest that a call can bring, or some 100 000 usual ones."""

FILE_MIN_BYTES = 4096
"""What the smallest file counts for, as it takes a block of the disk."""


class Scripts:
    """A folder of scripts, each a file that only the owner can read. The ones that ran longest ago go first.

    Raises OSError where the folder can't be made or read.
    """

    def __init__(self, folder: Path, *, all_max_bytes: int = ALL_MAX_BYTES) -> None:
        self._folder, self._all_max_bytes = folder, all_max_bytes
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="scripts")
        with contextlib.suppress(FileExistsError):
            folder.mkdir(mode=0o700)
        # By name, oldest first.
        found = sorted((one.stat().st_mtime, one.name, one.stat().st_size) for one in os.scandir(folder))
        self._sizes = {name: max(size, FILE_MIN_BYTES) for _, name, size in found}

    async def keep(self, text: str) -> None:
        """Return once a script is on the disk. Raises CallError where it can't be kept."""
        loop = asyncio.get_running_loop()
        try:
            keeping = loop.run_in_executor(self._thread, self._keep, text)
            await asyncio.wait_for(keeping, SYNC_TIMEOUT_S)
        except OSError as error:
            raise refusal(error) from error

    def _keep(self, text: str) -> None:
        name = digest(text)
        try:
            os.utime(self._folder / name)
        except FileNotFoundError:
            # New here, or the owner has cleared it away.
            self._write(name, text.encode())
        # Last in the order, whether it is new or not.
        self._sizes[name] = self._sizes.pop(name, max(len(text.encode()), FILE_MIN_BYTES))
        self._make_room(name)

    def _write(self, name: str, data: bytes) -> None:
        draft = self._folder / f".{name}"
        draft.unlink(missing_ok=True)
        try:
            file = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            with open(file, "wb") as stream:
                stream.write(data)
                stream.flush()
                os.fsync(file)
            os.replace(draft, self._folder / name)
        except OSError:
            draft.unlink(missing_ok=True)
            raise

    def _make_room(self, newest: str) -> None:
        excess = sum(self._sizes.values()) - self._all_max_bytes
        for name in list(self._sizes):
            if excess <= 0 or name == newest:
                return
            (self._folder / name).unlink(missing_ok=True)
            excess -= self._sizes.pop(name)
