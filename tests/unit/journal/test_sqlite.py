"""The journal keeps what it was given, over a restart, a crash and a bad file."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest

from heliostat.journal import SqliteJournal, last_event, schema
from heliostat.model.history import Backoff, Breaker, Failure, History
from heliostat.model.instance import InstanceIntent, InstanceState, Intent
from heliostat.model.snapshot import OperatorSettings
from heliostat.ports.errors import JournalBusy, JournalError
from heliostat.ports.journal import Event, UsageRow

INTENT = InstanceIntent("la.0", "la", "cpu", "local", "shape", Intent.WANTED, 10.0, "1 × {CPU: 1} waits")


def opened(path: Path, uid: str = "u1") -> SqliteJournal:
    return SqliteJournal(path / "journal.db", cluster_uid=uid)


def test_everything_survives_a_restart(tmp_path: Path) -> None:
    history = History(
        waiting_since={"a": 1.0},
        states={"la.0": InstanceState.QUEUED},
        backoff={"cpu": Backoff(2, 30.0, "boom", shape_id="shape", refused=True)},
        breakers={"local": Breaker(3, frozenset({"cpu"}), "down", 1, 20.0, 30.0)},
        proven={"cpu": "shape"},
        start_s={"cpu": (3.0, 4.0)},
        failures=(Failure("la.0", "cpu", 5.0, "boom"),),
    )
    operator = OperatorSettings({"cpu": 2}, frozenset({"la.0"}), {"la.0": None, "lb.0": 9.0}, True)
    journal = opened(tmp_path)
    journal.record_intents([INTENT], [Event(10.0, "launch", "why", "la.0", "cpu", {"n": 1})])
    journal.record_history(history)
    journal.record_operator(operator)
    journal.add_usage([UsageRow("2026-01-01", "cpu", 1.0, 0.5, 2.0, 0.0, 0.1)] * 2)
    journal.close()

    again = opened(tmp_path)
    assert again.intents() == (INTENT,)
    assert again.history() == history
    assert again.operator() == operator
    assert again.usage() == (UsageRow("2026-01-01", "cpu", 2.0, 1.0, 4.0, 0.0, 0.2),)
    assert [(e.kind, e.data, e.seq) for e in again.events()] == [("launch", {"n": 1}, 1)]


def test_a_history_of_an_earlier_version_is_read_without_what_is_told_in_another_way_now(
    tmp_path: Path,
) -> None:
    """It had `succeeded`, names of types without their shapes."""
    opened(tmp_path).close()
    backoff = {"cpu": {"failures": 2, "until_s": 30.0, "last_error": "x"}}
    old = json.dumps({"waiting_since": {"a": 1.0}, "backoff": backoff, "succeeded": ["cpu"]})
    with sqlite3.connect(tmp_path / "journal.db") as connection:
        connection.execute("INSERT INTO meta VALUES ('history', ?)", (old,))
    connection.close()
    history = opened(tmp_path).history()
    assert history == History(waiting_since={"a": 1.0}, backoff={"cpu": Backoff(2, 30.0, "x")})


def test_an_intent_is_replaced_and_forgotten(tmp_path: Path) -> None:
    journal = opened(tmp_path)
    journal.record_intents([INTENT], [])
    released = replace(INTENT, intent=Intent.RELEASED, released_at_s=20.0, release_reason="idle")
    journal.record_intents([released], [])
    assert journal.intents() == (released,)
    journal.forget_intents(["la.0", "unknown"])
    assert journal.intents() == ()


def test_a_new_cluster_of_the_same_name_keeps_events_only(tmp_path: Path) -> None:
    journal = opened(tmp_path)
    journal.record_intents([INTENT], [Event(1.0, "launch", "why")])
    journal.record_history(History(waiting_since={"a": 1.0}))
    journal.close()
    again = opened(tmp_path, "u2")
    assert again.intents() == ()
    assert again.history() == History()
    assert len(again.events()) == 1


def test_events_are_the_newest_oldest_first_and_filtered(tmp_path: Path) -> None:
    journal = opened(tmp_path)
    journal.record_events([Event(float(n), "state", str(n), f"la.{n % 2}") for n in range(10)])
    assert [e.text for e in journal.events(limit=3)] == ["7", "8", "9"]
    assert [e.text for e in journal.events(instance_id="la.1", limit=2)] == ["7", "9"]
    assert [e.text for e in journal.events(after_seq=8)] == ["8", "9"]


def test_events_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("heliostat.journal.sqlite.EVENTS_KEPT", 50)
    journal = opened(tmp_path)
    for start in range(0, 2 * schema.PRUNE_EVERY, 100):
        journal.record_events([Event(0.0, "state", str(start + n)) for n in range(100)])
    kept = journal.events(limit=10_000)
    assert len(kept) == 50
    assert kept[-1].text == str(2 * schema.PRUNE_EVERY - 1)


def _hold(path: Path, ready: object) -> None:
    journal = opened(path)
    journal.record_intents([INTENT], [])
    ready.set()  # type: ignore[attr-defined]
    signal.pause()


def test_a_second_process_is_refused_and_kill_9_loses_nothing(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    ready = context.Event()
    holder = context.Process(target=_hold, args=(tmp_path, ready))
    holder.start()
    try:
        assert ready.wait(30)
        with pytest.raises(JournalBusy, match="held by another process"):
            opened(tmp_path)
    finally:
        os.kill(holder.pid or 0, signal.SIGKILL)
        holder.join(10)
    assert opened(tmp_path).intents() == (INTENT,)


def test_a_corrupt_file_is_refused_with_the_way_out(tmp_path: Path) -> None:
    (tmp_path / "journal.db").write_bytes(b"not a database" * 500)
    with pytest.raises(JournalError, match="move it away"):
        opened(tmp_path)


def test_a_future_file_is_refused(tmp_path: Path) -> None:
    opened(tmp_path).close()
    connection = sqlite3.connect(tmp_path / "journal.db")
    connection.execute("PRAGMA user_version = 99")
    connection.commit()
    connection.close()
    with pytest.raises(JournalError, match="newer heliostat"):
        opened(tmp_path)


def test_a_missing_folder_is_a_clear_refusal(tmp_path: Path) -> None:
    with pytest.raises(JournalError, match="can't be written"):
        opened(tmp_path / "missing")


def test_the_last_event_of_a_kind_is_read_once_nobody_has_the_journal(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    journal = opened(tmp_path)
    journal.record_events([Event(1.0, "down", "the first"), Event(2.0, "down", "the last", data={"n": 1})])
    journal.record_events([Event(3.0, "head", "another kind")])
    journal.close()
    before = sorted((entry.name, entry.stat().st_mtime_ns) for entry in tmp_path.iterdir())
    assert last_event(path, "down") == Event(2.0, "down", "the last", data={"n": 1}, seq=2)
    assert last_event(path, "launch") is None
    assert sorted((entry.name, entry.stat().st_mtime_ns) for entry in tmp_path.iterdir()) == before


@pytest.mark.parametrize("content", [None, b"", b"not a database" * 500])
def test_no_last_event_where_no_journal_can_be_read(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "journal.db").write_bytes(content)
    assert last_event(tmp_path / "journal.db", "down") is None
    assert (tmp_path / "journal.db").exists() is (content is not None)
