"""The journal in SQLite: WAL, one writer, exclusive.

What must be on disk before anything is asked for is written with all that was noted
meanwhile, in one transaction; a write that returned is on disk (`synchronous=FULL`).
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from heliostat.journal.notes import INTENT, Notes, filled
from heliostat.journal.opening import Connect, connect_to_file, opened, worded
from heliostat.journal.schema import PRUNE, Retention
from heliostat.model.history import History
from heliostat.model.instance import InstanceIntent
from heliostat.model.snapshot import OperatorSettings
from heliostat.ports.errors import JournalError
from heliostat.ports.journal import UNANSWERED, Event, Lifetime, ProviderCall, UsageRow, added_up

T = TypeVar("T")

_HISTORY = TypeAdapter(History)
_OPERATOR = TypeAdapter(OperatorSettings)

_EVENTS = "SELECT at_s, kind, text, instance_id, node_type, data, seq FROM events"
_CALLS = "SELECT seq, backend, began_s, asked, ended, took_s, error FROM calls"
_LIFETIMES = (
    "SELECT instance_id, node_type, backend, requested_at_s, native_id, started_at_s, joined_at_s,"
    " ended_at_s, end FROM lifetimes"
)

NEVER_HEARD = "the controller ended before it heard an answer"


class SqliteJournal:
    """`ports.journal.Journal` in the file `path`, for the cluster with uid `cluster_uid`.

    A file of an earlier cluster of the same name keeps what tells its story; its intents, history
    and settings belong to instances that are not ours and are dropped. `connect` makes the connection.
    Raises JournalBusy where another process has the file, JournalError where it is corrupt, of a newer
    version, or can't be written; one that is there and ours can be opened while the disk is full.
    """

    def __init__(
        self,
        path: Path,
        *,
        cluster_uid: str,
        retention: Retention | None = None,
        connect: Connect = connect_to_file,
    ) -> None:
        self._path = path
        self._retention = retention or Retention()
        self._connection = opened(path, connect)
        self._notes = Notes()
        # A file that nobody pruned for long, since nobody lived for long, is pruned with the first write.
        self._since_pruned = self._retention.batch
        with self._guard():
            self._seq = self._number("SELECT seq FROM sqlite_sequence WHERE name = 'events'")
            self._claim(cluster_uid)
            for call in self._calls("WHERE ended = ''"):
                self.record_call(replace(call, ended=UNANSWERED, error=NEVER_HEARD))

    def intents(self) -> tuple[InstanceIntent, ...]:
        with self._guard():
            rows = self._connection.execute("SELECT instance_id, body FROM intents").fetchall()
            found = {key: INTENT.validate_json(body) for key, body in rows}
        found |= self._notes.intents
        return tuple(found[key] for key in sorted(found) if key not in self._notes.forgotten)

    def record_intents(
        self,
        intents: Sequence[InstanceIntent],
        events: Sequence[Event],
        *,
        calls: Sequence[ProviderCall] = (),
        operator: OperatorSettings | None = None,
    ) -> None:
        numbered = self._numbered(events)
        values = _operator_values(operator) if operator else {}
        fresh = Notes(events=numbered, calls={one.seq: one for one in calls}, values=values)
        fresh.add_intents(intents)
        self._write(fresh)
        self._seq += len(numbered)

    def record_operator(self, settings: OperatorSettings) -> None:
        self._write(Notes(values=_operator_values(settings)))

    def commit(self) -> None:
        self._write(Notes())

    def note_intents(self, intents: Sequence[InstanceIntent]) -> None:
        self._notes.add_intents(intents)

    def note_operator(self, settings: OperatorSettings) -> None:
        self._notes.values |= _operator_values(settings)

    def forget_intents(self, instance_ids: Sequence[str]) -> None:
        self._notes.forget(instance_ids)

    def record_events(self, events: Sequence[Event]) -> None:
        numbered = self._numbered(events)
        self._seq += len(numbered)
        self._notes.events += numbered
        self._notes.trim(self._retention.noted)

    def record_call(self, call: ProviderCall) -> None:
        self._notes.calls[call.seq] = call

    def record_lifetimes(self, lifetimes: Sequence[Lifetime]) -> None:
        self._notes.add_lifetimes(lifetimes)

    def record_history(self, history: History) -> None:
        self._notes.values["history"] = _HISTORY.dump_json(history).decode()

    def add_usage(self, rows: Sequence[UsageRow]) -> None:
        self._notes.add_usage(rows)

    def events(
        self, *, after_seq: int = 0, limit: int = 1000, instance_id: str | None = None
    ) -> tuple[Event, ...]:
        self._settle()
        where = " WHERE seq > ? AND (? IS NULL OR instance_id = ?) ORDER BY seq DESC LIMIT ?"
        with self._guard():
            rows = self._connection.execute(_EVENTS + where, (after_seq, instance_id, instance_id, limit))
            found = [_event(row) for row in rows.fetchall()][::-1]
        noted = [one for one in self._notes.events if one.seq > after_seq]
        found += [one for one in noted if instance_id in (None, one.instance_id)]
        return tuple(found[-limit:])

    def calls(self, *, limit: int = 1000) -> tuple[ProviderCall, ...]:
        self._settle()
        with self._guard():
            found = {one.seq: one for one in self._calls("ORDER BY seq DESC LIMIT ?", limit)}
        found |= self._notes.calls
        return tuple(found[seq] for seq in sorted(found)[-limit:])

    def lifetimes(self, *, limit: int = 1000) -> tuple[Lifetime, ...]:
        self._settle()
        with self._guard():
            rows = self._connection.execute(_LIFETIMES + " ORDER BY seq DESC LIMIT ?", (limit,)).fetchall()
        found = {row[0]: Lifetime(*row) for row in reversed(rows)}
        for key, one in self._notes.lifetimes.items():
            found[key] = filled(found[key], one) if key in found else one
        return tuple(found.values())[-limit:]

    def history(self) -> History:
        try:
            return self._value("history", _HISTORY, History())
        except ValidationError:
            # Of another version: losing it costs patience, and no more than that.
            return History()

    def operator(self) -> OperatorSettings:
        try:
            return self._value("operator", _OPERATOR, OperatorSettings())
        except ValidationError as error:
            raise worded(self._path, error) from error

    def usage(self) -> tuple[UsageRow, ...]:
        with self._guard():
            rows = self._connection.execute("SELECT * FROM usage").fetchall()
        every = added_up([*(UsageRow(*row) for row in rows), *self._notes.usage.values()])
        return tuple(sorted(every, key=lambda row: (row.day, row.node_type)))

    def close(self) -> None:
        self._settle()
        self._connection.close()

    # Inside.

    def _claim(self, cluster_uid: str) -> None:
        row = self._connection.execute("SELECT value FROM meta WHERE key = 'cluster_uid'").fetchone()
        if row is not None and row[0] == cluster_uid:
            return
        with self._transaction() as connection:
            connection.execute("DELETE FROM intents")
            connection.execute("DELETE FROM meta")
            connection.execute("INSERT INTO meta VALUES ('cluster_uid', ?)", (cluster_uid,))

    def _numbered(self, events: Sequence[Event]) -> list[Event]:
        return [replace(one, seq=self._seq + index) for index, one in enumerate(events, 1)]

    def _write(self, fresh: Notes) -> None:
        """Write what is noted and then `fresh`; if that fails, the former stays noted."""
        if not self._notes and not fresh:
            return
        due = self._since_pruned >= self._retention.batch
        if due:
            # Now and not later: one that fails is tried again without the pruning, which needs more space.
            self._since_pruned = 0
        with self._transaction() as connection:
            for statement, rows in (*self._notes.statements(), *fresh.statements()):
                connection.executemany(statement, rows)
                self._since_pruned += len(rows)
            if due:
                self._prune(connection)
        self._notes = Notes()

    def _prune(self, connection: sqlite3.Connection) -> None:
        for name, statement in PRUNE.items():
            connection.execute(statement, (getattr(self._retention, name),))

    def _settle(self) -> None:
        """Write what is noted, if it can be: an event that was read must not give its number to another."""
        with suppress(JournalError):
            self.commit()

    def _calls(self, rest: str, *values: object) -> list[ProviderCall]:
        rows = self._connection.execute(f"{_CALLS} {rest}", values).fetchall()
        return [_call(row) for row in rows]

    def _number(self, query: str) -> int:
        row = self._connection.execute(query).fetchone()
        return int(row[0]) if row else 0

    def _value(self, key: str, adapter: TypeAdapter[T], default: T) -> T:
        noted = self._notes.values.get(key)
        if noted is not None:
            return adapter.validate_json(noted)
        with self._guard():
            row = self._connection.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        return adapter.validate_json(row[0]) if row else default

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._guard(), self._connection as connection:
            connection.execute("BEGIN IMMEDIATE")
            yield connection

    @contextmanager
    def _guard(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, ValidationError, json.JSONDecodeError) as error:
            raise worded(self._path, error) from error


def last_event(path: Path, kind: str) -> Event | None:
    """Return the newest event of a kind in a journal that nobody has open; None if there is none."""
    return next(iter(past_events(path, kind, limit=1)), None)


def past_events(path: Path, kind: str, *, limit: int) -> list[Event]:
    """Return the newest events of a kind in a journal that nobody has open, newest first, and change nothing.

    None are there where no journal can be read.
    """
    # Immutable: neither a lock nor a file beside it, so a controller that starts now meets nobody.
    address = f"{path.resolve().as_uri()}?mode=ro&immutable=1"
    query = f"{_EVENTS} WHERE kind = ? ORDER BY seq DESC LIMIT ?"
    try:
        with closing(sqlite3.connect(address, uri=True)) as connection:
            return [_event(row) for row in connection.execute(query, (kind, limit))]
    except (sqlite3.Error, json.JSONDecodeError):
        return []


def _operator_values(settings: OperatorSettings) -> dict[str, str]:
    return {"operator": _OPERATOR.dump_json(settings).decode()}


def _call(row: tuple[Any, ...]) -> ProviderCall:
    seq, backend, began_s, asked, ended, took_s, error = row
    return ProviderCall(seq, backend, began_s, json.loads(asked), ended, took_s, error)


def _event(row: tuple[Any, ...]) -> Event:
    at_s, kind, text, instance_id, node_type, data, seq = row
    return Event(at_s, kind, text, instance_id, node_type, json.loads(data), seq)
