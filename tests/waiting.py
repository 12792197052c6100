"""Waits for what another process does: its end, or what it writes. Each has a deadline."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

POLL_S = 0.02


async def gone(pid: int, *, deadline_s: float = 10.0) -> bool:
    """Wait until a process is gone, or a zombie that only its parent can collect."""
    end_s = time.monotonic() + deadline_s
    while time.monotonic() < end_s:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX":
                return True
        except OSError:
            return True
        await asyncio.sleep(POLL_S)
    return False


async def written(path: Path, *, deadline_s: float = 10.0) -> str:
    """Return a file's text once its last line is whole."""
    end_s = time.monotonic() + deadline_s
    while time.monotonic() < end_s:
        if path.exists() and path.read_text().endswith("\n"):
            return path.read_text()
        await asyncio.sleep(POLL_S)
    raise AssertionError(f"{path} was not written")
