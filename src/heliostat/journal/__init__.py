"""The journal: what must survive a crash, in one SQLite file that only the controller writes."""

from heliostat.journal.sqlite import SqliteJournal, last_event, past_events

__all__ = ["SqliteJournal", "last_event", "past_events"]
