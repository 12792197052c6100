"""A group's seats as they are, and the procedures that change them.

What to do is decided in `decide`; here it is done, by way of a `Cluster`. The world that users see changes
in `commit` only, between their steps.
"""

from __future__ import annotations

import logging
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from heliostat.train import decide
from heliostat.train.cluster import Answer, Cluster, Facts, Spot, Watch
from heliostat.train.decide import Ask, Bury, Check, Leave, Phase, Settle, Start, Withdraw
from heliostat.train.health import Restarts
from heliostat.train.options import Settings
from heliostat.train.procedure import Procedure
from heliostat.train.types import Change, Left, Member, Reason, World

log = logging.getLogger("heliostat.train")

CALLS = {
    Phase.STARTING: "its start",
    Phase.TAKING_OVER: "take_over",
    Phase.MEMBER: "its health check",
}
"""What a seat's call is for, in each phase."""

NOWHERE = Spot("", "")
ESTATES = 64
"""States of drained members that wait for a successor; of more, the oldest is let go."""
TRIES = 3
"""Successors that may fail with one state: after that it is probably the state."""


@dataclass(frozen=True)
class Estate:
    """The state of one that left, until a successor has taken it over."""

    state: Any
    failed: int = 0
    """How many successors have failed with it."""


@dataclass
class Seat:
    id: str
    number: int
    name: str
    """Of its placement group."""
    place: Any = None
    phase: Phase = Phase.ASKED
    since_s: float = 0.0
    spot: Spot = NOWHERE
    actor: Any = None
    call: Any = None
    """That is answered when its phase is over."""
    dead: str | None = None
    blameless: bool = False
    """Its node went, too."""
    ending: bool = False
    """It is being removed, and if that is interrupted, the next turn does it."""
    asked_health_s: float | None = None
    healthy_s: float | None = None
    """As in `decide.Seat`."""
    estate: Estate | None = None
    """The state of a predecessor that it takes over, until it is part of a world: then it is its own."""
    member: Member | None = None
    """As in the world; None before it is part of one."""


class Roster:
    def __init__(self, settings: Settings, cluster: Cluster) -> None:
        self.settings = settings
        self.cluster = cluster
        self.world = World()
        self.cost_of: Callable[[Member], float] = lambda _: 1.0
        """Who costs the most leaves first."""
        self.restarts = Restarts(settings.max_restarts, settings.restart_window_s)
        self._run_id = ""
        self._asking = False
        """While a placement group is made that has no seat yet."""
        self._seats: dict[str, Seat] = {}
        self._numbers = 0
        self._lingering: set[str] = set()
        self._left: list[Left] = []
        self._estates: deque[Estate] = deque(maxlen=ESTATES)
        self._meter = cluster.meter(settings.name)
        self._limits = decide.Limits(
            settings.start_timeout_s, settings.health_every_s, settings.health_timeout_s
        )

    # --- What is so ------------------------------------------------------------------------

    @property
    def seated(self) -> list[Seat]:
        """Members that may be given work: up, and not known to be dead."""
        return [one for one in self._seats.values() if one.phase is Phase.MEMBER and one.dead is None]

    @property
    def waiting(self) -> int:
        """Placement groups that have no place yet."""
        return len(self.watch().places)

    @property
    def seats(self) -> int:
        """Seats of every phase, those that are known to be dead included."""
        return len(self._seats)

    @property
    def placed(self) -> int:
        """Seats that have a place, members or not yet."""
        return sum(self.held().values())

    def held(self) -> dict[str, int]:
        """Return how many places the group has on which node."""
        return dict(Counter(one.spot.node_id for one in self._seats.values() if _holds(one)))

    def newest(self, node_id: str, count: int) -> list[str]:
        """Return the seats on a node that came last."""
        there = [one for one in self._seats.values() if _holds(one) and one.spot.node_id == node_id]
        return [one.id for one in sorted(there, key=lambda one: -one.number)[:count]]

    def node_of(self, seat_id: str) -> str:
        """Return the node that a seat is on; empty for one that is gone."""
        return self._seats[seat_id].spot.node_id if seat_id in self._seats else ""

    def watch(self) -> Watch:
        seats = [one for one in self._seats.values() if not one.ending]
        return Watch(
            places={one.id: one.place for one in seats if one.phase is Phase.ASKED},
            calls={one.id: one.call for one in seats if one.call is not None},
            # Of those that are known to be lost, too: whether their nodes went with them is not known yet.
            actors={one.id: one.actor for one in seats if one.actor is not None},
            starting=frozenset(one.id for one in seats if one.phase is Phase.STARTING),
        )

    # --- One turn --------------------------------------------------------------------------

    def turn(
        self, target: int, unwanted: frozenset[str] = frozenset(), *, step_s: float = 0.0
    ) -> Procedure[None]:
        """Look, decide, and do it. Waits for nothing but for `leaving`, and for that a limited time.

        `step_s` is how long it may be until the next turn.
        """
        yield from self._recover()
        facts: Facts = yield partial(self.cluster.look, self.watch())
        self._take_in(facts)
        view = decide.View(
            seats=[self._viewed(one) for one in self._seats.values()],
            target=target,
            now_s=facts.now_s,
            limits=self._limits,
            min_size=self.settings.min_size,
            # Twice, because a step may take longer than any before.
            lead_s=self.settings.leave_timeout_s + 2 * step_s,
            draining=facts.draining,
            unwanted=unwanted,
        )
        steps = decide.decide(view)
        for step in steps:
            if not isinstance(step, Leave | Settle):
                yield from self._do(step, facts.now_s)
        yield from self.depart([step for step in steps if isinstance(step, Leave)])
        for step in steps:
            if isinstance(step, Settle):
                yield from self._settle(self._seats[step.seat])
        self._tell_lingering(facts)

    def _recover(self) -> Procedure[None]:
        """Remove what a turn has left half done that a Ctrl-C or a cancelled task has ended."""
        if self._asking:
            names = [one.name for one in self._seats.values()]
            yield partial(self.cluster.sweep, self._run_id, keep=names)
            self._asking = False
        for seat in list(self._seats.values()):
            # It was told to start or to take over, and nobody knows whether it heard it.
            in_doubt = seat.phase in (Phase.STARTING, Phase.TAKING_OVER) and seat.call is None
            if seat.ending or (in_doubt and seat.dead is None):
                yield from self._remove(seat)
            elif seat.phase is Phase.PLACED:
                # It was not started at once, and its place may have moved since.
                seat.phase, seat.spot = Phase.ASKED, NOWHERE

    def start_placed(self) -> Procedure[Facts]:
        """Look, start the actors of those who have got a place, and return what was seen.

        For the time between two turns: nobody joins or leaves, but who starts now is up at the next one.
        """
        watch = self.watch()
        facts: Facts = yield partial(self.cluster.look, Watch(places=watch.places, actors=watch.actors))
        for seat_id, death in facts.dead.items():
            self.lost(seat_id, death.why, blameless=death.with_node)
        for seat_id, spot in facts.placed.items():
            # On a node that drains nothing is started: the next turn sees to it.
            if spot.node_id not in facts.draining and self._seats[seat_id].dead is None:
                self._seats[seat_id].spot = spot
                yield from self._do(Start(seat_id), facts.now_s)
        return facts

    def _viewed(self, seat: Seat) -> decide.Seat:
        return decide.Seat(
            id=seat.id,
            phase=seat.phase,
            since_s=seat.since_s,
            node_id=seat.spot.node_id,
            dead=seat.dead,
            cost=self.cost_of(seat.member) if seat.member is not None else 1.0,
            number=seat.number,
            asked_health_s=seat.asked_health_s,
            healthy_s=seat.healthy_s,
        )

    def _take_in(self, facts: Facts) -> None:
        for seat_id, spot in facts.placed.items():
            seat = self._seats[seat_id]
            seat.spot = spot
            self._enter(seat, Phase.PLACED, facts.now_s)
        for seat_id, death in facts.dead.items():
            self.lost(seat_id, death.why, blameless=death.with_node)
        for seat_id, answer in facts.answered.items():
            seat = self._seats[seat_id]
            seat.spot = facts.spots.get(seat_id, seat.spot)
            self._up(seat, answer, facts.now_s)

    def _up(self, seat: Seat, answer: Answer, now_s: float) -> None:
        """Take what a seat's call brought: its actor is up, or has taken over, or is well; or it is not."""
        seat.call = None
        if answer.lost is not None or answer.error is not None:
            seat.dead = seat.dead or f"{CALLS[seat.phase]} failed: {answer.lost or answer.error!r}"
            return
        if seat.dead is not None:
            # It has answered, and then died: what it took over is still to be given back.
            return
        if seat.phase is Phase.MEMBER:
            seat.asked_health_s, seat.healthy_s = None, now_s
            return
        if seat.phase is Phase.STARTING:
            self._enter(seat, Phase.UP, now_s)
        else:
            self._join(seat, now_s)

    def _settle(self, seat: Seat) -> Procedure[None]:
        """Let one that is up take over, if there is something to take over, or join."""
        if self._estates and self.cluster.has(seat.actor, "take_over"):
            seat.estate = self._estates.popleft()
            self._enter(seat, Phase.TAKING_OVER, self.cluster.now_s())
            yield partial(self._hand, seat, seat.estate.state)
        else:
            self._join(seat, self.cluster.now_s())

    def _hand(self, seat: Seat, state: Any) -> None:
        seat.call = self.cluster.call(seat.actor, "take_over", (state,))

    def _join(self, seat: Seat, now_s: float) -> None:
        # Members are in the order in which they joined, and so are their ranks.
        self._seats[seat.id] = self._seats.pop(seat.id)
        seat.number = self._number()
        self._enter(seat, Phase.MEMBER, now_s)
        seat.healthy_s = now_s if self.cluster.has(seat.actor, "check_health") else None

    def lost(self, seat_id: str, why: str, *, blameless: bool = False) -> None:
        """Take it that a member is gone; the next turn removes what is left of it."""
        if seat := self._seats.get(seat_id):
            seat.dead = seat.dead or why
            seat.blameless = seat.blameless or blameless

    def _do(self, step: decide.Step, now_s: float) -> Procedure[None]:
        match step:
            case Ask():
                for _ in range(step.count):
                    yield from self._ask(now_s)
            case Start():
                seat = self._seats[step.seat]
                self._enter(seat, Phase.STARTING, now_s)
                yield partial(self._start, seat)
            case Check():
                seat = self._seats[step.seat]
                seat.call = yield partial(self.cluster.call, seat.actor, "check_health", ())
                seat.asked_health_s = now_s
            case Withdraw():
                yield from self._remove(self._seats[step.seat])
            case Bury():
                yield from self._bury(self._seats[step.seat], step.why, now_s)
            case _:
                raise AssertionError(step)

    def _ask(self, now_s: float) -> Procedure[None]:
        number = self._number()
        seat_id, name = f"{self.settings.name}-{number}", f"{self._run_id}-{number}"
        self._asking = True
        yield partial(self._make, Seat(seat_id, number, name, since_s=now_s))
        self._asking = False

    # Steps note themselves what they have made: a task that is cancelled meanwhile does not get to it.

    def _make(self, seat: Seat) -> None:
        seat.place = self.cluster.ask(seat.name, self.settings.recipe)
        self._seats[seat.id] = seat

    def _start(self, seat: Seat) -> None:
        seat.actor, seat.call = self.cluster.start(seat.place, self.settings.recipe)

    def _bury(self, seat: Seat, why: str, now_s: float) -> Procedure[None]:
        if not seat.blameless:
            self.restarts = self.restarts.failed(now_s, why, node_id=seat.spot.node_id)
            self._failed_with(seat, why)
        if seat.member is None:
            log.warning("%s: %s is replaced: %s", self.settings.name, seat.id, why)
        self._meter.add("replaced", 1)
        self._note_left(seat, Reason.DIED, why)
        yield from self._remove(seat)

    def _failed_with(self, seat: Seat, why: str) -> None:
        """Count it against what a successor was taking over; a state that fails with all is given up."""
        if seat.estate is None:
            return
        seat.estate = replace(seat.estate, failed=seat.estate.failed + 1)
        if seat.estate.failed >= TRIES:
            log.error(
                "%s: a drained member's state is given up, %d successors have failed with it, the last: %s",
                *(self.settings.name, TRIES, why),
            )
            seat.estate = None

    def _remove(self, seat: Seat) -> Procedure[None]:
        """End what the seat has. It is forgotten after that, so that nothing is left by a Ctrl-C between."""
        seat.ending, seat.dead = True, seat.dead or "it is ended"
        if seat.estate is not None:
            self._estates.appendleft(seat.estate)
            seat.estate = None
        yield partial(self.cluster.end, seat.actor, seat.place)
        self._seats.pop(seat.id, None)

    # --- Leaving ---------------------------------------------------------------------------

    def depart(self, leaves: Iterable[Leave]) -> Procedure[None]:
        """Let members go: ask each for its state, fetch it, then end them all.

        All are asked before any is ended, because a node that drains goes with its last actor.
        """
        leaves = [one for one in leaves if one.seat in self._seats]
        calls: dict[str, Any] = {}
        for leave in leaves:
            actor = self._seats[leave.seat].actor
            limit_s = min(self.settings.leave_timeout_s, leave.deadline_s)
            if self.cluster.has(actor, "leaving"):
                calls[leave.seat] = yield partial(self.cluster.call, actor, "leaving", (limit_s,))
        answers = yield from self.answers(calls, timeout_s=self.settings.leave_timeout_s)
        for leave in leaves:
            seat, answer = self._seats[leave.seat], answers.get(leave.seat)
            state = self._state(seat, answer, asked=leave.seat in calls)
            self._note_left(seat, leave.reason, _why(leave), state)
            if state is not None and self._is_for_others(seat, leave):
                self._estates.append(Estate(state))
                seat.estate = None
        for leave in leaves:
            yield from self._remove(self._seats[leave.seat])

    def _is_for_others(self, seat: Seat, leave: Leave) -> bool:
        """Say whether a successor gets its state."""
        # What one takes over that goes before it is part of a world is in no `Left`: it goes on.
        goes_on = leave.reason is Reason.DRAINED or seat.estate is not None
        return goes_on and self.cluster.has(seat.actor, "take_over")

    def _state(self, seat: Seat, answer: Answer | None, *, asked: bool) -> Any:
        if answer is not None and answer.lost is None and answer.error is None:
            return answer.value
        if asked:
            why = "no answer in time" if answer is None else answer.lost or repr(answer.error)
            log.warning("%s: %s leaves without its state: %s", self.settings.name, seat.id, why)
        return None

    def answers(self, calls: Mapping[str, Any], *, timeout_s: float) -> Procedure[dict[str, Answer]]:
        """Return what came of each call within the time."""
        end_s = self.cluster.now_s() + timeout_s
        open_calls, found = dict(calls), dict[str, Answer]()
        while open_calls and (left_s := end_s - self.cluster.now_s()) > 0:
            answered = yield partial(self.cluster.wait, dict(open_calls), timeout_s=left_s)
            found |= answered
            for name in answered:
                del open_calls[name]
        return found

    def _note_left(self, seat: Seat, reason: Reason, detail: str, state: Any = None) -> None:
        if seat.member is not None:
            self._left.append(Left(seat.member, reason, detail, state))
        # Should a Ctrl-C come before it is removed, the next turn removes it, and notes nothing again.
        seat.member, seat.dead, seat.ending = None, detail, True

    # --- The world -------------------------------------------------------------------------

    def commit(self) -> Change:
        """Make the seats as they are the world; return what changed since the last time this was called."""
        seats = self.seated
        generation = self.world.generation + 1
        old = {one.id for one in self.world}
        members = tuple(_member(seat, rank, generation) for rank, seat in enumerate(seats))
        if [one.id for one in members] == [one.id for one in self.world]:
            assert not self._left
            return Change(self.world)
        for seat, member in zip(seats, members, strict=True):
            seat.member, seat.estate = member, None
        self.world = World(generation, members)
        left, self._left = tuple(self._left), []
        change = Change(self.world, tuple(one for one in members if one.id not in old), left)
        self._tell(change)
        return change

    def _tell(self, change: Change) -> None:
        name = self.settings.name
        for one in change.left:
            log.info("%s: %s left, %s: %s", name, one.member.id, one.reason, one.detail)
        for member in change.joined:
            log.info("%s: %s joined on %s as rank %d", name, member.id, member.node_ip, member.rank)
        self._meter.add("joins", len(change.joined))
        self._meter.add("leaves", len(change.left))

    def _tell_lingering(self, facts: Facts) -> None:
        on_draining = {one.id for one in self.seated if one.spot.node_id in facts.draining}
        for seat_id in on_draining - self._lingering:
            node_id = self._seats[seat_id].spot.node_id
            left_s = facts.draining[node_id]
            log.info(
                "%s: %s stays on a node that drains, %.0f s left, until its successor is up: fewer than "
                "min_size are left without it",
                *(self.settings.name, seat_id, left_s),
            )
        self._lingering = on_draining

    # --- Begin and end ---------------------------------------------------------------------

    def open(self) -> Procedure[None]:
        yield self.cluster.connect
        self._run_id = yield self.cluster.run_id

    def close(self) -> None:
        """End everything at once, waiting for nothing. Blocks, since it must also work in a `finally`."""
        self.world = World(self.world.generation, ())
        self._estates.clear()
        try:
            for seat in list(self._seats.values()):
                self.cluster.end(seat.actor, seat.place)
                del self._seats[seat.id]
        finally:
            # What was made in the moment in which a Ctrl-C came is known by its name only. And should one
            # have come just now, this still removes all, since an actor ends with its placement group.
            if self._run_id:
                self.cluster.sweep(self._run_id)

    def _enter(self, seat: Seat, phase: Phase, now_s: float) -> None:
        seat.phase, seat.since_s = phase, now_s

    def _number(self) -> int:
        self._numbers += 1
        return self._numbers


def _holds(seat: Seat) -> bool:
    return bool(seat.spot.node_id) and seat.dead is None


def _member(seat: Seat, rank: int, generation: int) -> Member:
    if seat.member is not None:
        return replace(seat.member, rank=rank)
    return Member(
        rank=rank,
        id=seat.id,
        node_id=seat.spot.node_id,
        node_ip=seat.spot.node_ip,
        generation=generation,
        actor=seat.actor,
    )


def _why(leave: Leave) -> str:
    if leave.reason is not Reason.DRAINED:
        return "not wanted any more"
    if leave.deadline_s == float("inf"):
        return "its node drains"
    return f"its node drains, {leave.deadline_s:.0f} s left"
