"""The journal keeps what it was given, over a restart, a crash and a bad file."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from heliostat.journal import SqliteJournal, last_event
from heliostat.journal.opening import connect_to_file
from heliostat.journal.schema import Retention
from heliostat.model.history import Backoff, Breaker, Failure, History
from heliostat.model.instance import InstanceIntent, InstanceState, Intent
from heliostat.model.snapshot import OperatorSettings
from heliostat.ports.errors import JournalBusy, JournalError
from heliostat.ports.journal import Event, Lifetime, ProviderCall, UsageRow

INTENT = InstanceIntent("la.0", "la", "cpu", "local", "shape", Intent.WANTED, 10.0, "1 × {CPU: 1} waits")


CALL = ProviderCall(1, "local", 10.0, {"launch": [{"launch_id": "la", "node_type": "cpu", "count": 1}]})
LIFETIME = Lifetime("la.0", "cpu", "local", 10.0)


def opened(path: Path, uid: str = "u1", retention: Retention | None = None) -> SqliteJournal:
    return SqliteJournal(path / "journal.db", cluster_uid=uid, retention=retention)


def forbid_writing(journal: SqliteJournal, *, forbidden: bool = True) -> None:
    journal._connection.execute(f"PRAGMA query_only = {int(forbidden)}")


def on_disk(path: Path, table: str) -> list[str]:
    """Return the keys of a table as a crash would leave them; the journal may be open."""
    copy = path / "copy"
    copy.mkdir(exist_ok=True)
    for name in ("journal.db", "journal.db-wal"):
        (copy / name).write_bytes((path / name).read_bytes())
    with closing(sqlite3.connect(copy / "journal.db")) as connection:
        return sorted(str(row[0]) for row in connection.execute(f"SELECT * FROM {table}"))


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


def test_what_is_noted_is_read_back_at_once_and_written_with_the_next(tmp_path: Path) -> None:
    journal = opened(tmp_path)
    journal.record_events([Event(1.0, "state", "first")])
    journal.note_intents([INTENT, replace(INTENT, instance_id="lb.0")])
    journal.forget_intents(["lb.0"])
    journal.record_history(History(rounds_at_s=1.0))
    journal.add_usage([UsageRow("2026-01-01", "cpu", 1.0, 0.5, 2.0, 0.0, 0.1)] * 2)
    assert journal.intents() == (INTENT,)
    assert journal.history() == History(rounds_at_s=1.0)
    assert [row.node_s for row in journal.usage()] == [2.0]
    assert on_disk(tmp_path, "intents") == []
    journal.record_intents([replace(INTENT, instance_id="lc.0")], [Event(2.0, "launch", "second")])
    assert on_disk(tmp_path, "intents") == ["la.0", "lc.0"]
    assert [(one.seq, one.text) for one in journal.events()] == [(1, "first"), (2, "second")]
    assert [row.node_s for row in journal.usage()] == [2.0]


def test_a_round_is_one_transaction_and_a_quiet_one_none(tmp_path: Path) -> None:
    said: list[str] = []

    def traced(path: Path) -> sqlite3.Connection:
        connection = connect_to_file(path)
        connection.set_trace_callback(said.append)
        return connection

    journal = SqliteJournal(tmp_path / "journal.db", cluster_uid="u1", connect=traced)
    said.clear()
    journal.record_events([Event(1.0, "state", "said")])
    journal.record_lifetimes([LIFETIME])
    journal.record_history(History(rounds_at_s=1.0))
    journal.add_usage([UsageRow("2026-01-01", "cpu", 1.0, 0.5, 2.0, 0.0, 0.1)])
    journal.forget_intents(["lz.0"])
    journal.record_intents([INTENT], [Event(2.0, "launch", "why")], calls=[CALL])
    assert said.count("COMMIT") == 1
    journal.record_intents([], [])
    journal.commit()
    assert said.count("COMMIT") == 1


def test_a_write_that_fails_counts_for_nothing_and_what_was_noted_stays(tmp_path: Path) -> None:
    journal = opened(tmp_path)
    journal.record_events([Event(1.0, "state", "noted")])
    forbid_writing(journal)
    with pytest.raises(JournalError, match="can't be written"):
        journal.record_intents([INTENT], [Event(2.0, "launch", "why")], calls=[CALL])
    with pytest.raises(JournalError):
        journal.record_operator(OperatorSettings(paused=True))
    assert journal.intents() == ()
    assert journal.calls() == ()
    assert not journal.operator().paused
    assert [one.text for one in journal.events()] == ["noted"]
    forbid_writing(journal, forbidden=False)
    journal.record_events([Event(3.0, "state", "later")])
    journal.commit()
    assert [(one.seq, one.text) for one in journal.events()] == [(1, "noted"), (2, "later")]


def test_notes_are_bounded_while_nothing_can_be_written(tmp_path: Path) -> None:
    journal = opened(tmp_path, retention=Retention(noted=10))
    forbid_writing(journal)
    for n in range(100):
        journal.record_events([Event(float(n), "state", str(n))])
        journal.record_call(replace(CALL, seq=n + 1))
        journal.record_lifetimes([replace(LIFETIME, instance_id=f"l{n}.0")])
    journal.record_events([Event(100.0, "state", "last")])
    forbid_writing(journal, forbidden=False)
    journal.commit()
    texts = [one.text for one in journal.events()]
    assert texts[0].startswith("92 events before this were too many to keep")
    assert texts[1:] == [*map(str, range(92, 100)), "last"]
    assert [one.seq for one in journal.calls()] == list(range(91, 101))
    assert len(journal.lifetimes()) == 10


def test_calls_and_times_are_filled_in_as_they_become_known(tmp_path: Path) -> None:
    journal = opened(tmp_path)
    journal.record_intents([], [], calls=[CALL])
    answered = replace(CALL, ended="error", took_s=0.5, error="no GPU is left")
    journal.record_call(answered)
    journal.record_lifetimes([LIFETIME])
    journal.record_lifetimes([replace(LIFETIME, native_id="w1", started_at_s=12.0)])
    journal.commit()
    journal.record_lifetimes([replace(LIFETIME, native_id="w1", started_at_s=13.0, joined_at_s=15.0)])
    assert journal.lifetimes()[0].start_s == 5.0
    journal.commit()
    journal.record_lifetimes([replace(LIFETIME, ended_at_s=20.0, end="failed")])
    journal.record_lifetimes([replace(LIFETIME, ended_at_s=21.0, end="released")])
    journal.close()
    again = opened(tmp_path)
    assert again.calls() == (answered,)
    (found,) = again.lifetimes()
    assert found == Lifetime("la.0", "cpu", "local", 10.0, "w1", 12.0, 15.0, 20.0, "failed")
    assert (found.queue_s, found.start_s) == (2.0, 5.0)


def test_a_call_cut_off_by_a_crash_was_never_answered(tmp_path: Path) -> None:
    journal = opened(tmp_path)
    journal.record_intents([INTENT], [], calls=[CALL])
    journal.close()
    (found,) = opened(tmp_path).calls()
    assert (found.ended, found.took_s, found.error) == (
        "no answer",
        None,
        "the controller ended before it heard an answer",
    )


def test_its_size_is_bounded(tmp_path: Path) -> None:
    """Fifty thousand rows of each kind leave the newest few, and a small file."""
    keep = Retention(events=1000, calls=200, lifetimes=500, usage_days=30, batch=100)
    journal = opened(tmp_path, retention=keep)
    for start in range(0, 50_000, 500):
        numbers = range(start, start + 500)
        journal.record_lifetimes([replace(LIFETIME, instance_id=f"l{n}.0") for n in numbers])
        calls = [replace(CALL, seq=n + 1, ended="answer") for n in numbers]
        journal.record_intents([], [Event(0.0, "state", str(n)) for n in numbers], calls=calls)
    days = [f"2026-{month:02}-{day:02}" for month in (1, 2, 3) for day in range(1, 29)]
    journal.add_usage([UsageRow(day, "cpu", 1.0, 0.5, 2.0, 0.0, 0.1) for day in days])
    journal.record_events([Event(0.0, "state", str(n)) for n in range(50_000, 50_100)])
    journal.commit()
    journal.record_events([Event(0.0, "state", "last")])
    journal.commit()
    assert 1000 <= len(journal.events(limit=100_000)) <= 1000 + keep.batch
    assert journal.events()[-1].text == "last"
    assert 200 <= len(journal.calls(limit=100_000)) <= 200 + keep.batch
    assert 500 <= len(journal.lifetimes(limit=100_000)) <= 500 + keep.batch
    assert journal.usage()[0].day == "2026-02-27"
    journal.close()
    assert (tmp_path / "journal.db").stat().st_size < 2**20


def test_a_controller_that_never_lives_long_prunes_as_well(tmp_path: Path) -> None:
    for start in range(0, 1000, 50):
        journal = opened(tmp_path, retention=Retention(events=100))
        journal.record_events([Event(0.0, "state", str(start + n)) for n in range(50)])
        journal.close()
    assert len(opened(tmp_path).events(limit=10_000)) <= 150


def test_what_was_remembered_of_another_shape_is_forgotten_alone(tmp_path: Path) -> None:
    journal = opened(tmp_path)
    journal.record_intents([INTENT], [])
    journal.record_history(History(rounds_at_s=1.0))
    journal.close()
    with closing(sqlite3.connect(tmp_path / "journal.db")) as connection, connection:
        connection.execute("UPDATE meta SET value = '{\"joined_at\": 7}' WHERE key = 'history'")
    again = opened(tmp_path)
    assert again.history() == History()
    assert again.intents() == (INTENT,)


def test_it_lives_in_memory_and_outlives_its_owner(tmp_path: Path) -> None:
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as kept:
        first = SqliteJournal(tmp_path / "none.db", cluster_uid="u1", connect=lambda _: kept)
        first.record_intents([INTENT], [Event(1.0, "launch", "why")])
        first.record_events([Event(2.0, "state", "noted, and lost with its owner")])
        second = SqliteJournal(tmp_path / "none.db", cluster_uid="u1", connect=lambda _: kept)
        assert second.intents() == (INTENT,)
        assert [one.text for one in second.events()] == ["why"]
    assert list(tmp_path.iterdir()) == []


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


def test_a_damaged_page_is_refused_with_the_way_out(tmp_path: Path) -> None:
    journal = opened(tmp_path)
    journal.record_events([Event(0.0, "state", "x" * 200, f"la.{n}") for n in range(1000)])
    journal.close()
    content = bytearray((tmp_path / "journal.db").read_bytes())
    for start in range(8192, len(content), 4096):
        content[start : start + 64] = b"\xff" * 64
    (tmp_path / "journal.db").write_bytes(bytes(content))
    with pytest.raises(JournalError, match="move it away and start again"):
        opened(tmp_path)


def test_a_log_cut_off_by_a_power_loss_loses_no_more_than_its_end(tmp_path: Path) -> None:
    journal = opened(tmp_path)
    journal.record_intents([INTENT], [])
    log = tmp_path / "journal.db-wal"
    whole = log.stat().st_size
    journal.record_intents([replace(INTENT, instance_id="lb.0")], [])
    (tmp_path / "again").mkdir()
    (tmp_path / "again" / "journal.db").write_bytes((tmp_path / "journal.db").read_bytes())
    (tmp_path / "again" / log.name).write_bytes(log.read_bytes()[: whole + 100])
    assert opened(tmp_path / "again").intents() == (INTENT,)


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
