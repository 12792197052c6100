"""`map` and `call`: work for the members, each item counted once, whoever is lost on the way.

Who is lost or has to leave during a `map` gets no more of it; the world stays as it is until the next `sync`,
unless nobody is left: then the map waits for successors.
"""

from __future__ import annotations

import collections.abc
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from heliostat.train.cluster import Answer
from heliostat.train.decide import Leave
from heliostat.train.errors import MemberLost
from heliostat.train.procedure import Procedure
from heliostat.train.results import Attempt, Ledger
from heliostat.train.roster import Roster, Seat
from heliostat.train.types import Failure, Reason

LOOK_S = 1.0
"""How often a `map` looks whether a node drains, and it or a `call` who has got a place."""


@dataclass(frozen=True)
class Job:
    """What a `map` is to do. `refill` waits for successors until a time, which may be infinite."""

    method: str
    items: Sequence[Any]
    on_failure: Failure
    timeout_s: float | None
    refill: Callable[[float], Procedure[Any]]


@dataclass(frozen=True)
class Errand:
    """One attempt that a member works at."""

    attempt: Attempt
    pending: Any
    since_s: float


class Mapping:
    """One `map` while it runs."""

    def __init__(self, roster: Roster, job: Job) -> None:
        self._roster = roster
        self._job = job
        self._ledger = Ledger(len(job.items), job.on_failure)
        self._errands: dict[str, Errand] = {}
        self._ending: set[str] = set()
        """Nodes that have no time left for more than to hand over."""
        self._suspect: set[str] = set()
        """Nodes that may be gone: their members get work when others have none to do."""
        self._alarmed = False
        self._notice_s: dict[str, float] = {}
        """What a draining node had left when that was first seen."""
        self._beside = roster.cluster.works_beside(roster.settings.recipe)
        self._longest_s = 0.0
        """That an item has taken."""
        now_s = roster.cluster.now_s()
        self._look_at_s = now_s + LOOK_S
        self._end_s = now_s + job.timeout_s if job.timeout_s is not None else float("inf")
        self.lost_work_s = 0.0
        """Seconds that members spent on what did not count."""

    def run(self) -> Procedure[list[Any]]:
        """Return one result for each item, in their order; raise MemberLost, or what the method raised."""
        while not self._ledger.done:
            yield from self._hand_out()
            if self._ledger.done:
                break
            answers = yield partial(self._roster.cluster.wait, self._pending(), timeout_s=self._wait_s())
            for seat_id, answer in answers.items():
                self._take(seat_id, answer)
            if self._roster.cluster.now_s() >= self._end_s:
                self._too_late()
            yield from self._look()
        return self._ledger.results()

    def _hand_out(self) -> Procedure[None]:
        if not self._errands and not self._able() and self._ledger.waits:
            yield from self._nobody()
        if self._roster.cluster.now_s() >= self._end_s:
            # Who works may have answered by now: that is taken first.
            if not self._errands:
                self._too_late()
            return
        for seat in self._able():
            if not self._ledger.waits:
                return
            if seat.id in self._errands:
                continue
            attempt = self._ledger.give()
            args = (self._job.items[attempt.item],)
            pending = yield partial(self._roster.cluster.call, seat.actor, self._job.method, args)
            self._errands[seat.id] = Errand(attempt, pending, self._roster.cluster.now_s())

    def _able(self) -> list[Seat]:
        able = [one for one in self._roster.seated if one.spot.node_id not in self._ending]
        return sorted(able, key=lambda one: one.spot.node_id in self._suspect)

    def _nobody(self) -> Procedure[None]:
        """See to it that there is somebody again, or that nothing waits any more."""
        if self._job.on_failure is Failure.DROP:
            self._ledger.drop_waiting("no member is left")
        elif self._job.on_failure is Failure.RAISE:
            raise MemberLost(f"{self._job.method}: no member is left")
        else:
            yield from self._job.refill(self._end_s)
            self._ending = set()

    def _take(self, seat_id: str, answer: Answer) -> None:
        errand = self._errands.pop(seat_id)
        if answer.error is not None:
            raise answer.error
        if answer.lost is None:
            self._longest_s = max(self._longest_s, self._roster.cluster.now_s() - errand.since_s)
            self._ledger.answered(errand.attempt, answer.value)
        else:
            if answer.unsure:
                self._suspect.add(self._roster.node_of(seat_id))
            self._end_with(self._lose(seat_id, errand, answer.lost, blameless=answer.unsure))

    def _lose(
        self, seat_id: str, errand: Errand, why: str, *, counts: bool = True, blameless: bool = False
    ) -> str | None:
        """Take a member as lost; return why the map must end, or None if it goes on.

        `counts`: it is one of the group's failures; `blameless`: the item is not what ended it.
        """
        # Others may have been lost with it: they are looked for before anything is given out again.
        self._alarmed = True
        self._roster.lost(seat_id, why, blameless=not counts)
        self.lost_work_s += self._roster.cluster.now_s() - errand.since_s
        return self._ledger.lost(errand.attempt, why, blameless=blameless)

    def _end_with(self, ends: str | None) -> None:
        if ends is not None:
            raise MemberLost(f"{self._job.method}: {ends}")

    def _too_late(self) -> None:
        """Take those who still work as lost, all of them: nobody knows whether they ever answer."""
        why = f"no answer within {self._job.timeout_s:g} s"
        late, self._errands = self._errands, {}
        # Together they are one failure: what none of them could answer is hardly the fault of each.
        found = [self._lose(one, late[one], why, counts=one == next(iter(late))) for one in late]
        for ends in found:
            self._end_with(ends)
        if self._job.on_failure is not Failure.DROP and not self._ledger.done:
            raise MemberLost(f"{self._job.method}: {why}")
        self._ledger.drop_waiting(why)

    def _look(self) -> Procedure[None]:
        """Once a second, and after a loss, see who is dead or has got a place, and whose node ends soon.

        A newcomer starts meanwhile. Who is on such a node, and free, hands over at once; who works there does
        so at the last moment, if its actor takes another call meanwhile.

        Who has more time than that works on, and leaves at the next sync.
        """
        if not self._alarmed and self._roster.cluster.now_s() < self._look_at_s:
            return
        facts = yield from self._roster.start_placed()
        self._look_at_s, self._alarmed = facts.now_s + LOOK_S, False
        needs_s = self._roster.settings.leave_timeout_s + self._longest_s
        self._ending = {node for node, left_s in facts.draining.items() if left_s < needs_s}
        closing = self._closing(facts.draining)
        yield from self._roster.depart(
            Leave(one.id, Reason.DRAINED, max(0.0, facts.draining[one.spot.node_id]))
            for one in self._roster.seated
            if (one.spot.node_id in self._ending and one.id not in self._errands)
            or one.spot.node_id in closing
        )

    def _closing(self, draining: collections.abc.Mapping[str, float]) -> set[str]:
        """Return the nodes where even who works must hand over now, if it can do so beside its work.

        That is when `leave_timeout_s` is left, or half of a short notice. Whoever answers its item until its
        actor is ended has answered it; otherwise the item is lost as with any lost member.
        """
        for node, left_s in draining.items():
            self._notice_s.setdefault(node, left_s)
        if not self._beside:
            return set()
        limit_s = self._roster.settings.leave_timeout_s
        return {node for node, left_s in draining.items() if left_s < min(limit_s, self._notice_s[node] / 2)}

    def _pending(self) -> dict[str, Any]:
        return {seat_id: errand.pending for seat_id, errand in self._errands.items()}

    def _wait_s(self) -> float:
        now_s = self._roster.cluster.now_s()
        return max(0.0, min(self._end_s, self._look_at_s) - now_s)


def call_all(
    roster: Roster, method: str, args: tuple[Any, ...], *, timeout_s: float | None
) -> Procedure[Any]:
    """Call a method on every member; return the results by rank, or raise MemberLost at the first loss."""
    cluster = roster.cluster
    seats = [one for one in roster.seated if one.member is not None]
    if len(seats) < len(roster.world):
        raise MemberLost(
            f"{method}: {len(roster.world) - len(seats)} of {len(roster.world)} are gone already"
        )
    calls: dict[str, Any] = {}
    for seat in seats:
        calls[seat.id] = yield partial(cluster.call, seat.actor, method, args)
    looked_s = cluster.now_s()
    end_s = looked_s + timeout_s if timeout_s is not None else float("inf")
    found: dict[str, Any] = {}
    while len(found) < len(calls):
        if cluster.now_s() - looked_s >= LOOK_S:
            looked_s = (yield from roster.start_placed()).now_s
        waiting = {name: call for name, call in calls.items() if name not in found}
        left_s = min(LOOK_S, max(0.0, end_s - cluster.now_s()))
        answers: dict[str, Answer] = yield partial(cluster.wait, waiting, timeout_s=left_s)
        for seat_id, answer in answers.items():
            found[seat_id] = _value(roster, method, seat_id, answer)
        if not answers and cluster.now_s() >= end_s:
            for index, seat_id in enumerate(waiting):
                # As in a map: together they are one failure.
                roster.lost(seat_id, f"no answer within {timeout_s:g} s", blameless=index > 0)
            raise MemberLost(f"{method}: {len(waiting)} did not answer within {timeout_s:g} s")
    return [found[seat.id] for seat in seats]


def _value(roster: Roster, method: str, seat_id: str, answer: Answer) -> Any:
    if answer.lost is not None:
        roster.lost(seat_id, answer.lost)
        raise MemberLost(f"{method}: {seat_id}: {answer.lost}")
    if answer.error is not None:
        raise answer.error
    return answer.value
