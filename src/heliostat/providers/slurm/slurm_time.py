"""Slurm's times on the controller's clock, whatever the clocks of Slurm's hosts and of this one show."""

from __future__ import annotations

from collections.abc import Callable

APART_S = 5.0
"""Listings tell whole seconds, and take some: what differs by less than this is no other time."""


class SlurmTime:
    """How far Slurm's clock is ahead of the controller's (`now_s`), as the last listing told it.

    A listing tells the clock of the host where squeue runs. slurmctld, by whose clock jobs start and end,
    may differ from that by five minutes: so long a credential of munge lives (slurm.conf(5), AuthInfo, ttl).

    Where no job runs nothing is told. Then squeue's clock is this host's, `host_s`, if it runs here; if it
    runs `elsewhere`, what was told last holds, and before that this host's is the best guess.
    """

    def __init__(
        self, now_s: Callable[[], float], host_s: Callable[[], float], *, elsewhere: bool = False
    ) -> None:
        self._now_s, self._host_s, self._elsewhere = now_s, host_s, elsewhere
        self._told = False
        self._ahead_s = 0.0

    def saw(self, there_s: float | None) -> None:
        """Hear what time it has just been by squeue's clock; None: nothing told it."""
        if there_s is None and self._told and self._elsewhere:
            return
        self._told = self._told or there_s is not None
        ahead_s = (self._host_s() if there_s is None else there_s) - self._now_s()
        if abs(ahead_s - self._ahead_s) > APART_S:
            self._ahead_s = ahead_s

    @property
    def ahead_s(self) -> float:
        return self._ahead_s
