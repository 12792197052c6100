"""How a node type that fails is let wait: twice as long after each new attempt that failed.

And for no less time than the start took that failed, half more at most: of two types that never come up
each would else be free again before the other has failed, and a third one that works would not get its
turn. Where no other type fits, that is what it costs: the next try comes so much later. A type that has come
up before is spared this after its first failure in a row: one bad machine says little of it.

What fails on its way up is forgiven at a join, which proves that the shape works. What was refused
is not: a join says nothing of a limit. It is forgiven when all of a later ask is accepted, and until
then few are asked for at a time.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from hashlib import sha256

from heliostat.model.history import Backoff
from heliostat.model.rejection import Rejection
from heliostat.planner.limits import (
    BACKOFF_FIRST_S,
    BACKOFF_MOST_S,
    FIRST_TRY,
    JITTER,
    PERMANENT_FIRST_S,
    PERMANENT_MOST_S,
    PROBATION_S,
    RETRY_AFTER_MOST_S,
)


@dataclass(frozen=True)
class Attempt:
    """Instances of one shape that failed in one round, the last of them asked for at `requested_at_s`.

    `seed` is one's id, `rejection` what a backend said that did not accept one. The longest of their starts
    took `took_s`, without the queue; 0 where none began. `proven`: the shape has come up before.
    """

    requested_at_s: float
    error: str
    seed: str
    rejection: Rejection | None = None
    took_s: float = 0.0
    proven: bool = True


def delay_s(failures: int, *, permanent: bool = False) -> float:
    """Return the wait after so many failed attempts in a row: 5 s, doubled each time, 10 min at most.

    What will never be accepted as it is waits 10 min at once, and an hour at most.
    """
    first_s, most_s = BACKOFF_FIRST_S, BACKOFF_MOST_S
    if permanent:
        first_s, most_s = PERMANENT_FIRST_S, PERMANENT_MOST_S
    # 2**7 × 5 s is past the limit already; a larger power could only overflow.
    return min(most_s, first_s * 2.0 ** min(failures - 1, 7))


def spread(wait_s: float, seed: str) -> float:
    """Return the wait made longer by a part of it that `seed` decides: never shorter, half more at most.

    Clusters that were refused together do not come again together: what failed in each has an id of its own.
    """
    digest = sha256(seed.encode()).digest()
    return wait_s * (1.0 + JITTER * int.from_bytes(digest[:4], "big") / 2**32)


def on_trial(backoff: Backoff, now_s: float) -> bool:
    """Say whether few are asked for: a wait for a refusal has just ended, nothing was accepted since."""
    return backoff.refused and backoff.until_s <= now_s < backoff.until_s + PROBATION_S


def backoff_text(backoff: Backoff, now_s: float) -> str:
    """Say how a type has failed and when it is tried again; its name goes before, the last words after."""
    times = "once" if backoff.failures == 1 else f"{backoff.failures} times"
    if on_trial(backoff, now_s):
        return f"was refused, and is asked for {FIRST_TRY} at a time until these are accepted"
    verb = "was refused" if backoff.refused else "failed"
    again = f"{'asked' if backoff.refused else 'tried'} again in {backoff.until_s - now_s:.0f} s"
    if backoff.permanent:
        return f"{verb} for good, {again} (`heliostat apply FILE` asks at once)"
    return f"{verb} {times}, {again}{', as the backend asks' if backoff.as_asked else ''}"


def after_failures(known: Backoff | None, attempt: Attempt, *, shape_id: str, now_s: float) -> Backoff:
    """Return the backoff after an attempt at one type has failed.

    Several that were launched together are one attempt: only an instance that was asked for after
    the last step makes the wait longer. What the backend itself asks for is kept in any case.
    """
    rejection = attempt.rejection
    if known is None or attempt.requested_at_s > known.stepped_at_s or now_s < known.stepped_at_s:
        failures = known.failures + 1 if known else 1
        permanent = rejection is not None and rejection.permanent
        until_s = now_s + spread(delay_s(failures, permanent=permanent), attempt.seed)
        known = Backoff(
            failures,
            until_s,
            attempt.error,
            stepped_at_s=now_s,
            shape_id=shape_id,
            refused=known is not None and known.refused,
            permanent=permanent,
        )
    known = replace(known, last_error=attempt.error, refused=known.refused or rejection is not None)
    return _as_asked(_as_long(known, attempt, now_s), attempt, now_s)


def _as_long(known: Backoff, attempt: Attempt, now_s: float) -> Backoff:
    """Return the backoff that ends no sooner than the start took that failed.

    That of an attempt's last instance may fail long after its first one's, which made the step.
    """
    if attempt.proven and known.failures == 1:
        return known
    return replace(known, until_s=max(known.until_s, now_s + spread(attempt.took_s, attempt.seed)))


def _as_asked(known: Backoff, attempt: Attempt, now_s: float) -> Backoff:
    """Return the backoff that ends no sooner than the backend wants."""
    asked_s = asked_by(attempt.rejection, attempt.seed)
    if asked_s is None or now_s + asked_s <= known.until_s:
        return known
    return replace(known, until_s=now_s + asked_s, as_asked=True)


def asked_by(rejection: Rejection | None, seed: str) -> float | None:
    """Return for how long the backend wants to be left alone, an hour at most, spread by `seed`."""
    if rejection is None or rejection.retry_after_s is None:
        return None
    return spread(min(RETRY_AFTER_MOST_S, max(0.0, rejection.retry_after_s)), seed)
