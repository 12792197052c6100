"""Deciding, purely: no I/O, no clock, no randomness. Same input, same plan, whatever the order of the input.

`fold` takes one observation into the history; `plan` says what should differ, and why.
"""

from heliostat.planner.folding import fold
from heliostat.planner.planning import plan

__all__ = ["fold", "plan"]
