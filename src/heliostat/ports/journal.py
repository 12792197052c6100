"""The journal port: what must survive a crash."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from heliostat.model.history import History
from heliostat.model.instance import InstanceIntent
from heliostat.model.snapshot import OperatorSettings


@dataclass(frozen=True)
class Event:
    """One thing that happened. `kind` is a word (`launch`, `state`, `drain`, `refused`,
    `error`, `apply`, …); `instance_id` and `node_type` are empty where none is meant."""

    at_s: float
    kind: str
    text: str
    instance_id: str = ""
    node_type: str = ""
    data: Mapping[str, object] = field(default_factory=dict)
    seq: int = 0


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


class Journal(Protocol):
    """Calls are synchronous and short. A write that returned is on disk. Raises JournalError."""

    def intents(self) -> tuple[InstanceIntent, ...]: ...

    def record_intents(self, intents: Sequence[InstanceIntent], events: Sequence[Event]) -> None:
        """Insert or replace intents and append events, in one transaction."""
        ...

    def forget_intents(self, instance_ids: Sequence[str]) -> None: ...

    def record_events(self, events: Sequence[Event]) -> None: ...

    def events(
        self, *, after_seq: int = 0, limit: int = 1000, instance_id: str | None = None
    ) -> tuple[Event, ...]:
        """Return the newest `limit` events after `after_seq`, oldest first."""
        ...

    def history(self) -> History: ...

    def record_history(self, history: History) -> None: ...

    def operator(self) -> OperatorSettings: ...

    def record_operator(self, settings: OperatorSettings) -> None: ...

    def add_usage(self, rows: Sequence[UsageRow]) -> None: ...

    def usage(self) -> tuple[UsageRow, ...]: ...

    def close(self) -> None: ...
