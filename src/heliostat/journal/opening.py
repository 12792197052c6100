"""A journal's file opened, checked and brought to this version; and what SQLite's errors mean to people."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from heliostat.journal.schema import MIGRATIONS, VERSION
from heliostat.ports.errors import JournalBusy, JournalError

BUSY_S = 1.0
"""How long another process may hold the file before it is said: one that ends lets it go at once."""

Connect = Callable[[Path], sqlite3.Connection]

CANT_WRITE = ("SQLITE_READONLY", "SQLITE_CANTOPEN", "SQLITE_IOERR", "SQLITE_PERM")


def connect_to_file(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(path, timeout=BUSY_S, isolation_level=None, check_same_thread=False)


def opened(path: Path, connect: Connect) -> sqlite3.Connection:
    """Return a connection to a whole journal of this version. Raises JournalBusy, JournalError.

    Exclusive locking is taken before WAL, so that SQLite keeps its index in this process and needs no
    shared memory, which network file systems do not offer.
    """
    with ExitStack() as undo:
        try:
            connection = connect(path)
            undo.callback(connection.close)
            connection.execute("PRAGMA locking_mode=EXCLUSIVE")
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=FULL")
            (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
            if verdict != "ok":
                raise sqlite3.DatabaseError(verdict)
            _migrate(connection, path)
        except sqlite3.Error as error:
            raise worded(path, error) from error
        undo.pop_all()
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


def worded(path: Path, error: Exception) -> JournalError:
    """Return what an error of SQLite's, or of what was read, means, and the way out."""
    name = getattr(error, "sqlite_errorname", "")
    if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
        return JournalBusy(f"the journal {path} is held by another process")
    if name == "SQLITE_FULL":
        return JournalError(f"the journal {path} can't be written (the disk is full): free some space")
    if name.startswith(CANT_WRITE):
        return JournalError(f"the journal {path} can't be written ({error}): free space or make it writable")
    return JournalError(
        f"the journal {path} can't be read ({error}): move it away and start again;"
        " running workers are found again by their tags"
    )
