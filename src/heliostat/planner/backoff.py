"""How a node type that fails is let wait: twice as long after each new attempt that failed."""

from __future__ import annotations

from collections.abc import Sequence

from heliostat.model.history import Backoff
from heliostat.planner.limits import BACKOFF_FIRST_S, BACKOFF_MOST_S


def delay_s(failures: int) -> float:
    """Return the wait after so many failed attempts in a row: 5 s, doubled each time, 10 min at most."""
    # 2**7 × 5 s is past the limit already; a larger power could only overflow.
    return min(BACKOFF_MOST_S, BACKOFF_FIRST_S * 2.0 ** min(failures - 1, 7))


def after_failures(
    known: Backoff | None, *, requested_at_s: Sequence[float], now_s: float, error: str
) -> Backoff:
    """Return the backoff after instances of one type failed that were asked for at `requested_at_s`.

    Several that were launched together are one attempt: only an instance that was asked
    for after the last step makes the wait longer.
    """
    if known is None:
        return Backoff(1, now_s + delay_s(1), error)
    stepped_at_s = known.until_s - delay_s(known.failures)
    if max(requested_at_s) <= stepped_at_s:
        return Backoff(known.failures, known.until_s, error)
    failures = known.failures + 1
    return Backoff(failures, now_s + delay_s(failures), error)
