"""The disk of the simulated head: a database in memory that outlives the controllers, and may be full.

What opens it is the production journal. Its own code decides what a write, a full disk, or the next
controller's start means.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path

from heliostat.journal import SqliteJournal

_PATH = Path("journal.db")
_PAGES_MOST = 1_073_741_823
"""SQLite's own limit (`PRAGMA max_page_count`)."""


class _Kept(sqlite3.Connection):
    """A connection that a journal that could not be opened does not close: what is on the disk stays."""

    def close(self) -> None:
        """Do nothing; `Disk.close` does."""


class Disk:
    """Holds one journal's database. What a killed controller had committed is there for the next."""

    def __init__(self) -> None:
        self._database = self._new()

    def open(self, cluster_uid: str) -> SqliteJournal:
        """Open the journal, as a controller does at its start; raises JournalError where the disk is full."""
        return SqliteJournal(_PATH, cluster_uid=cluster_uid, connect=lambda _: self._database)

    def fill(self) -> None:
        """Let the database grow no more: SQLite itself refuses what needs another page."""
        self._database.execute("PRAGMA max_page_count = 1")

    def free(self) -> None:
        self._database.execute(f"PRAGMA max_page_count = {_PAGES_MOST}")

    def lose(self) -> None:
        """Let the next controller find nothing."""
        self.close()
        self._database = self._new()

    def close(self) -> None:
        sqlite3.Connection.close(self._database)

    def _new(self) -> sqlite3.Connection:
        return sqlite3.connect(":memory:", isolation_level=None, factory=_Kept)
