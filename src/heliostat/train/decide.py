"""What to do next with a group's seats. Pure: the same view, the same steps.

A seat is a place that was asked for: a placement group, then an actor in it, then a member. Rules:

- the dead are buried first, and what does not come up in time counts as dead;
- who sits on a draining node leaves, and nothing is started there; but as long as there are fewer than
  `min_size` without it, it stays while there is time, until its successor is up;
- what is too many goes in the order in which it is missed least: what waits, what starts, then the costliest
  member, and of those the one that joined last;
- what lacks up to the target is asked for, successors included.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from heliostat.train.types import Reason


class Phase(enum.IntEnum):
    """In the order that a seat goes through."""

    ASKED = 0
    """Its placement group waits. That is the demand which an autoscaler sees."""
    PLACED = 1
    STARTING = 2
    """Its actor comes up."""
    UP = 3
    """Its actor is up, and takes over from a predecessor next, if there is one."""
    TAKING_OVER = 4
    MEMBER = 5


@dataclass(frozen=True)
class Seat:
    id: str
    phase: Phase
    since_s: float = 0.0
    """When the phase began."""
    node_id: str = ""
    dead: str | None = None
    cost: float = 1.0
    number: int = 0
    """Grows with each seat that was asked for, and for members with each that joined."""
    asked_health_s: float | None = None
    """Since when it has owed an answer to a health check; None if it owes none."""
    healthy_s: float | None = None
    """When it was last known to be well; None if it has no health check."""


@dataclass(frozen=True)
class Limits:
    """How long things may take."""

    start_timeout_s: float
    health_every_s: float = float("inf")
    health_timeout_s: float = float("inf")


@dataclass(frozen=True)
class View:
    seats: Sequence[Seat]
    target: int
    now_s: float
    limits: Limits
    min_size: int = 0
    lead_s: float = float("inf")
    """How long before its deadline a member must be asked to leave, at the latest."""
    draining: Mapping[str, float] = field(default_factory=dict)
    """Node ids, each with the seconds that are left; infinity where there is no deadline."""
    unwanted: frozenset[str] = frozenset()
    """Seats that go before others, if some have to: another role has a use for just these places."""


@dataclass(frozen=True)
class Bury:
    """It is dead or stuck: what is left of it is removed."""

    seat: str
    why: str


@dataclass(frozen=True)
class Withdraw:
    """It is no member yet, and is not wanted any more (here)."""

    seat: str


@dataclass(frozen=True)
class Start:
    seat: str


@dataclass(frozen=True)
class Ask:
    count: int


@dataclass(frozen=True)
class Leave:
    """A member that is well leaves; there is time to hand over."""

    seat: str
    reason: Reason
    deadline_s: float = float("inf")


@dataclass(frozen=True)
class Settle:
    """It takes over what a predecessor has left, or is a member at once."""

    seat: str


@dataclass(frozen=True)
class Check:
    """Ask a member whether it is well, and go on: the answer is seen at a later look."""

    seat: str


Step = Bury | Withdraw | Start | Check | Ask | Leave | Settle


def decide(view: View) -> list[Step]:
    """Return what to do, in its order: demand falls before it rises, and rises before anyone waits."""
    steps: list[Step] = []
    stay: list[Seat] = []
    for seat in view.seats:
        step = _forced(seat, view)
        if step is None:
            stay.append(seat)
        else:
            steps.append(step)
    lingering = _lingering([one for one in steps if isinstance(one, Leave)], stay, view)
    steps = [one for one in steps if one not in lingering]
    surplus = sorted(stay, key=lambda one: _missed(one, view.unwanted))[: max(0, len(stay) - view.target)]
    steps += [_release(seat) for seat in surplus]
    kept = [seat for seat in stay if seat not in surplus]
    steps += [Start(seat.id) for seat in kept if seat.phase is Phase.PLACED]
    steps += [Settle(seat.id) for seat in kept if seat.phase is Phase.UP]
    steps += [Check(seat.id) for seat in kept if _is_due(seat, view)]
    lacking = view.target - len(kept)
    steps += [Ask(lacking)] if lacking > 0 else []
    return sorted(steps, key=_turn)


def _forced(seat: Seat, view: View) -> Step | None:
    """Return what happens to a seat whatever the target is."""
    if seat.dead is not None:
        return Bury(seat.id, seat.dead)
    if late := _late(seat, view):
        return Bury(seat.id, late)
    left_s = view.draining.get(seat.node_id) if seat.node_id else None
    if left_s is None:
        return None
    if seat.phase is Phase.MEMBER:
        return Leave(seat.id, Reason.DRAINED, max(0.0, left_s))
    return Withdraw(seat.id)


def _lingering(leaves: list[Leave], stay: Sequence[Seat], view: View) -> list[Leave]:
    """Return those of the drained members that stay for now: without them there would be too few."""
    there = sum(seat.phase in (Phase.UP, Phase.MEMBER) for seat in stay)
    may = sorted((one for one in leaves if one.deadline_s > view.lead_s), key=lambda one: -one.deadline_s)
    return may[: max(0, view.min_size - there)]


def _late(seat: Seat, view: View) -> str:
    """Return what a seat has not done in time; empty if nothing."""
    limits = view.limits
    if (
        seat.phase in (Phase.STARTING, Phase.TAKING_OVER)
        and view.now_s - seat.since_s > limits.start_timeout_s
    ):
        return f"it did not come up within {limits.start_timeout_s:g} s"
    asked_s = seat.asked_health_s
    if asked_s is not None and view.now_s - asked_s > limits.health_timeout_s:
        return f"it did not answer its health check within {limits.health_timeout_s:g} s"
    return ""


def _is_due(seat: Seat, view: View) -> bool:
    if seat.healthy_s is None or seat.asked_health_s is not None:
        return False
    return view.now_s - seat.healthy_s >= view.limits.health_every_s


def _missed(seat: Seat, unwanted: frozenset[str]) -> tuple[int, bool, float, int]:
    """Return the order in which seats are given up: least missed first."""
    cost = seat.cost if seat.phase is Phase.MEMBER else 0.0
    return (int(seat.phase), seat.id not in unwanted, -cost, -seat.number)


def _release(seat: Seat) -> Step:
    return Leave(seat.id, Reason.RELEASED) if seat.phase is Phase.MEMBER else Withdraw(seat.id)


def _turn(step: Step) -> int:
    # Leaving may take its time, so it comes late: by then, successors have been asked for. Those that are up
    # come last, since they take over what is left then.
    return (Bury, Withdraw, Start, Check, Ask, Leave, Settle).index(type(step))
