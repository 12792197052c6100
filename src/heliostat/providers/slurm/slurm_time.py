"""Slurm's times on the controller's clock, whatever the clocks of Slurm's hosts and of this one show."""

from __future__ import annotations

from collections.abc import Callable

APART_S = 5.0
"""Listings tell whole seconds, and take some: what differs by less than this is no other time."""


class SlurmTime:
    """How far Slurm's clock is ahead of the controller's (`now_s`), by the last listing that told it.

    Until one does, Slurm's is taken for this host's, `host_s`: munge lets nobody speak to slurmctld whose
    clock is more than five minutes off.
    """

    def __init__(self, now_s: Callable[[], float], host_s: Callable[[], float]) -> None:
        self._now_s, self._host_s = now_s, host_s
        self._ahead_s = 0.0

    def saw(self, there_s: float | None) -> None:
        """Hear what time it has just been by Slurm's clock; None: nothing told it."""
        ahead_s = (self._host_s() if there_s is None else there_s) - self._now_s()
        if abs(ahead_s - self._ahead_s) > APART_S:
            self._ahead_s = ahead_s

    @property
    def ahead_s(self) -> float:
        return self._ahead_s
