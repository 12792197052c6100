"""How often Python looks for cycles of garbage, in a process that holds a whole cluster as small values."""

from __future__ import annotations

import gc

YOUNG = 100_000
"""New values before the young ones are looked at. A round over 10,000 nodes makes some 300,000, without a
cycle; at Python's own 700 the collector takes more time than the planner."""


def collect_rarely() -> None:
    """Make the collector wait longer between looks. Memory without cycles is freed at once as ever."""
    gc.set_threshold(YOUNG, 20, 20)
