"""The journal port: what must survive a crash."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from heliostat.model.history import History
from heliostat.model.instance import InstanceIntent
from heliostat.model.snapshot import OperatorSettings


@dataclass(frozen=True)
class Event:
    """One thing that happened. `kind` is a word (`launch`, `state`, `drain`, `refused`,
    `error`, `apply`, …); `instance_id` and `node_type` are empty where none is meant.
    A `state` event's `data` has the `state`, what it `was`, and `why`."""

    at_s: float
    kind: str
    text: str
    instance_id: str = ""
    node_type: str = ""
    data: Mapping[str, object] = field(default_factory=dict)
    seq: int = 0


ANSWERED, FAILED, UNANSWERED = "answer", "error", "no answer"
"""How a provider's call ended: by an answer, though it may refuse things; by an error; by neither in time."""


@dataclass(frozen=True)
class ProviderCall:
    """One `apply` of a backend: what was asked, when it began (Unix seconds), how it ended, how long it took.

    `ended` is empty while it is under way; `error` has the backend's words for what it refused. `seq`
    numbers the calls of a journal, from 1.
    """

    seq: int
    backend: str
    began_s: float
    asked: Mapping[str, object]
    ended: str = ""
    took_s: float | None = None
    error: str = ""


@dataclass(frozen=True)
class Lifetime:
    """The times of one instance, in Unix seconds, None for what has not been seen (yet).

    `started_at_s` is when its machine began, `joined_at_s` when Ray first showed its node; `end` says why
    it ended.
    """

    instance_id: str
    node_type: str
    backend: str
    requested_at_s: float
    native_id: str = ""
    started_at_s: float | None = None
    joined_at_s: float | None = None
    ended_at_s: float | None = None
    end: str = ""

    def moved(self, by_s: float) -> Lifetime:
        """Return the same with all times so much later."""
        started_s, joined_s, ended_s = (
            None if one is None else one + by_s
            for one in (self.started_at_s, self.joined_at_s, self.ended_at_s)
        )
        return replace(
            self,
            requested_at_s=self.requested_at_s + by_s,
            started_at_s=started_s,
            joined_at_s=joined_s,
            ended_at_s=ended_s,
        )

    @property
    def queue_s(self) -> float | None:
        """How long it waited for its machine, in seconds."""
        return None if self.started_at_s is None else max(0.0, self.started_at_s - self.requested_at_s)

    @property
    def start_s(self) -> float | None:
        """How long it took from asked to joined, in seconds."""
        return None if self.joined_at_s is None else max(0.0, self.joined_at_s - self.requested_at_s)


@dataclass(frozen=True)
class UsageRow:
    """Time that instances of a type existed on one UTC day.

    `node_s` counts from running to gone, `idle_s` the idle part of it; `core_s` and
    `gpu_s` are node seconds times the type's CPUs and GPUs; `cost_usd` by the price then.
    """

    day: str
    node_type: str
    node_s: float
    idle_s: float
    core_s: float
    gpu_s: float
    cost_usd: float

    def plus(self, other: UsageRow) -> UsageRow:
        return UsageRow(
            self.day,
            self.node_type,
            self.node_s + other.node_s,
            self.idle_s + other.idle_s,
            self.core_s + other.core_s,
            self.gpu_s + other.gpu_s,
            self.cost_usd + other.cost_usd,
        )


def added_up(rows: Iterable[UsageRow]) -> list[UsageRow]:
    """Add up rows of the same day and node type, in the order of their first."""
    sums: dict[tuple[str, str], UsageRow] = {}
    for row in rows:
        known = sums.get((row.day, row.node_type))
        sums[row.day, row.node_type] = known.plus(row) if known else row
    return list(sums.values())


class Journal(Protocol):
    """Calls are synchronous and short. Raises JournalError.

    `record_intents`, `record_operator` and `commit` are on disk when they return, and with them, in the
    same transaction, all that was noted before; when they raise, what they were given counts for nothing.
    Everything else is only noted: kept in memory until then, and read back at once. So a round costs one
    transaction, and a journal that can't be written loses nothing while the process lives.
    """

    def intents(self) -> tuple[InstanceIntent, ...]: ...

    def record_intents(
        self,
        intents: Sequence[InstanceIntent],
        events: Sequence[Event],
        *,
        calls: Sequence[ProviderCall] = (),
        operator: OperatorSettings | None = None,
    ) -> None:
        """Insert or replace intents, calls and settings, and append events. Given nothing, it is `commit`."""
        ...

    def record_operator(self, settings: OperatorSettings) -> None: ...

    def commit(self) -> None:
        """Write what is noted; where nothing is, do nothing."""
        ...

    def note_intents(self, intents: Sequence[InstanceIntent]) -> None: ...

    def note_operator(self, settings: OperatorSettings) -> None: ...

    def forget_intents(self, instance_ids: Sequence[str]) -> None: ...

    def record_events(self, events: Sequence[Event]) -> None: ...

    def record_call(self, call: ProviderCall) -> None:
        """Insert the call, or replace the one with its `seq`."""
        ...

    def record_lifetimes(self, lifetimes: Sequence[Lifetime]) -> None:
        """Insert them; of an instance that is known, fill in what is not known yet."""
        ...

    def record_history(self, history: History) -> None: ...

    def add_usage(self, rows: Sequence[UsageRow]) -> None: ...

    def events(
        self, *, after_seq: int = 0, limit: int = 1000, instance_id: str | None = None
    ) -> tuple[Event, ...]:
        """Return the newest `limit` events after `after_seq`, oldest first."""
        ...

    def calls(self, *, limit: int = 1000) -> tuple[ProviderCall, ...]:
        """Return the newest calls, oldest first."""
        ...

    def lifetimes(self, *, limit: int = 1000) -> tuple[Lifetime, ...]:
        """Return those of the instances that were asked for last, oldest first."""
        ...

    def history(self) -> History: ...

    def operator(self) -> OperatorSettings: ...

    def usage(self) -> tuple[UsageRow, ...]: ...

    def close(self) -> None:
        """Write what is noted, if that can be done, and let the file go."""
        ...
