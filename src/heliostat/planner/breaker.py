"""The breaker of a backend: it opens when whoever asks is refused, lets one through, closes at a success.

A type's own trouble (no machine of its kind, a request that is wrong) is the type's backoff alone. A
limit counts when several types meet it, and what speaks of the backend itself always does. Only
launches are held back: what is to end is asked for as ever.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from heliostat.model.history import Breaker, History
from heliostat.model.node_type import Policy
from heliostat.model.rejection import About, Answer, Rejection
from heliostat.model.snapshot import Snapshot
from heliostat.planner.backoff import asked_by, spread
from heliostat.planner.limits import BREAKER_FAILURES, BREAKER_FIRST_S, BREAKER_MOST_S, PROBATION_S


def breakers(history: History, snapshot: Snapshot, policy: Policy) -> dict[str, Breaker]:
    """Return the breakers by backend, with this round's answers in them; none where all is well."""
    found: dict[str, Breaker] = {}
    for backend in sorted({one.backend for one in policy.node_types}):
        view = snapshot.backends.get(backend)
        known = history.breakers.get(backend)
        if known is not None and view is not None and view.fresh:
            known = _lapsed(known, snapshot.now_s)
        for answer in view.answers if view else ():
            known = after_answer(known, answer, snapshot.now_s)
        if known is not None:
            found[backend] = known
    return found


def after_answer(known: Breaker | None, answer: Answer, now_s: float) -> Breaker | None:
    """Return the breaker after a call; None where something was accepted, and all is forgiven."""
    if answer.some:
        return None
    counted = {name: one for name, one in answer.rejections.items() if one.about is not About.TYPE}
    if known is not None and known.is_open(now_s):
        # What was asked for before the breaker opened says nothing new.
        return known
    if not counted:
        # The one that was let through was refused for its type's own sake: whoever asks is answered again.
        return _on_probation(known) if known is not None and answer.rejections else known
    known = known or Breaker()
    words = next(reversed(counted.values())).text
    seen = known.node_types.union(counted)
    known = replace(known, failures=known.failures + 1, node_types=seen, last_error=words)
    asked_s = _asked_s(counted, answer.seed)
    if _opens(known, counted, asked_s):
        return _opened(known, asked_s, answer.seed, now_s)
    if known.opened_at_s is None:
        return known
    # The one that was let through met a limit of its type: the backend itself answers again.
    return replace(
        known, failures=1, node_types=frozenset(counted), opened_at_s=None, until_s=None, as_asked=False
    )


def _opens(known: Breaker, counted: Mapping[str, Rejection], asked_s: float | None) -> bool:
    whole = any(one.about is About.BACKEND for one in counted.values())
    often = known.opened_at_s is not None or known.failures >= BREAKER_FAILURES
    return asked_s is not None or (often and (whole or len(known.node_types) > 1))


def _asked_s(counted: Mapping[str, Rejection], seed: str) -> float | None:
    """Return for how long the backend itself wants to be left alone, by all that ask."""
    found = (asked_by(one, seed) for one in counted.values() if one.about is About.BACKEND)
    return max((one for one in found if one is not None), default=None)


def _opened(known: Breaker, asked_s: float | None, seed: str, now_s: float) -> Breaker:
    trips = known.trips + 1
    own_s = spread(min(BREAKER_MOST_S, BREAKER_FIRST_S * 2.0 ** min(trips - 1, 10)), seed)
    wait_s = max(own_s, asked_s or 0.0)
    return replace(known, trips=trips, opened_at_s=now_s, until_s=now_s + wait_s, as_asked=wait_s > own_s)


def _lapsed(known: Breaker, now_s: float) -> Breaker:
    """Return the breaker closed where nothing was tried for long: the next refusal opens it again.

    What waits may be a gang, which can't be tried in part. A clock that was set back closes it, too.
    """
    if known.opened_at_s is None or known.until_s is None:
        return known
    if known.opened_at_s <= now_s < known.until_s + PROBATION_S:
        return known
    return _on_probation(known)


def _on_probation(known: Breaker) -> Breaker:
    """Return the breaker closed if it was half open, so that a single refusal opens it again."""
    if known.opened_at_s is None:
        return known
    return replace(known, failures=BREAKER_FAILURES - 1, opened_at_s=None, until_s=None, as_asked=False)


def breaker_text(backend: str, breaker: Breaker, now_s: float) -> str:
    """Say what the breaker does now, the backend's own words last; nothing where it is closed."""
    if breaker.until_s is None:
        return ""
    what = f"{backend} refused {breaker.failures} calls in a row"
    if breaker.failures == 1:
        what = f"{backend} refused a call"
    asked = ", as it asks" if breaker.as_asked else ""
    again = f"it is asked again in {breaker.until_s - now_s:.0f} s{asked}"
    if not breaker.is_open(now_s):
        again = "one launch is tried before the others"
    return f"{what}, {again}: {breaker.last_error}"
