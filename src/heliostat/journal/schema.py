"""The journal's tables and how an older file becomes a newer one."""

from __future__ import annotations

VERSION = 1

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
)
"""`MIGRATIONS[n]` takes a file of version n to n + 1; `PRAGMA user_version` holds the version."""

EVENTS_KEPT = 20_000
"""Retention: the newest events are kept, older ones are dropped in batches of `PRUNE_EVERY`."""

PRUNE_EVERY = 500
