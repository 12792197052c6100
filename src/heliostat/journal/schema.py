"""The journal's tables, how an older file becomes a newer one, and how much of each is kept."""

from __future__ import annotations

from dataclasses import dataclass

VERSION = 2

MIGRATIONS: tuple[tuple[str, ...], ...] = (
    # 0 -> 1
    (
        "CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID",
        "CREATE TABLE intents (instance_id TEXT PRIMARY KEY, body TEXT NOT NULL) WITHOUT ROWID",
        "CREATE TABLE events (seq INTEGER PRIMARY KEY AUTOINCREMENT, at_s REAL NOT NULL, kind TEXT NOT NULL,"
        " text TEXT NOT NULL, instance_id TEXT NOT NULL, node_type TEXT NOT NULL, data TEXT NOT NULL)",
        "CREATE INDEX events_by_instance ON events (instance_id, seq)",
        "CREATE TABLE usage (day TEXT NOT NULL, node_type TEXT NOT NULL, node_s REAL NOT NULL,"
        " idle_s REAL NOT NULL, core_s REAL NOT NULL, gpu_s REAL NOT NULL, cost_usd REAL NOT NULL,"
        " PRIMARY KEY (day, node_type)) WITHOUT ROWID",
    ),
    # 1 -> 2: what the backends were asked, and when each instance was asked for, started, joined and ended.
    (
        "CREATE TABLE calls (seq INTEGER PRIMARY KEY, backend TEXT NOT NULL, began_s REAL NOT NULL,"
        " asked TEXT NOT NULL, ended TEXT NOT NULL, took_s REAL, error TEXT NOT NULL)",
        "CREATE TABLE lifetimes (seq INTEGER PRIMARY KEY, instance_id TEXT NOT NULL UNIQUE,"
        " node_type TEXT NOT NULL, backend TEXT NOT NULL, requested_at_s REAL NOT NULL,"
        " native_id TEXT NOT NULL, started_at_s REAL, joined_at_s REAL, ended_at_s REAL, end TEXT NOT NULL)",
    ),
)
"""`MIGRATIONS[n]` takes a file of version n to n + 1; `PRAGMA user_version` holds the version."""


@dataclass(frozen=True)
class Retention:
    """How many of the newest rows stay, and usage of how many days. A row takes about 300 bytes, so that a
    journal stays below some 20 MB; intents are as many as there are instances and tombstones.

    Older rows go in batches of `batch`. `noted` is how much of each kind is kept in memory while the
    journal can't be written.
    """

    events: int = 20_000
    calls: int = 5_000
    lifetimes: int = 20_000
    usage_days: int = 730
    batch: int = 500
    noted: int = 10_000


PRUNE: dict[str, str] = {
    "events": "DELETE FROM events WHERE seq <= (SELECT max(seq) FROM events) - ?",
    "calls": "DELETE FROM calls WHERE seq <= (SELECT max(seq) FROM calls) - ?",
    "lifetimes": "DELETE FROM lifetimes WHERE seq <= (SELECT max(seq) FROM lifetimes) - ?",
    "usage_days": "DELETE FROM usage WHERE day <= (SELECT date(max(day), '-' || ? || ' days') FROM usage)",
}
"""The statement for each limit of `Retention`; numbers have no gaps but those that a crash leaves."""
