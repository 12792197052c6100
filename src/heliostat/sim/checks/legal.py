"""Every change of an instance's state is one that the table allows, and no round fails by surprise."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from heliostat.model.history import History
from heliostat.model.instance import InstanceState
from heliostat.model.states import TRANSITIONS
from heliostat.sim.checks.view import View


class Legal:
    """Compares the states of one round with those of the round before."""

    name = "legal"

    def __init__(self, view: View) -> None:
        self._view = view
        self._life = 0
        self._history: History | None = None

    def look(self) -> Iterator[str]:
        controller = self._view.controller
        if controller is None or controller.memory.history is self._history:
            return
        before, self._history = self._history, controller.memory.history
        if before is not None and self._life == self._view.wrapper.lives:
            # What was forgotten and is found again begins a life of its own.
            afresh = self._view.witness.forgotten
            old = {key: state for key, state in before.states.items() if key not in afresh}
            yield from _illegal(old, self._history.states)
        self._life = self._view.wrapper.lives


def _illegal(before: Mapping[str, InstanceState], after: Mapping[str, InstanceState]) -> Iterator[str]:
    for instance_id, state in after.items():
        old = before.get(instance_id, state)
        if old is not state and state not in TRANSITIONS[old]:
            yield f"{instance_id} was {old.value} and is {state.value}"


class Surprises:
    """No round fails, and no controller ends, with an error that nobody words for people."""

    name = "surprise"

    def __init__(self, view: View) -> None:
        self._view = view

    def look(self) -> Iterator[str]:
        surprises = self._view.wrapper.surprises
        while surprises:
            yield surprises.pop(0)
