"""Since when nobody has used the cluster, and whether that is long enough to let it go. Pure."""

from __future__ import annotations


class IdleWatch:
    """`idle_after_s` None: the cluster is never let go. All times are monotonic seconds.

    `drivers` is the last count of connected drivers: one that merely holds the cluster open
    (a notebook) uses it, whatever its nodes do.
    """

    def __init__(self, idle_after_s: float | None) -> None:
        self.idle_after_s = idle_after_s
        self.drivers = 0
        self._since_s: float | None = None
        self._asked_s = float("-inf")

    def idle_s(self, now_s: float) -> float:
        """Return for how long nobody has used the cluster; 0 while somebody does."""
        return 0.0 if self._since_s is None else now_s - self._since_s

    def asks_for_drivers(self, now_s: float, every_s: float) -> bool:
        """Say whether the count of drivers is due; a later call answers for its own time."""
        if now_s - self._asked_s < every_s:
            return False
        self._asked_s = now_s
        return True

    def expired(self, now_s: float, *, used: bool) -> bool:
        if used or self.drivers:
            self._since_s = None
        elif self._since_s is None:
            self._since_s = now_s
        return self.idle_after_s is not None and self.idle_s(now_s) >= self.idle_after_s
