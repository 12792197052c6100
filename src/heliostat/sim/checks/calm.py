"""Rule 8: plans settle; calls and memory are bounded."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from heliostat.control.memory import Memory
from heliostat.model.history import History
from heliostat.model.plan import Why
from heliostat.sim.checks.view import View
from heliostat.sim.world.ends import Cause

FLAPS_MOST = 3
"""So often a type may be launched and given back without being used while the world stands still."""

CALLS_MOST = {"instances": 90, "apply": 90, "offers": 90, "state": 70, "drain": 200, "connect": 70}
"""Calls in a minute, of one port: a round a second; a listing every 2 s, more after actions and joins."""

RESTARTS_ALLOWED = 30
"""Each controller begins with some calls."""

TASKS_MOST = 60
KEPT_MOST = 10
"""What may be kept of instances beyond those in the journal: failures and the like, for people."""


OF_THE_WORLD = frozenset(Cause) - {Cause.RELEASED, Cause.DRAINED}


@dataclass
class _Flaps:
    facts: tuple[Any, ...]
    count: int = 0
    launched: bool = False


class Settles:
    """No type is launched and given back, again and again, while nothing else changes."""

    name = "settles"

    def __init__(self, view: View) -> None:
        self._view = view
        self._seen = 0
        self._flaps: dict[str, _Flaps] = {}

    def look(self) -> Iterator[str]:
        view = self._view
        recorded = view.witness.recorded
        if self._seen == len(recorded):
            return
        facts = self._facts()
        for one in recorded[self._seen :]:
            flaps = self._flaps.get(one.node_type)
            if flaps is None or flaps.facts != facts:
                flaps = self._flaps[one.node_type] = _Flaps(facts)
            if one.why == Why.NOT_NEEDED.value and flaps.launched:
                flaps.launched = False
                flaps.count += 1
                if flaps.count > FLAPS_MOST:
                    yield f"{one.node_type} was launched and given back {flaps.count} times for nothing"
            elif one.is_launch:
                flaps.launched = True
        self._seen = len(recorded)

    def _facts(self) -> tuple[Any, ...]:
        """Return what changes with everything that happens and is not our own doing."""
        view, world = self._view, self._view.world
        ledger = world.ray.ledger
        ended = sum(one.cause in OF_THE_WORLD for one in world.machines())
        mischief = view.wrapper.host.mischief.happened.total() + view.witness.refused
        work = (len(ledger.works), len(ledger.unfinished), len(ledger.interruptions), world.ray.constraint)
        return (
            *work,
            view.witness.asked_by_hand,
            ended,
            world.ray.alive,
            world.ray.lives,
            mischief,
            view.wrapper.lives,
        )


class Bounded:
    """Calls in a minute, tasks of the process, and what the loop remembers stay within limits."""

    name = "bounded"

    def __init__(self, view: View) -> None:
        self._view = view
        self._history: History | None = None
        self._at_last_fold = self._count = 0

    def look(self) -> Iterator[str]:
        view = self._view
        for name, recent in view.witness.calls.items():
            most = CALLS_MOST.get(name.rpartition(".")[2], 200)
            if len(recent) > most + RESTARTS_ALLOWED * view.wrapper.lives:
                yield f"{len(recent)} calls of {name} in a minute"
        process, controller = view.wrapper.process, view.controller
        if process is not None and len(process.tasks) > TASKS_MOST:
            # Those that are over are there until the garbage is collected, which no run does.
            count = sum(not one.done() for one in process.tasks)
            if count > TASKS_MOST:
                yield f"the controller has {count} tasks"
        if controller is None:
            return
        memory, known = controller.memory, self._known(controller.memory) + KEPT_MOST
        for what in ("refused", "drains", "asked"):
            if len(getattr(memory, what)) > known:
                yield f"the loop keeps {len(getattr(memory, what))} in memory.{what}, of {known} instances"
        for what in ("first_listed", "absent_since", "joined_at", "states", "starting_since", "drained"):
            if len(getattr(memory.history, what)) > known:
                yield f"the history keeps {len(getattr(memory.history, what))} in {what}"

    def _known(self, memory: Memory) -> int:
        """Return how many instances the loop knows, or knew when it last folded its history, if more.

        What a round forgets is forgotten after its fold, and gone from the next one's history.
        """
        if memory.history is not self._history:
            self._history, self._at_last_fold = memory.history, self._count
        self._count = len(memory.intents)
        return max(self._count, self._at_last_fold)
