"""A line that drivers print, from outside the loop: it goes where Ray's own autoscaler writes its events."""

from __future__ import annotations

import contextlib

from heliostat.raylink.driver_lines import Line
from heliostat.raylink.session_log import SessionLog


def note_for_drivers(log_dir: str, text: str) -> None:
    """Have drivers print the line, and `ray monitor` show it. A disk that refuses costs the line only."""
    with contextlib.suppress(OSError):
        log = SessionLog(log_dir)
        log.write([Line(text, warning=True)])
        log.close()
