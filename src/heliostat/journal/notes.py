"""What is noted and not yet on disk: a bounded part of a journal in memory, and the rows it becomes."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass, field
from itertools import islice
from typing import TypeVar

from pydantic import TypeAdapter

from heliostat.model.instance import InstanceIntent
from heliostat.ports.journal import Event, Lifetime, ProviderCall, UsageRow

K = TypeVar("K")
V = TypeVar("V")

INTENT = TypeAdapter(InstanceIntent)

_INTENT = "INSERT OR REPLACE INTO intents VALUES (?, ?)"
_FORGET = "DELETE FROM intents WHERE instance_id = ?"
_EVENT = (
    "INSERT INTO events (at_s, kind, text, instance_id, node_type, data, seq) VALUES (?, ?, ?, ?, ?, ?, ?)"
)
_CALL = "INSERT OR REPLACE INTO calls VALUES (?, ?, ?, ?, ?, ?, ?)"
_VALUE = "INSERT OR REPLACE INTO meta VALUES (?, ?)"
_LIFETIME = """
INSERT INTO lifetimes (instance_id, node_type, backend, requested_at_s, native_id, started_at_s,
  joined_at_s, ended_at_s, end) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (instance_id) DO UPDATE SET
  native_id = CASE excluded.native_id WHEN '' THEN native_id ELSE excluded.native_id END,
  started_at_s = coalesce(started_at_s, excluded.started_at_s),
  joined_at_s = coalesce(joined_at_s, excluded.joined_at_s),
  end = CASE WHEN ended_at_s IS NULL THEN excluded.end ELSE end END,
  ended_at_s = coalesce(ended_at_s, excluded.ended_at_s)
"""
_USAGE = """
INSERT INTO usage VALUES (?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (day, node_type) DO UPDATE SET node_s = node_s + excluded.node_s,
  idle_s = idle_s + excluded.idle_s, core_s = core_s + excluded.core_s,
  gpu_s = gpu_s + excluded.gpu_s, cost_usd = cost_usd + excluded.cost_usd
"""


@dataclass
class Notes:
    """`values` are JSON by key of the table `meta`; `lost` counts the events that were too many to keep."""

    intents: dict[str, InstanceIntent] = field(default_factory=dict)
    forgotten: dict[str, None] = field(default_factory=dict)
    events: list[Event] = field(default_factory=list)
    calls: dict[int, ProviderCall] = field(default_factory=dict)
    lifetimes: dict[str, Lifetime] = field(default_factory=dict)
    usage: dict[tuple[str, str], UsageRow] = field(default_factory=dict)
    values: dict[str, str] = field(default_factory=dict)
    lost: int = 0

    def __bool__(self) -> bool:
        parts = (self.intents, self.forgotten, self.events, self.calls, self.lifetimes, self.usage)
        return any(parts) or bool(self.values)

    def add_intents(self, intents: Sequence[InstanceIntent]) -> None:
        for one in intents:
            self.forgotten.pop(one.instance_id, None)
            self.intents[one.instance_id] = one

    def forget(self, instance_ids: Sequence[str]) -> None:
        for instance_id in instance_ids:
            self.intents.pop(instance_id, None)
            self.forgotten[instance_id] = None

    def add_lifetimes(self, lifetimes: Sequence[Lifetime]) -> None:
        for one in lifetimes:
            known = self.lifetimes.get(one.instance_id)
            self.lifetimes[one.instance_id] = filled(known, one) if known else one

    def add_usage(self, rows: Sequence[UsageRow]) -> None:
        for row in rows:
            known = self.usage.get((row.day, row.node_type))
            self.usage[row.day, row.node_type] = known.plus(row) if known else row

    def trim(self, most: int) -> None:
        """Drop the oldest of what grows for as long as nothing can be written."""
        over = len(self.events) - most
        if over > 0:
            # The note itself takes the place of one more, and later that of the last note.
            self.lost += over if self.lost else over + 1
            first = self.events[over]
            text = f"{self.lost} events before this were too many to keep while the journal can't be written"
            self.events[: over + 1] = [Event(first.at_s, "journal", text, seq=first.seq)]
        self.calls = _newest(self.calls, most)
        self.lifetimes = _newest(self.lifetimes, most)

    def statements(self) -> Iterator[tuple[str, list[tuple[object, ...]]]]:
        """Yield each statement with its rows, in an order in which they can be carried out."""
        yield _FORGET, [(one,) for one in self.forgotten]
        yield _INTENT, [(key, INTENT.dump_json(one).decode()) for key, one in self.intents.items()]
        yield _EVENT, [_event_row(one) for one in self.events]
        yield _CALL, [_call_row(one) for one in self.calls.values()]
        yield _LIFETIME, [astuple(one) for one in self.lifetimes.values()]
        yield _USAGE, [astuple(one) for one in self.usage.values()]
        yield _VALUE, list(self.values.items())


def filled(known: Lifetime, later: Lifetime) -> Lifetime:
    """Return what is known of an instance, with what only `later` knows; as the statement does it."""
    over = known.ended_at_s is not None
    return Lifetime(
        known.instance_id,
        known.node_type,
        known.backend,
        known.requested_at_s,
        later.native_id or known.native_id,
        known.started_at_s if known.started_at_s is not None else later.started_at_s,
        known.joined_at_s if known.joined_at_s is not None else later.joined_at_s,
        known.ended_at_s if over else later.ended_at_s,
        known.end if over else later.end,
    )


def _newest(rows: dict[K, V], most: int) -> dict[K, V]:
    return dict(islice(rows.items(), len(rows) - most, None)) if len(rows) > most else rows


def _event_row(one: Event) -> tuple[object, ...]:
    return one.at_s, one.kind, one.text, one.instance_id, one.node_type, json.dumps(dict(one.data)), one.seq


def _call_row(one: ProviderCall) -> tuple[object, ...]:
    asked = json.dumps(dict(one.asked))
    return one.seq, one.backend, one.began_s, asked, one.ended, one.took_s, one.error
