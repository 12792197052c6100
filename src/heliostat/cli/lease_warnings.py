"""Say ahead that the head's own job will end, and the cluster with it: to the journal, and to drivers."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

from heliostat.cli.durations import humanise
from heliostat.ports.clock import Clock
from heliostat.raylink.driver_lines import Line
from heliostat.raylink.session_log import SessionLog

AHEAD_S = (3600.0, 900.0, 300.0)
SOON_S = 60.0
"""What is that near was just told."""


async def warn_ahead(lease_end_s: float, *, clock: Clock, tell: Callable[[str], None]) -> None:
    """Tell it now, and again each of `AHEAD_S` before the end; a time that has passed is left out."""
    tell(lease_words(lease_end_s - clock.now_s()))
    for ahead_s in AHEAD_S:
        wait_s = lease_end_s - ahead_s - clock.now_s()
        if wait_s > SOON_S:
            await clock.sleep(wait_s)
            tell(lease_words(ahead_s))


def lease_words(left_s: float) -> str:
    return (
        f"the head's Slurm job ends in {humanise(left_s)}, and this cluster with it; "
        "`heliostat up --successor FILE` asks for the next one"
    )


def note_for_drivers(log_dir: str, text: str) -> None:
    """Have drivers print the line, and `ray monitor` show it. A disk that refuses costs the line only."""
    with contextlib.suppress(OSError):
        log = SessionLog(log_dir)
        log.write([Line(text, warning=True)])
        log.close()
