"""The journal: what must survive a crash, in one SQLite file that only the controller opens."""

from heliostat.journal.sqlite import SqliteJournal

__all__ = ["SqliteJournal"]
