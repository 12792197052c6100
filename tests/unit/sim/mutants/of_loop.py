"""Bugs of the loop: of what it observes, writes down, asks for, and forgets."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from heliostat.control import ledger, loop
from heliostat.control.drainer import Drainer
from heliostat.control.ledger import Ledger
from heliostat.control.loop import Controller
from heliostat.control.record import Recorded
from heliostat.control.steady_clock import SteadyClock
from heliostat.control.watch import BackendWatch
from heliostat.model.history import History
from heliostat.model.plan import Reason, Release, Why
from heliostat.model.snapshot import Snapshot
from tests.unit.sim.mutants.mutant import Catalogue

LOOP = Catalogue()


@LOOP.mutant(seed=1, checks="known")
def a_round_is_not_written(patch: pytest.MonkeyPatch) -> None:
    """What a round decided is done and only noted, never written ahead."""

    def write(self: Ledger, recorded: Recorded, *_: object, **__: object) -> Recorded:
        self._journal.note_intents(recorded.intents)
        return recorded

    patch.setattr(Ledger, "write", write)


@LOOP.mutant(seed=36, checks="known")
def launches_though_the_disk_is_full(patch: pytest.MonkeyPatch) -> None:
    """Where the journal can't be written, launches go out all the same."""
    patch.setattr(ledger, "without_launches", lambda recorded: recorded)


@LOOP.mutant(seed=2, checks="gone met")
def history_is_lost_each_round(patch: pytest.MonkeyPatch) -> None:
    """Each round begins with an empty history."""
    folds = loop.fold
    patch.setattr(loop, "fold", lambda _, *rest: folds(History(), *rest))


@LOOP.mutant(seed=3, checks="bounded")
def a_quiet_backend_is_listed_all_the_time(patch: pytest.MonkeyPatch) -> None:
    """Listings follow each other five times a second, whether something moves or not."""
    patch.setattr(BackendWatch, "next_wait", lambda self: setattr(self, "_wait_s", 0.2))


@LOOP.mutant(seed=238, checks="bounded")
def each_word_to_go_down_wakes(patch: pytest.MonkeyPatch) -> None:
    """A cluster that goes down already is woken by every further word of it."""
    goes = Controller.go_down

    def go(self: Controller, why: str) -> None:
        goes(self, why)
        self._wake.set()

    patch.setattr(Controller, "go_down", go)


@LOOP.mutant(seed=3, checks="gentle")
def time_is_up_for_who_works(patch: pytest.MonkeyPatch) -> None:
    """A node goes when the idle timeout has passed since it joined, whatever it does."""
    decides = Controller._decide

    def decide(self: Controller, snapshot: Snapshot, history: History) -> None:
        decides(self, snapshot, history)
        before_s = snapshot.now_s - self.policy.idle_timeout_s
        old = [
            one for one in self.memory.wanted() if history.joined_at.get(one.instance_id, before_s) < before_s
        ]
        more = tuple(Release(one.instance_id, Reason(Why.IDLE, "it has been there for long")) for one in old)
        self.memory.plan = replace(self.memory.plan, actions=(*self.memory.plan.actions, *more))

    patch.setattr(Controller, "_decide", decide)


@LOOP.mutant(seed=2, checks="gone")
def drains_are_never_sent(patch: pytest.MonkeyPatch) -> None:
    """What the planner wants drained is written down, and Ray is not asked."""
    patch.setattr(Drainer, "submit", lambda *_: None)


@LOOP.mutant(seed=3, checks="bounded")
def rounds_leave_no_pause(patch: pytest.MonkeyPatch) -> None:
    """A round begins as soon as the one before it has ended."""
    patch.setattr(Controller, "_pause", lambda _: asyncio.sleep(0))


@LOOP.mutant(seed=None, checks="gone met")
def the_wall_clock_is_believed(patch: pytest.MonkeyPatch) -> None:
    """The controller's time is the host's wall clock, which is set by hours."""
    patch.setattr(SteadyClock, "now_s", lambda self: self._host.now_s())
