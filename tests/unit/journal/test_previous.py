"""Files of earlier versions are taken up with all that they hold."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from heliostat.journal import SqliteJournal, schema
from heliostat.model.instance import Intent
from heliostat.ports.errors import JournalError
from heliostat.ports.journal import Event, Lifetime, ProviderCall

PREVIOUS = Path(__file__).parent / "previous"


@pytest.fixture
def version_1(tmp_path: Path) -> Path:
    """A file as version 1 wrote it, from a dump of one."""
    with closing(sqlite3.connect(tmp_path / "journal.db")) as connection:
        connection.executescript((PREVIOUS / "journal-1.sql").read_text(encoding="utf-8"))
    return tmp_path / "journal.db"


def version_of(path: Path) -> int:
    with closing(sqlite3.connect(path)) as connection:
        return int(connection.execute("PRAGMA user_version").fetchone()[0])


def test_every_previous_version_has_its_file() -> None:
    there = sorted(path.stem for path in PREVIOUS.glob("journal-*.sql"))
    assert there == [f"journal-{number}" for number in range(1, schema.VERSION)]
    assert len(schema.MIGRATIONS) == schema.VERSION


def test_a_file_of_version_1_is_brought_up_with_all_it_holds(version_1: Path) -> None:
    journal = SqliteJournal(version_1, cluster_uid="u1")
    assert [(one.instance_id, one.intent) for one in journal.intents()] == [
        ("l2abcde.0", Intent.WANTED),
        ("l3abcde.0", Intent.RELEASED),
    ]
    assert [one.kind for one in journal.events()] == ["launch", "state", "release"]
    assert journal.history().joined_at == {"l2abcde.0": 1700000015.0}
    assert journal.history().failures[0].error == "no GPU is left"
    assert journal.operator().protected == {"l2abcde.0"}
    assert [row.node_s for row in journal.usage()] == [75.0]
    assert journal.calls() == journal.lifetimes() == ()


def test_and_is_written_on_as_one_of_this_version(version_1: Path) -> None:
    journal = SqliteJournal(version_1, cluster_uid="u1")
    journal.record_lifetimes([Lifetime("l2abcde.0", "cpu", "local", 1.0)])
    journal.record_intents([], [Event(1.0, "state", "next")], calls=[ProviderCall(1, "local", 1.0, {})])
    assert journal.events()[-1].seq == 4
    journal.close()
    assert version_of(version_1) == schema.VERSION
    assert SqliteJournal(version_1, cluster_uid="u1").events()[-1].text == "next"


def test_a_migration_that_is_cut_off_leaves_the_file_as_it_was(
    version_1: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = (*schema.MIGRATIONS[:1], (*schema.MIGRATIONS[1], "CREATE TABLE calls (again TEXT)"))
    monkeypatch.setattr("heliostat.journal.opening.MIGRATIONS", broken)
    with pytest.raises(JournalError):
        SqliteJournal(version_1, cluster_uid="u1")
    monkeypatch.undo()
    assert version_of(version_1) == 1
    assert len(SqliteJournal(version_1, cluster_uid="u1").events()) == 3
