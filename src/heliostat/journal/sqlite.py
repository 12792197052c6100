"""The journal in SQLite: WAL, one writer, exclusive.

Exclusive locking is taken before WAL, so that SQLite keeps its index in this process
and needs no shared memory, which network file systems do not offer. A write that
returned is on disk (`synchronous=FULL`).
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from heliostat.journal.schema import EVENTS_KEPT, MIGRATIONS, PRUNE_EVERY, VERSION
from heliostat.model.history import History
from heliostat.model.instance import InstanceIntent
from heliostat.model.snapshot import OperatorSettings
from heliostat.ports.errors import JournalBusy, JournalError
from heliostat.ports.journal import Event, UsageRow

T = TypeVar("T")

_INTENT = TypeAdapter(InstanceIntent)
_HISTORY = TypeAdapter(History)
_OPERATOR = TypeAdapter(OperatorSettings)

_UPSERT_USAGE = """
INSERT INTO usage VALUES (?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (day, node_type) DO UPDATE SET node_s = node_s + excluded.node_s,
  idle_s = idle_s + excluded.idle_s, core_s = core_s + excluded.core_s,
  gpu_s = gpu_s + excluded.gpu_s, cost_usd = cost_usd + excluded.cost_usd
"""


class SqliteJournal:
    """`ports.journal.Journal` in the file `path`, for the cluster with uid `cluster_uid`.

    A file of an earlier cluster of the same name keeps its events and usage; its
    intents, history and settings belong to instances that are not ours and are dropped.
    Raises JournalBusy where another process has the file, JournalError where it is
    corrupt, of a newer version, or can't be written.
    """

    def __init__(self, path: Path, *, cluster_uid: str) -> None:
        self._path = path
        self._connection = _open(path)
        self._appended = 0
        with self._guard():
            _migrate(self._connection, path)
            self._claim(cluster_uid)

    def intents(self) -> tuple[InstanceIntent, ...]:
        with self._guard():
            rows = self._connection.execute("SELECT body FROM intents ORDER BY instance_id").fetchall()
            return tuple(_INTENT.validate_json(body) for (body,) in rows)

    def record_intents(self, intents: Sequence[InstanceIntent], events: Sequence[Event]) -> None:
        with self._transaction() as connection:
            connection.executemany(
                "INSERT OR REPLACE INTO intents VALUES (?, ?)",
                [(intent.instance_id, _INTENT.dump_json(intent).decode()) for intent in intents],
            )
            self._append(events)

    def forget_intents(self, instance_ids: Sequence[str]) -> None:
        with self._transaction() as connection:
            connection.executemany("DELETE FROM intents WHERE instance_id = ?", [(i,) for i in instance_ids])

    def record_events(self, events: Sequence[Event]) -> None:
        with self._transaction():
            self._append(events)

    def events(
        self, *, after_seq: int = 0, limit: int = 1000, instance_id: str | None = None
    ) -> tuple[Event, ...]:
        query = (
            "SELECT at_s, kind, text, instance_id, node_type, data, seq FROM events"
            " WHERE seq > ? AND (? IS NULL OR instance_id = ?) ORDER BY seq DESC LIMIT ?"
        )
        with self._guard():
            rows = self._connection.execute(query, (after_seq, instance_id, instance_id, limit)).fetchall()
        return tuple(_event(row) for row in reversed(rows))

    def history(self) -> History:
        return self._read("history", _HISTORY, History())

    def record_history(self, history: History) -> None:
        self._write("history", _HISTORY.dump_json(history).decode())

    def operator(self) -> OperatorSettings:
        return self._read("operator", _OPERATOR, OperatorSettings())

    def record_operator(self, settings: OperatorSettings) -> None:
        self._write("operator", _OPERATOR.dump_json(settings).decode())

    def add_usage(self, rows: Sequence[UsageRow]) -> None:
        with self._transaction() as connection:
            connection.executemany(
                _UPSERT_USAGE,
                [(r.day, r.node_type, r.node_s, r.idle_s, r.core_s, r.gpu_s, r.cost_usd) for r in rows],
            )

    def usage(self) -> tuple[UsageRow, ...]:
        with self._guard():
            rows = self._connection.execute("SELECT * FROM usage ORDER BY day, node_type").fetchall()
        return tuple(UsageRow(*row) for row in rows)

    def close(self) -> None:
        self._connection.close()

    def _claim(self, cluster_uid: str) -> None:
        with self._transaction() as connection:
            row = connection.execute("SELECT value FROM meta WHERE key = 'cluster_uid'").fetchone()
            if row is not None and row[0] != cluster_uid:
                connection.execute("DELETE FROM intents")
                connection.execute("DELETE FROM meta")
            connection.execute("INSERT OR REPLACE INTO meta VALUES ('cluster_uid', ?)", (cluster_uid,))

    def _append(self, events: Sequence[Event]) -> None:
        self._connection.executemany(
            "INSERT INTO events (at_s, kind, text, instance_id, node_type, data) VALUES (?, ?, ?, ?, ?, ?)",
            [(e.at_s, e.kind, e.text, e.instance_id, e.node_type, json.dumps(dict(e.data))) for e in events],
        )
        self._appended += len(events)
        if self._appended >= PRUNE_EVERY:
            self._appended = 0
            self._connection.execute(
                "DELETE FROM events WHERE seq <= (SELECT max(seq) FROM events) - ?", (EVENTS_KEPT,)
            )

    def _read(self, key: str, adapter: TypeAdapter[T], default: T) -> T:
        with self._guard():
            row = self._connection.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
            return adapter.validate_json(row[0]) if row else default

    def _write(self, key: str, value: str) -> None:
        with self._transaction() as connection:
            connection.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, value))

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
            raise _worded(self._path, error) from error


def last_event(path: Path, kind: str) -> Event | None:
    """Return the newest event of a kind in a journal that nobody has open, and change nothing.

    None where there is no such event, or no journal that can be read.
    """
    query = (
        "SELECT at_s, kind, text, instance_id, node_type, data, seq FROM events"
        " WHERE kind = ? ORDER BY seq DESC LIMIT 1"
    )
    # Immutable: neither a lock nor a file beside it, so a controller that starts now meets nobody.
    address = f"{path.resolve().as_uri()}?mode=ro&immutable=1"
    try:
        with closing(sqlite3.connect(address, uri=True)) as connection:
            row = connection.execute(query, (kind,)).fetchone()
            return _event(row) if row else None
    except (sqlite3.Error, json.JSONDecodeError):
        return None


def _open(path: Path) -> sqlite3.Connection:
    try:
        connection = sqlite3.connect(path, timeout=1.0, isolation_level=None, check_same_thread=False)
        connection.execute("PRAGMA locking_mode=EXCLUSIVE")
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    except sqlite3.Error as error:
        raise _worded(path, error) from error
    if verdict != "ok":
        raise _worded(path, sqlite3.DatabaseError(verdict))
    return connection


def _migrate(connection: sqlite3.Connection, path: Path) -> None:
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version > VERSION:
        raise JournalError(
            f"the journal {path} was written by a newer heliostat (format {version}, this one knows"
            f" {VERSION}): use that version, or move the file away"
        )
    for number in range(version, VERSION):
        with connection:
            connection.execute("BEGIN IMMEDIATE")
            for statement in MIGRATIONS[number]:
                connection.execute(statement)
            connection.execute(f"PRAGMA user_version = {number + 1}")


def _worded(path: Path, error: Exception) -> JournalError:
    text = str(error)
    if "locked" in text:
        return JournalBusy(f"the journal {path} is held by another process")
    if "full" in text or "readonly" in text or "unable to open" in text or "disk I/O" in text:
        return JournalError(f"the journal {path} can't be written ({text}): free space or make it writable")
    return JournalError(
        f"the journal {path} can't be read ({text}): move it away and start again;"
        " running workers are found again by their tags"
    )


def _event(row: tuple[Any, ...]) -> Event:
    at_s, kind, text, instance_id, node_type, data, seq = row
    return Event(at_s, kind, text, instance_id, node_type, json.loads(data), seq)
