"""What a group shows of itself: its members, its world, and what changed. Values only."""

from __future__ import annotations

import enum
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any


class Failure(enum.Enum):
    """What `map` does with the item of a member that was lost while it worked on it."""

    RETRY = "retry"
    """Another member gets it."""
    DROP = "drop"
    """A `Dropped` stands in its place in the results."""
    RAISE = "raise"
    """`MemberLost` is raised."""

    @classmethod
    def _missing_(cls, value: object) -> Failure:
        raise ValueError(f"on_failure is {value!r}: it must be {', '.join(one.value for one in cls)}")


class Reason(enum.StrEnum):
    """Why a member left."""

    DRAINED = "drained"
    """Its node drains: a time limit, a spot machine taken back, a scale-down."""
    DIED = "died"
    """Its process or its node is gone, or it did not answer in time."""
    RELEASED = "released"
    """The target fell, or another role gets its place."""


@dataclass(frozen=True)
class Member:
    """One actor of a group, as it was when the world that holds it began."""

    rank: int
    """0 … size - 1 without gaps. Those who stay keep their order; new ones come last."""
    id: str
    """Unique in the group, and never used again."""
    node_id: str
    node_ip: str
    generation: int
    """Of the first world that it belonged to."""
    actor: Any = field(compare=False, repr=False)
    """Ray's handle, to call methods of your own."""


@dataclass(frozen=True)
class World:
    """Who is in the group. `generation` grows by one with each change of membership."""

    generation: int = 0
    members: tuple[Member, ...] = ()

    def __len__(self) -> int:
        return len(self.members)

    def __iter__(self) -> Iterator[Member]:
        return iter(self.members)


@dataclass(frozen=True)
class Left:
    """One that left, with the rank that it had."""

    member: Member
    reason: Reason
    detail: str = ""
    """In words, for people: «its node drains, 12 s left», «killed by signal 9»."""
    state: Any = field(default=None, compare=False, repr=False)
    """What its `leaving` returned. A successor's `take_over` gets that of a drained member, too."""


@dataclass(frozen=True)
class Change:
    """What changed since the last `sync`. False in a condition when nothing did."""

    world: World
    joined: tuple[Member, ...] = ()
    left: tuple[Left, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.joined or self.left)


@dataclass(frozen=True)
class Dropped:
    """In the results of `map` with `Failure.DROP`: the place of an item whose member was lost."""

    item: int
    """Index of the item."""
    why: str
