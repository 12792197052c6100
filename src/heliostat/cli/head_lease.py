"""The end of the head's own job: followed, since people and sites change time limits, and told ahead.

Workers' limits are capped to it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import structlog

from heliostat.cli.durations import humanise
from heliostat.ports.clock import HostClock
from heliostat.ports.errors import ProviderError

AHEAD_S = (3600.0, 900.0, 300.0)
SOON_S = 60.0
"""What is that near was just told; an end that moves by less has not moved."""

LOOK_S = 300.0
"""Slurm itself announces the end three minutes ahead (USR1), whatever was known before: no look is urgent."""

log = structlog.get_logger(__name__)


@dataclass
class HeadLease:
    """When the head's job ends, in Unix seconds; None: no end. `ask` returns it, and raises ProviderError.

    `aclose` is called when nothing is asked any more.
    """

    end_s: float | None
    ask: Callable[[], Awaitable[float | None]]
    aclose: Callable[[], Awaitable[None]]

    def now(self) -> float | None:
        return self.end_s

    async def look(self) -> None:
        """Ask Slurm; where it is away what was known holds."""
        try:
            self.end_s = await self.ask()
        except ProviderError as error:
            log.warning("the head's job was not found", error=str(error))


async def follow(lease: HeadLease, *, clock: HostClock, tell: Callable[[str], None]) -> None:
    """Tell the end now, whenever it moves, and again each of `AHEAD_S` before it; until cancelled."""
    told_s = lease.end_s
    ahead = _announce(lease, clock=clock, tell=tell, moved=False)
    while True:
        left_s = _left_s(lease, clock)
        due_s = left_s - ahead[0] if ahead and left_s is not None else LOOK_S
        await clock.sleep(max(0.0, min(due_s, LOOK_S)))
        await lease.look()
        left_s = _left_s(lease, clock)
        if _has_moved(told_s, lease.end_s):
            told_s = lease.end_s
            ahead = _announce(lease, clock=clock, tell=tell, moved=True)
        elif ahead and left_s is not None and left_s <= ahead[0]:
            tell(lease_words(ahead.pop(0)))


def _announce(lease: HeadLease, *, clock: HostClock, tell: Callable[[str], None], moved: bool) -> list[float]:
    """Tell the end; return the times before it at which it is to be told again."""
    left_s = _left_s(lease, clock)
    if left_s is not None or moved:
        tell(lease_words(left_s, moved=moved))
    return [one for one in AHEAD_S if left_s is not None and left_s - one > SOON_S]


def _left_s(lease: HeadLease, clock: HostClock) -> float | None:
    return None if lease.end_s is None else lease.end_s - clock.now_s()


def _has_moved(before_s: float | None, now_s: float | None) -> bool:
    if before_s is None or now_s is None:
        return before_s is not now_s
    return abs(now_s - before_s) >= SOON_S


def lease_words(left_s: float | None, *, moved: bool = False) -> str:
    if left_s is None:
        return "the time limit of the head's Slurm job was changed: it has none"
    changed = " now that its time limit was changed" if moved else ""
    return (
        f"the head's Slurm job ends in {humanise(max(0.0, left_s))}{changed}, and this cluster with it; "
        "`heliostat up --successor FILE` asks for the next one"
    )
