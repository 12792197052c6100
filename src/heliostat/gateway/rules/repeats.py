"""How often the same small thing is written: once a minute, with the number of times. A pure state machine.

Refusals and questions cost nothing and can be asked without end: were each of them a line, whoever is not let
in could push the calls of others out of the log.
"""

from __future__ import annotations

from typing import NamedTuple

EVERY_S = 60.0
KINDS_MAX = 1_000


class Kind(NamedTuple):
    """What makes two of them the same. `outcome` is "ok" or a code."""

    who: str
    account: str
    workspace: str
    function: str
    outcome: str


class Repeats:
    """Counts per kind since it was last written; of more than `KINDS_MAX` the oldest is forgotten."""

    def __init__(self) -> None:
        self._counts: dict[Kind, tuple[float, int]] = {}

    def times(self, kind: Kind, *, now_s: float) -> int:
        """Count one more. Return for how many a line is due now; 0: for none yet."""
        written_s, count = self._counts.pop(kind, (float("-inf"), 0))
        is_due = not 0 <= now_s - written_s < EVERY_S
        self._counts[kind] = (now_s, 0) if is_due else (written_s, count + 1)
        if len(self._counts) > KINDS_MAX:
            del self._counts[next(iter(self._counts))]
        return count + 1 if is_due else 0

    def left(self) -> list[tuple[Kind, int]]:
        """Return what was counted and not written, and forget it."""
        found = [(kind, count) for kind, (_, count) in self._counts.items() if count]
        self._counts.clear()
        return found
