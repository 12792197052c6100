"""An instance's folder is there with all that it holds, or not at all; and what logs say."""

from __future__ import annotations

import errno
import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from heliostat.ports.errors import Unavailable
from heliostat.providers.local import records as records_module
from heliostat.providers.local import words
from heliostat.providers.local.lifecycle import parse_status
from heliostat.providers.local.processes import Identity
from heliostat.providers.local.records import End, Record, Records, Stop


def record(instance_id: str = "l1.0", cluster_uid: str = "uid") -> Record:
    return Record(
        instance_id=instance_id,
        cluster_uid=cluster_uid,
        node_type="gpu",
        shape_id="s1",
        native_id="w1",
        gpus=("1", "MIG-2"),
        units={"CPU": 0.5, "GPU": 2},
        grace_s=35.0,
        boot_id="boot",
        claimed_at_s=1.7e9,
        claimed_s=12.5,
    )


def test_a_record_comes_back_as_it_was(tmp_path: Path) -> None:
    records = Records(tmp_path / "i")
    assert records.all("uid") == []
    assert records.claim(record(), {"a": 1})
    assert records.all("uid") == [record()]
    full = replace(
        record(), process=Identity(5, 6), stop=Stop(1.0, 2.0), end=End(-9, 3.0, "killed", True, True)
    )
    records.save(full)
    assert records.all("uid") == [full]
    assert sorted(os.listdir(tmp_path / "i/l1.0")) == ["slot.json", "start.json"]
    assert (tmp_path / "i/l1.0").stat().st_mode & 0o777 == 0o700


def test_a_record_of_another_version_is_read(tmp_path: Path) -> None:
    """A worker of the previous version is taken over; what a newer one adds breaks nothing."""
    text = (Path(__file__).parent / "previous" / "slot-1.json").read_text()
    place = tmp_path / "licynuaf.0"
    place.mkdir()
    uid = json.loads(text)["cluster_uid"]
    newer = {**json.loads(text), "colour": "blue", "process": {"pid": 1, "start_ticks": 2, "more": 3}}
    for content in (text, json.dumps(newer)):
        (place / "slot.json").write_text(content)
        (found,) = Records(tmp_path).all(uid)
        assert (found.native_id, found.end, found.boot_id[:4]) == ("w1", None, "0fc3")
        assert found.process is not None


def test_only_the_first_claim_counts(tmp_path: Path) -> None:
    records = Records(tmp_path)
    assert records.claim(record(), {})
    assert not records.claim(replace(record(), native_id="w9"), {})
    assert [one.native_id for one in records.all("uid")] == ["w1"]
    assert os.listdir(tmp_path) == ["l1.0"]


def test_another_clusters_records_are_not_ours(tmp_path: Path) -> None:
    records = Records(tmp_path)
    records.claim(record("l2.0", "theirs"), {})
    assert records.all("uid") == []


def test_a_broken_record_is_listed_as_ended_so_that_it_can_be_terminated(tmp_path: Path) -> None:
    records = Records(tmp_path)
    records.claim(record(), {})
    for text in ("", "{", "[]", '{"instance_id": "l1.0"}'):
        (tmp_path / "l1.0/slot.json").write_text(text)
        (broken,) = records.all("uid")
        assert broken.instance_id == broken.native_id == "l1.0"
        assert broken.end is not None
        assert "can't be read" in broken.end.detail


def test_what_a_crash_left_half_made_is_swept(tmp_path: Path) -> None:
    records = Records(tmp_path)
    (tmp_path / ".new-l1.0").mkdir()
    (tmp_path / ".new-l1.0/slot.json").write_text("{}")
    assert records.all("uid") == []
    records.sweep()
    assert os.listdir(tmp_path) == []
    Records(tmp_path / "nowhere").sweep()


@pytest.mark.parametrize("name", ["", ".", "..", "../x", "a/b", ".new-l1.0", "a..b", "l1.0\n"])
def test_names_that_are_no_instance_ids(name: str, tmp_path: Path) -> None:
    (tmp_path / "i").mkdir()
    assert not Records(tmp_path / "i").exists(name)


@pytest.mark.parametrize(
    ("number", "words_for_people"),
    [
        (errno.ENOSPC, "is full: free some space"),
        (errno.EDQUOT, "is full: free some space"),
        (errno.EROFS, "can't be written (Read-only file system): make it writable"),
        (errno.EIO, "Input/output error"),
    ],
)
def test_errors_of_the_disk_are_worded(
    number: int, words_for_people: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    records = Records(tmp_path)
    monkeypatch.setattr(records_module, "_write", fail)
    with pytest.raises(Unavailable) as refusal:
        records.claim(record(), {})
    assert words_for_people in str(refusal.value)
    assert os.listdir(tmp_path) == []


def test_how_an_end_reads() -> None:
    log = ["bootstrap: waiting for the raylet", "bootstrap: the raylet has gone", "raylet: noise"]
    assert words.detail(3, log) == "exit code 3: bootstrap: the raylet has gone"
    assert words.detail(0, ["last line"]) == "ended by itself: last line"
    assert words.detail(-15, []) == "ended by SIGTERM"
    assert words.detail(-9, []).startswith("killed (SIGKILL;")
    assert words.detail(None, []).startswith("ended while no controller ran")
    assert words.detail(-99, []) == "ended by signal 99"


def test_last_lines(tmp_path: Path) -> None:
    log = tmp_path / "log"
    assert words.last_lines(log, 5) == []
    log.write_bytes(b"one\n\ntwo\n  \nthree \xff\n")
    assert words.last_lines(log, 2) == ["two", "three \ufffd"]
    assert words.last_lines(log, 0) == []


def test_a_log_that_grew_is_cut_to_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(words, "LOG_MOST_BYTES", 100)
    monkeypatch.setattr(words, "LOG_KEPT_BYTES", 10)
    log = tmp_path / "log"
    log.write_bytes(b"x" * 100)
    words.trim(log)
    assert log.stat().st_size == 100
    with log.open("ab") as writer:
        writer.write(b"0123456789")
        writer.flush()
        words.trim(log)
        writer.write(b"more")
    assert log.read_bytes() == b"0123456789more"
    words.trim(tmp_path / "none")


def test_old_logs_of_instances_go_and_no_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(words, "LOGS_KEPT", 2)
    for age, name in enumerate(["la.0.log", "lb.0.log", "lc.1.log", "head.log", "controller.log"]):
        (tmp_path / name).write_text("")
        os.utime(tmp_path / name, (1000 + age, 1000 + age))
    words.prune(tmp_path, keep=())
    assert sorted(os.listdir(tmp_path)) == ["controller.log", "head.log", "lb.0.log", "lc.1.log"]
    words.prune(tmp_path / "none", keep=())


def test_the_log_of_an_instance_that_is_there_stays_however_old(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(words, "LOGS_KEPT", 1)
    for age, name in enumerate(["la.0.log", "la.01.log", "lb.0.log"]):
        (tmp_path / name).write_text("")
        os.utime(tmp_path / name, (1000 + age, 1000 + age))
    words.prune(tmp_path, keep={"la.0"})
    assert sorted(os.listdir(tmp_path)) == ["la.0.log", "lb.0.log"]


def test_the_bootstraps_status() -> None:
    assert parse_status('{"state": "running"}') == {"state": "running"}
    assert parse_status("running\n") == {"state": "running"}
    assert parse_status('["odd"]') == {}
