from __future__ import annotations

import json
import os
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from heliostat.config import record
from heliostat.config.record import (
    ClusterRecord,
    HeadJob,
    ProcessMark,
    create_record,
    list_records,
    read_record,
    remove_record,
    write_record,
)
from heliostat.model.gcs_storage import GcsStorage
from heliostat.ports.errors import HeliostatError

RECORD = ClusterRecord(
    cluster_name="demo",
    cluster_uid="u1",
    owner="ada@host",
    created_at_s=1_700_000_000.5,
    source="/home/ada/demo.yaml",
    host="host",
    runtime_dir="/run/x",
    token_path="/home/ada/.ray/auth_token",
    ray_version="2.60.0",
    python_version="3.11",
)


def _with(**changes: object) -> str:
    return json.dumps(asdict(RECORD) | changes)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    assert read_record(tmp_path / "cluster.json") is None
    write_record(tmp_path / "cluster.json", RECORD)
    assert read_record(tmp_path / "cluster.json") == RECORD
    assert [path.name for path in tmp_path.iterdir()] == ["cluster.json"]
    assert (tmp_path / "cluster.json").stat().st_mode & 0o077 == 0


def test_a_process_is_a_number_and_a_start(tmp_path: Path) -> None:
    running = replace(RECORD, head=ProcessMark(12, 345), phase="running")
    write_record(tmp_path / "cluster.json", running)
    assert read_record(tmp_path / "cluster.json") == running


def test_where_the_state_is_kept_is_written_too(tmp_path: Path) -> None:
    kept = replace(RECORD, gcs_storage=GcsStorage("h", 6379, tls=True, password_file="/p", ca_cert="/c"))
    write_record(tmp_path / "cluster.json", kept)
    assert read_record(tmp_path / "cluster.json") == kept


def test_a_head_may_be_a_job_with_a_lease(tmp_path: Path) -> None:
    queued = replace(RECORD, job=HeadJob("", "/home/ada/head.slurm.log"))
    write_record(tmp_path / "cluster.json", queued)
    assert read_record(tmp_path / "cluster.json") == queued
    running = replace(RECORD, job=HeadJob("123", "/home/ada/head.slurm.log", 1_700_003_600.0))
    write_record(tmp_path / "cluster.json", running)
    assert read_record(tmp_path / "cluster.json") == running


def test_of_two_that_create_a_record_one_succeeds(tmp_path: Path) -> None:
    path = tmp_path / "cluster.json"
    assert create_record(path, RECORD)
    assert not create_record(path, replace(RECORD, cluster_uid="u2"))
    assert read_record(path) == RECORD
    assert [one.name for one in tmp_path.iterdir()] == ["cluster.json"]
    with pytest.raises(HeliostatError, match="can't be written"):
        create_record(tmp_path / "missing" / "cluster.json", RECORD)


def test_a_lost_answer_of_the_file_server_is_no_refusal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = os.link

    def done_but_refused(source: Path, target: Path) -> None:
        link(source, target)
        raise FileExistsError

    monkeypatch.setattr(record.os, "link", done_but_refused)
    assert create_record(tmp_path / "cluster.json", RECORD)
    assert not create_record(tmp_path / "cluster.json", replace(RECORD, cluster_uid="u2"))


def test_only_the_record_that_is_meant_is_removed(tmp_path: Path) -> None:
    path = tmp_path / "cluster.json"
    remove_record(path, "u1")
    write_record(path, RECORD)
    remove_record(path, "u2")
    assert read_record(path) == RECORD
    remove_record(path, "u1")
    assert list(tmp_path.iterdir()) == []


def test_a_record_that_another_host_has_replaced_meanwhile_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, following = tmp_path / "cluster.json", replace(RECORD, cluster_uid="u2")
    write_record(path, RECORD)
    found = record._is_of

    def read_before_it_changed(path: Path, cluster_uid: str) -> bool:
        answer = found(path, cluster_uid)
        if path.name == "cluster.json":
            write_record(path, following)
        return answer

    monkeypatch.setattr(record, "_is_of", read_before_it_changed)
    remove_record(path, "u1")
    assert read_record(path) == following
    assert [one.name for one in tmp_path.iterdir()] == ["cluster.json"]


def test_a_record_of_the_previous_version_is_read(tmp_path: Path) -> None:
    found = read_record(Path(__file__).parent / "previous" / "cluster-1.json")
    assert found is not None
    assert (found.cluster_name, found.client_port, found.job) == ("prev", 10000, None)
    assert found.wrapper == ProcessMark(13308, 4835363)
    assert found.format == record.FORMAT == 1


def test_a_record_of_a_newer_format_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "demo" / "cluster.json"
    path.parent.mkdir()
    path.write_text(_with(format=2))
    with pytest.raises(HeliostatError, match=r"newer heliostat \(format 2, this one knows 1\)"):
        read_record(path)
    assert "newer heliostat" in list_records(tmp_path)[1][0]


def test_keys_of_a_newer_version_are_passed_over(tmp_path: Path) -> None:
    write_record(tmp_path / "cluster.json", RECORD)
    path = tmp_path / "cluster.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "colour": "blue"}))
    assert read_record(tmp_path / "cluster.json") == RECORD


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "it is not JSON"),
        ('{"cluster_name": "demo"', "it is not JSON"),
        ("[]", "it holds no object"),
        ("{}", "cluster_name: "),
        (json.dumps({"cluster_name": 5}), "cluster_name: input should be a valid string"),
        (_with(created_at_s="now"), "created_at_s: input should be a valid integer"),
        (_with(head=7), "head: input should be an object or null"),
        (_with(head={"pid": True, "start_ticks": 1}), "head: pid: input should be a valid integer"),
        (_with(job={"job_id": 7}), "job: job_id: input should be a valid string"),
        (_with(head={"pid": 1}), "head: start_ticks: field required"),
    ],
)
def test_a_damaged_record_says_what_to_do(tmp_path: Path, text: str, why: str) -> None:
    (tmp_path / "cluster.json").write_text(text)
    with pytest.raises(HeliostatError) as caught:
        read_record(tmp_path / "cluster.json")
    assert f"cluster.json is damaged ({why}" in str(caught.value)
    assert f"remove the folder {tmp_path}" in str(caught.value)


def test_a_failed_write_leaves_the_old_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_record(tmp_path / "cluster.json", RECORD)

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(record.os, "fsync", full)
    with pytest.raises(HeliostatError, match="can't be written: No space left"):
        write_record(tmp_path / "cluster.json", replace(RECORD, phase="running"))
    assert read_record(tmp_path / "cluster.json") == RECORD
    assert [path.name for path in tmp_path.iterdir()] == ["cluster.json"]


def test_listing_goes_past_a_damaged_one(tmp_path: Path) -> None:
    for name in ("b", "a", "broken", "ended"):
        (tmp_path / name).mkdir()
    write_record(tmp_path / "a" / "cluster.json", RECORD)
    write_record(tmp_path / "b" / "cluster.json", RECORD)
    (tmp_path / "broken" / "cluster.json").write_text("{")
    records, problems = list_records(tmp_path)
    assert records == [RECORD, RECORD]
    assert len(problems) == 1
    assert "broken/cluster.json is damaged" in problems[0]
    assert list_records(tmp_path / "none") == ([], [])
