"""What happened in a run, a line for each thing, and one hash over all of it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable


class Trace:
    """Same seed, same digest. `lines` is None unless they are to be kept.

    `now_s` is the loop's time: seconds since the run's start. Words must not hold anything that differs
    between two runs of one seed (addresses, the order of a set).
    """

    def __init__(self, now_s: Callable[[], float], *, keep: bool = False) -> None:
        self._now_s = now_s
        self._hash = hashlib.sha256()
        self.lines: list[str] | None = [] if keep else None

    def add(self, what: str, *words: object) -> None:
        line = f"{self._now_s():11.3f}  {what:<9} {' '.join(map(str, words))}"
        self._hash.update(line.encode())
        if self.lines is not None:
            self.lines.append(line)

    def digest(self) -> str:
        """Return the hash of all lines so far, in hex."""
        return self._hash.hexdigest()
