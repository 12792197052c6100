"""Bugs of what follows a failure: who waits, for how long, what is tried in small numbers, or given up."""

from __future__ import annotations

from dataclasses import replace

import pytest

from heliostat.control import start_document
from heliostat.journal import SqliteJournal
from heliostat.model.history import Backoff, History
from heliostat.planner import backoff, breaker, failures, over, throttle
from tests.unit.sim.mutants.mutant import Catalogue

FAILURES = Catalogue()


@FAILURES.mutant(seed=19, checks="alone bounded patience met")
def what_fails_is_tried_again_at_once(patch: pytest.MonkeyPatch) -> None:
    """A node type that failed does not wait."""
    waits = failures.after_failures

    def wait(*args: object, **kwargs: object) -> Backoff:
        return replace(waits(*args, **kwargs), until_s=0.0)  # type: ignore[arg-type]

    patch.setattr(failures, "after_failures", wait)


@FAILURES.mutant(seed=80, checks="patience")
def the_first_are_not_few(patch: pytest.MonkeyPatch) -> None:
    """A node type that never came up is launched in any number."""
    patch.setattr(throttle, "FIRST_TRY", 1000)
    patch.setattr(start_document, "FIRST_TRY", 1000)


@FAILURES.mutant(seed=178, checks="given met")
def what_hangs_is_waited_for(patch: pytest.MonkeyPatch) -> None:
    """An instance that starts for longer than its type allows is not given up."""
    patch.setattr(over, "start_overdue", lambda *_: False)
    patch.setattr(failures, "start_overdue", lambda *_: False)


@FAILURES.mutant(seed=27, checks="given met")
def what_is_lost_is_waited_for(patch: pytest.MonkeyPatch) -> None:
    """An instance that no listing has ever shown is not given up."""
    patch.setattr(over, "lost", lambda *_: False)
    patch.setattr(failures, "lost", lambda *_: False)


@FAILURES.mutant(seed=72, checks="alone patience")
def the_history_is_not_kept(patch: pytest.MonkeyPatch) -> None:
    """A new controller knows nothing of what has failed, nor of when."""
    patch.setattr(SqliteJournal, "history", lambda _: History())


@FAILURES.mutant(seed=23, checks="alone")
def a_backend_is_not_let_alone(patch: pytest.MonkeyPatch) -> None:
    """A backend that says for how long it wants to be left alone is asked as any other."""
    patch.setattr(backoff, "_as_asked", lambda known, *_: known)
    patch.setattr(breaker, "_asked_s", lambda *_: None)


@FAILURES.mutant(seed=816, checks="alone")
def the_breaker_never_opens(patch: pytest.MonkeyPatch) -> None:
    """A backend that does not answer is asked for launch after launch."""
    patch.setattr(breaker, "after_answer", lambda *_: None)


@FAILURES.mutant(seed=3, checks="given")
def what_has_ended_is_wanted_still(patch: pytest.MonkeyPatch) -> None:
    """An instance that failed or died is not given up, and nothing is asked for in its place."""
    patch.setattr(over, "_OVER", ())
    patch.setattr(over, "_left", lambda *_: None)
