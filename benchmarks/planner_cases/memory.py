"""The most memory that this process held while it did something, by the kernel's own count."""

from __future__ import annotations

import gc
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")


def peak_mb(build: Callable[[], T], act: Callable[[T], object]) -> float:
    """Return the peak from the built input through `act`, less what was held before the input was built.

    Building leaves its own peak behind, so the kernel's mark is set back after it, where that is allowed.
    """
    gc.collect()
    before_kb = _status_kb("VmRSS")
    built = build()
    gc.collect()
    with suppress(OSError):
        # 5 sets back VmHWM (proc(5), /proc/pid/clear_refs).
        Path("/proc/self/clear_refs").write_text("5")
    act(built)
    return (_status_kb("VmHWM") - before_kb) / 1024


def _status_kb(field: str) -> int:
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(lines[field].split()[0])
