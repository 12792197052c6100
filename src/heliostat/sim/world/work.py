"""The work that Ray is given, and what became of each piece: done, running, waiting, tried again, lost."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum

from heliostat.model.demand import Bundle, GangStrategy
from heliostat.sim.world.ends import Cause


class WorkState(Enum):
    WAITING = "waiting"
    RUNNING = "running"
    DONE = "done"
    LOST = "lost"


@dataclass(eq=False, slots=True)
class Work:
    """A task, or an actor (`work_s` is its life). `gang` is the placement group it works in, if it does.

    `retries` is what is left of `max_retries`; `pins_s` how long its result holds the node afterwards.
    `node_id` and `instance_id` are those of the node on which it runs.
    """

    work_id: int
    bundle: Bundle
    work_s: float
    retries: int = 3
    pins_s: float = 0.0
    is_actor: bool = False
    gang: Group | None = None
    state: WorkState = WorkState.WAITING
    node_id: str = ""
    instance_id: str = ""
    attempts: int = 0

    def __str__(self) -> str:
        return f"{'actor' if self.is_actor else 'task'}{self.work_id}"


@dataclass(eq=False, slots=True)
class Group:
    """A placement group. `nodes` has the node id of each bundle, None where it has no place.

    `members` has at most one work for each bundle, in its order; with the last of them the group goes.
    """

    gang_id: str
    strategy: GangStrategy
    bundles: tuple[Bundle, ...]
    members: tuple[Work, ...] = ()
    nodes: list[str | None] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.nodes = [None] * len(self.bundles)

    @property
    def is_placed(self) -> bool:
        return None not in self.nodes


@dataclass(frozen=True)
class Interruption:
    """That a piece of work lost its node.

    `announced`: the node had been told of a preemption, by whomever, with a deadline that had come or not.
    `counted`: Ray took one of its retries. `lost`: it had none left.
    """

    at_s: float
    work_id: int
    instance_id: str
    cause: Cause
    announced: bool
    counted: bool
    lost: bool


@dataclass
class Ledger:
    """What became of all work. `on_change` hears of each change. `is_open`: more may come."""

    on_change: Callable[[str, Work], None] = lambda *_: None
    works: dict[int, Work] = field(default_factory=dict)
    unfinished: dict[int, Work] = field(default_factory=dict)
    interruptions: list[Interruption] = field(default_factory=list)
    is_open: bool = False

    def arrived(self, work: Work) -> None:
        self.works[work.work_id] = self.unfinished[work.work_id] = work
        self.on_change("arrives", work)

    def started(self, work: Work) -> None:
        self.on_change("starts", work)

    def done(self, work: Work) -> None:
        work.state = WorkState.DONE
        self.unfinished.pop(work.work_id, None)
        self.on_change("done", work)

    def reopened(self, work: Work) -> None:
        """Hear that a finished task has to run again: its result went with a node."""
        work.state = WorkState.WAITING
        self.unfinished[work.work_id] = work
        self.on_change("again", work)

    def interrupted(self, work: Work, found: Interruption) -> None:
        self.interruptions.append(found)
        if found.lost:
            self.lost(work, found.cause.value)
        else:
            work.state = WorkState.WAITING
            self.on_change("retries", work)

    def lost(self, work: Work, why: str) -> None:
        work.state = WorkState.LOST
        self.unfinished.pop(work.work_id, None)
        self.on_change(f"lost: {why}", work)
