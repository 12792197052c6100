"""A disk of a test's own, which is full when the test says so. Mounting one needs root."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

FILLER = "filler"
CHUNK = b"\0" * 4096


class SmallDisk:
    """A mounted folder, of `size` bytes at most."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def fill(self) -> None:
        """Leave no byte free."""
        with (self.folder / FILLER).open("ab", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(CHUNK)

    def free(self) -> None:
        (self.folder / FILLER).unlink()

    def make_read_only(self) -> None:
        subprocess.run(["mount", "-o", "remount,ro", str(self.folder)], check=True, capture_output=True)


@contextmanager
def small_disk(folder: Path, *, size: str = "2m") -> Iterator[SmallDisk]:
    """Mount a disk at `folder` while the block runs; the test is skipped where that is not allowed."""
    folder.mkdir(exist_ok=True)
    argv = ["mount", "-t", "tmpfs", "-o", f"size={size},mode=0700", "none", str(folder)]
    mounted = subprocess.run(argv, capture_output=True, text=True, check=False)
    if mounted.returncode != 0:
        pytest.skip(f"a disk of the test's own can't be mounted: {mounted.stderr.strip()}")
    try:
        yield SmallDisk(folder)
    finally:
        # Lazily: a process that ends at this moment may still have a file open.
        subprocess.run(["umount", "--lazy", str(folder)], check=True, capture_output=True)
