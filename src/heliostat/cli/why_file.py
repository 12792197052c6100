"""Why the wrapper tells its controller to end: one line in the runtime folder, as a signal has none."""

from __future__ import annotations

import contextlib
from pathlib import Path

TOLD, LEASE_ENDS = "told to go down", "the head's Slurm job ends"

NAME = "why"


def write_why(runtime_dir: str, why: str) -> None:
    """Leave the reason before the signal. A disk that refuses costs the reason only."""
    with contextlib.suppress(OSError):
        Path(runtime_dir, NAME).write_text(why, encoding="utf-8")


def read_why(runtime_dir: str) -> str:
    """Return the reason; without one the signal came from elsewhere."""
    try:
        return Path(runtime_dir, NAME).read_text(encoding="utf-8") or TOLD
    except OSError:
        return TOLD
