"""All checks of a run, and when they look."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from heliostat.sim.checks.again import AskedAgain
from heliostat.sim.checks.by_hand import ByHand
from heliostat.sim.checks.calm import Bounded, Settles
from heliostat.sim.checks.drains import Drains
from heliostat.sim.checks.forgotten import Forgotten
from heliostat.sim.checks.given_up import GivenUp, Led, Needless
from heliostat.sim.checks.known import Gone, Known, NotLost, Single
from heliostat.sim.checks.legal import Legal, Surprises
from heliostat.sim.checks.limits import Limits
from heliostat.sim.checks.others import Others
from heliostat.sim.checks.patience import Patience
from heliostat.sim.checks.view import Check, View
from heliostat.sim.checks.waits import LeftAlone, LetGo
from heliostat.sim.checks.wholes import Wholes
from heliostat.sim.checks.work import Gentle, Told

CHECKS: tuple[Callable[[View], Check], ...] = (
    Known,
    NotLost,
    AskedAgain,
    Gone,
    Single,
    Limits,
    Drains,
    Gentle,
    Told,
    Others,
    Patience,
    LeftAlone,
    LetGo,
    ByHand,
    GivenUp,
    Needless,
    Led,
    Wholes,
    Settles,
    Bounded,
    Forgotten,
    Legal,
    Surprises,
)

EVERY_S = 1.0
"""Where nothing changes, checks of time look so often."""


@dataclass(frozen=True)
class Violation:
    """A rule that was broken: by which check, at which second and step of the run, in words."""

    check: str
    text: str
    at_s: float
    step: int


class Broken(Exception):
    """A rule does not hold: ends the run."""

    def __init__(self, violation: Violation) -> None:
        super().__init__(violation.text)
        self.violation = violation


class Suite:
    """Looks after each step that changed the world, or in which something was written down or Ray answered
    a drain, and once a second; raises Broken at the first breach.

    What is written is looked at ahead of what it brings: its truth may be gone by then.
    """

    def __init__(self, view: View) -> None:
        self._view = view
        self._checks: list[Check] = [one(view) for one in CHECKS]
        self._looked_s = 0.0
        self._seen = (-1, -1, -1)

    def step(self) -> None:
        view, witness = self._view, self._view.witness
        seen = (view.world.changes, len(witness.recorded), len(witness.answered))
        if seen != self._seen or view.loop.time() - self._looked_s >= EVERY_S:
            self._seen = seen
            self._looked_s = view.loop.time()
            view.refresh()
            for check in self._checks:
                for text in check.look():
                    self.fail(check.name, text)

    def fail(self, name: str, text: str) -> None:
        raise Broken(Violation(name, text, round(self._view.now_s, 3), self._view.loop.steps))
