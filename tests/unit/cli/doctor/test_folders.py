"""Folders, files and records that are astray are removed; what is young, in use or another's stays."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

from heliostat.cli.main import cli
from heliostat.journal import SqliteJournal
from heliostat.ports.journal import Event
from heliostat.raylink.address_file import address_file
from tests.unit.cli.doctor.conftest import Doctor, Place, kinds

UID = "0123456789abcdef" * 2
SESSION = "session_2026-01-01_00-00-00_123456_77"
DAY_S = 86_400


def past_run(place: Place, name: str = "demo") -> None:
    """Leave the journal of a cluster that ran once, in that session, and no record of it."""
    (place.state / name).mkdir()
    journal = SqliteJournal(place.state / name / "journal.db", cluster_uid=UID)
    journal.record_events([Event(1.0, "head", f"the head answers, session {SESSION}")])
    journal.close()


class TestTempFolders:
    def test_what_a_launch_file_or_a_slot_names_is_ours(self, place: Place, doctor: Doctor) -> None:
        record = place.record("demo", UID)
        head = place.session(f"hel-{UID[:8]}", SESSION)
        worker = place.temp / "hel-worker_1"
        worker.mkdir()
        place.slot(Path(record.runtime_dir), "la.0", UID, temp_dir=str(worker))
        code, found = doctor("--fix")
        assert code == 0
        assert kinds(found) == ["temp folder", "temp folder", "runtime folder", "record"]
        assert not head.exists()
        assert not worker.exists()

    def test_so_is_one_whose_session_a_journal_names(self, place: Place, doctor: Doctor) -> None:
        past_run(place)
        left = place.session("hel-worker_1", SESSION)
        code, (found,) = doctor("--fix")
        assert (code, found["cluster"]) == (0, "demo")
        assert not left.exists()

    def test_a_name_alone_proves_nothing(self, place: Place, doctor: Doctor) -> None:
        left = [place.session(f"hel-worker_{n}", SESSION) for n in range(3)]
        code, (found,) = doctor("--fix")
        assert (code, found["certain"], found["items"]) == (1, False, [str(one) for one in left])
        assert f"{left[0]} and 2 more" in found["what"]
        assert all(one.exists() for one in left)

    def test_one_that_a_process_uses_is_left(self, place: Place, doctor: Doctor) -> None:
        past_run(place)
        left = place.session("hel-worker_1", SESSION)
        place.start_untagged(f"--temp-dir={left}")
        assert doctor("--fix") == (0, [])

    def test_links_other_names_and_folders_without_a_session_are_not_looked_at(
        self, place: Place, doctor: Doctor
    ) -> None:
        past_run(place)
        real = place.folder / "real"
        (real / SESSION).mkdir(parents=True)
        (place.temp / "hel-linked_1").symlink_to(real)
        (place.temp / "hel-plain_01").mkdir()
        (place.temp / "somebodys" / SESSION).mkdir(parents=True)
        assert doctor("--fix") == (0, [])
        assert (real / SESSION).exists()


class TestRuntimeFolders:
    def test_a_young_one_without_a_record_may_be_in_the_making(self, place: Place, doctor: Doctor) -> None:
        (place.run / "01234567").mkdir()
        assert doctor() == (0, [])

    def test_in_a_root_of_the_users_choice_it_may_be_another_hosts(
        self, place: Place, doctor: Doctor, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("HELIOSTAT_RUNTIME_DIR", str(place.run))
        place.slot(place.run / "01234567", "la.0", UID)
        os.utime(place.run / "01234567", (1.0, 1.0))
        code, (found,) = doctor("--fix")
        assert (code, found["kind"], found["certain"]) == (1, "runtime folder", False)
        assert (place.run / "01234567").exists()


class TestStateRoot:
    def test_a_record_that_can_not_be_read_is_told(self, place: Place, doctor: Doctor) -> None:
        (place.state / "broken").mkdir()
        (place.state / "broken" / "cluster.json").write_text("{")
        code, (found,) = doctor("--fix")
        assert (code, found["kind"], found["certain"]) == (1, "record", False)
        assert "is damaged" in found["what"]

    def test_old_logs_go_and_the_journal_stays(self, place: Place, doctor: Doctor) -> None:
        past_run(place)
        logs = place.state / "demo" / "logs"
        logs.mkdir()
        for name in ("old.log", "new.log"):
            (logs / name).write_text("x")
        now_s = (place.state / "demo" / "journal.db").stat().st_mtime
        os.utime(logs / "old.log", (now_s - 20 * DAY_S, now_s - 20 * DAY_S))
        assert doctor("--older-than", "30d") == (0, [])
        code, (found,) = doctor("--fix")
        assert (code, found["kind"]) == (0, "logs")
        assert [path.name for path in logs.iterdir()] == ["new.log"]
        assert (place.state / "demo" / "journal.db").exists()

    def test_a_folder_that_was_not_used_for_long_goes_whole(self, place: Place, doctor: Doctor) -> None:
        past_run(place)
        for path in (place.state / "demo").iterdir():
            os.utime(path, (1.0, 1.0))
        (place.state / "notes").mkdir()
        (place.state / "notes" / "mine.txt").write_text("not of heliostat")
        os.utime(place.state / "notes" / "mine.txt", (1.0, 1.0))
        code, (found,) = doctor("--fix")
        assert (code, found["kind"], found["cluster"]) == (0, "state folder", "demo")
        assert [path.name for path in place.state.iterdir()] == ["notes"]

    def test_half_written_files_go(self, place: Place, doctor: Doctor) -> None:
        past_run(place)
        draft = place.state / "demo" / ".cluster.json-u1"
        draft.write_text("{")
        assert doctor() == (0, [])
        os.utime(draft, (1.0, 1.0))
        code, (found,) = doctor("--fix")
        assert (code, found["kind"]) == (0, "file")
        assert not draft.exists()

    def test_logs_of_a_cluster_that_runs_are_its_own_business(self, place: Place, doctor: Doctor) -> None:
        place.record("demo", UID, host="another-host")
        log = place.state / "demo" / "logs" / "worker.log"
        log.write_text("x")
        os.utime(log, (1.0, 1.0))
        assert doctor("--fix") == (0, [])
        assert log.exists()

    def test_the_address_file_of_a_cluster_that_is_gone(self, place: Place, doctor: Doctor) -> None:
        place.record("demo", UID)
        path = address_file(os.environ)
        path.parent.mkdir(parents=True)
        path.write_text("127.0.0.1:1")
        assert "address" in kinds(doctor("--fix")[1])
        assert not path.exists()
        place.record("other", UID[::-1])
        path.write_text("10.0.0.1:6379")
        assert "address" not in kinds(doctor("--fix")[1])
        assert path.exists()


def test_what_can_not_be_removed_is_told_and_the_rest_goes_on(
    place: Place, doctor: Doctor, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = place.record("demo", UID)
    Path(record.runtime_dir).mkdir()
    past_run(place, "other")
    place.session("hel-worker_1", SESSION)
    really = shutil.rmtree

    def refuse(path: Path) -> None:
        if path.parent == place.run:
            raise PermissionError(13, "Permission denied", str(path))
        really(path)

    monkeypatch.setattr("heliostat.cli.doctor.folders.shutil.rmtree", refuse)
    code, found = doctor("--fix")
    assert code == 1
    assert [(one["kind"], one["fixed"]) for one in found] == [
        ("temp folder", True),
        ("runtime folder", False),
        ("record", False),
    ]
    assert "Permission denied" in found[1]["outcome"]


def test_the_table_says_what_to_do(place: Place) -> None:
    place.record("demo", UID)
    place.session("hel-worker_1", SESSION)
    shown = CliRunner().invoke(cli, ["doctor"])
    assert shown.exit_code == 1
    lines = shown.stdout.splitlines()
    assert lines[0].split() == ["kind", "cluster", "what", "why", "remedy"]
    assert any(line.startswith("record") and line.endswith("--fix") for line in lines)
    assert any(
        line.startswith("temp folder") and "by hand, if you know better: rm -r" in line for line in lines
    )
    assert "`heliostat doctor --fix` cleans up what it can" in shown.stderr
    fixed = CliRunner().invoke(cli, ["doctor", "--fix"])
    assert any(
        line.startswith("record") and line.endswith("cleaned up") for line in fixed.stdout.splitlines()
    )


def test_and_so_it_does_where_there_is_nothing(place: Place) -> None:
    assert CliRunner().invoke(cli, ["doctor"]).stdout == "nothing of yours is astray on this host\n"
