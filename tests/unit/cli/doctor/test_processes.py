"""Processes that are ours and astray end; those that live, or may live, are left alone."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from heliostat.cli.doctor import processes
from heliostat.cli.system import SystemClock, abstract_lock, controller_lock, process_start_ticks, up_lock
from heliostat.config.record import HeadJob, ProcessMark, write_record
from heliostat.model.gcs_storage import GcsStorage
from tests.unit.cli.doctor.conftest import Doctor, Place, kinds
from tests.valkey import valkey

UID, OTHER = "0123456789abcdef" * 2, "fedcba9876543210" * 2


def me() -> ProcessMark:
    return ProcessMark(os.getpid(), process_start_ticks(os.getpid()) or 0)


def test_nothing_astray_is_exit_code_0(place: Place, doctor: Doctor) -> None:
    assert doctor() == (0, [])


def test_workers_and_a_head_of_a_cluster_that_is_gone_end(place: Place, doctor: Doctor) -> None:
    place.record("demo", UID)
    temp = place.session("hel-worker_1", "session_2026-01-01_00-00-00_1_1")
    worker = place.start(UID, "bootstrap.py", str(temp), instance="la.0")
    raylet = place.start(UID, "raylet", "stubborn", instance="la.0")
    head = place.start(UID, "gcs_server")
    code, found = doctor()
    assert code == 1
    assert [(one["cluster"], one["what"]) for one in found if one["kind"] == "process"] == [
        ("demo", f"the head: 1 process ({head})"),
        ("demo", f"worker la.0: 2 processes ({worker}, {raylet})"),
    ]
    assert not any(one["fixed"] for one in found)
    assert place.lives(worker)


def test_fix_ends_the_bootstrap_first_and_kills_what_is_left(
    place: Place, doctor: Doctor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "GRACE_S", 1.0)
    place.record("demo", UID)
    temp = place.session("hel-worker_1", "session_2026-01-01_00-00-00_1_1")
    worker = place.start(UID, "bootstrap.py", str(temp), instance="la.0")
    raylet = place.start(UID, "raylet", "stubborn", instance="la.0")
    head = place.start(UID, "gcs_server")
    stranger = place.start_untagged("raylet")
    code, found = doctor("--fix")
    assert (code, {one["outcome"] for one in found}) == (0, {"cleaned up"})
    assert not any(map(place.lives, (worker, raylet, head)))
    assert not temp.exists()
    assert place.lives(stranger)
    assert not (place.state / "demo" / "cluster.json").exists()
    assert doctor() == (0, [])


@pytest.mark.parametrize(
    "changes",
    [
        {"wrapper": me()},
        {"host": "another-host"},
        {"host": "", "address": "", "job": HeadJob("12", "/x/head.log")},
        {"wrapper": None, "created_at_s": None},
    ],
    ids=["its wrapper runs", "it is on another host", "its head is a job", "it is being started"],
)
def test_what_lives_or_may_live_is_not_touched(
    place: Place, doctor: Doctor, changes: dict[str, object]
) -> None:
    if "created_at_s" in changes:
        changes = {**changes, "created_at_s": SystemClock().now_s()}
    record = place.record("demo", UID, **changes)
    worker = place.start(UID, "bootstrap.py", instance="la.0")
    place.slot(Path(record.runtime_dir), "la.0", UID, pid=worker)
    place.session(f"hel-{UID[:8]}", "session_2026-01-01_00-00-00_1_1")
    _, found = doctor("--fix")
    assert not {"process", "runtime folder", "temp folder"} & set(kinds(found))
    assert place.lives(worker)
    assert (place.state / "demo" / "cluster.json").exists()
    assert Path(record.runtime_dir).exists()


@pytest.mark.parametrize("lock", ["up", "controller"])
def test_a_lock_says_that_it_lives(place: Place, doctor: Doctor, lock: str) -> None:
    place.record("demo", UID)
    worker = place.start(UID, "bootstrap.py", instance="la.0")
    name = controller_lock(UID) if lock == "controller" else up_lock(place.state / "demo")
    with abstract_lock(name) as held:
        assert held
        assert doctor("--fix") == (0, [])
    assert place.lives(worker)


def test_a_cluster_of_another_state_root_is_known_by_its_wrapper(place: Place, doctor: Doctor) -> None:
    elsewhere = place.folder / "elsewhere" / "demo"
    record = place.record("unused", OTHER)
    (place.state / "unused" / "cluster.json").unlink()
    place.launch(elsewhere, replace(record, cluster_uid=UID, runtime_dir=str(place.run / "01234567")))
    temp = place.session(f"hel-{UID[:8]}", "session_2026-01-01_00-00-00_1_1")
    wrapper = place.start(UID, "-m", "heliostat.cli.wrapper", str(elsewhere))
    worker = place.start(UID, "bootstrap.py", instance="la.0")
    place.slot(place.run / "01234567", "la.0", UID, pid=worker)
    os.utime(place.run / "01234567", (1.0, 1.0))
    assert doctor("--fix") == (0, [])
    assert place.lives(wrapper)
    assert place.lives(worker)
    assert temp.exists()
    assert (place.run / "01234567").exists()


def test_of_what_nothing_tells_here_is_only_told(place: Place, doctor: Doctor) -> None:
    worker = place.start(UID, "bootstrap.py", instance="la.0")
    code, (found,) = doctor("--fix")
    assert code == 1
    assert (found["certain"], found["outcome"], found["hint"]) == (False, "left alone", f"kill {worker}")
    assert place.lives(worker)


def test_a_worker_that_the_backend_wrote_down_is_ours_without_a_record(place: Place, doctor: Doctor) -> None:
    worker = place.start(UID, "bootstrap.py", instance="la.0")
    place.slot(place.run / "01234567", "la.0", UID, pid=worker)
    os.utime(place.run / "01234567", (1.0, 1.0))
    code, found = doctor("--fix")
    assert (code, kinds(found)) == (0, ["process", "runtime folder"])
    assert not place.lives(worker)
    assert not (place.run / "01234567").exists()


def test_a_pid_that_was_used_again_is_nobodys_worker(place: Place, doctor: Doctor) -> None:
    reused = place.start_untagged("an innocent program")
    place.slot(place.run / "01234567", "la.0", UID, pid=reused)
    place.record("demo", OTHER, wrapper=ProcessMark(reused, 1))
    _, found = doctor("--fix")
    assert "process" not in kinds(found)
    assert place.lives(reused)


def test_the_shell_that_it_runs_in_is_spared(place: Place) -> None:
    """`doctor` may be run in a shell that a task of that very cluster has opened."""
    place.record("demo", UID)
    script = f"{sys.executable} -m heliostat.cli.main doctor --fix --json; echo alive"
    environment = {**os.environ, "HELIOSTAT_CLUSTER_UID": UID, "HELIOSTAT_RUNTIME_DIR": str(place.run)}
    ran = subprocess.run(
        ["sh", "-c", script], env=environment, capture_output=True, text=True, timeout=50, check=False
    )
    assert ran.stdout.endswith("alive\n"), ran.stderr
    assert '"record"' in ran.stdout


def test_a_socket_that_somebody_listens_at_is_a_cluster_that_lives(place: Place, doctor: Doctor) -> None:
    folder = place.run / "01234567"
    folder.mkdir()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(folder / "control.sock"))
        listener.listen(1)
        os.utime(folder, (1.0, 1.0))
        assert doctor("--fix") == (0, [])
    code, found = doctor("--fix")
    assert (code, kinds(found)) == (0, ["runtime folder"])
    assert not folder.exists()


KEPT = GcsStorage("127.0.0.1", 1)


def test_a_cluster_that_has_kept_its_state_waits_for_the_next_up(place: Place, doctor: Doctor) -> None:
    place.record("demo", UID, gcs_storage=KEPT, session_name="session_1")
    worker = place.start(UID, "bootstrap.py", instance="la.0")
    for _ in range(2):
        code, (found,) = doctor("--fix")
        assert (code, found["kind"], found["cluster"]) == (1, "record", "demo")
        assert found["why"] == "it crashed, and has kept its state and perhaps its workers"
        assert "`heliostat up" in found["hint"]
    assert place.lives(worker)


def test_keys_that_are_left_of_one_that_is_down_go_with_its_record(place: Place, doctor: Doctor) -> None:
    record = place.record("demo", UID, gcs_storage=KEPT, session_name="session_1", phase="down")
    path = place.state / "demo" / "cluster.json"
    _, (found,) = doctor("--fix")
    assert f"keys RAYheliostat-{UID}@* of demo may be left in redis://127.0.0.1:1" in found["outcome"]
    assert path.exists()
    with valkey(place.folder / "valkey", password="sesame") as server:
        with server.link() as link:
            link.call("HSET", f"RAYheliostat-{UID}@KV", "field", "value")
        write_record(path, replace(record, gcs_storage=server.storage))
        assert doctor("--fix")[0] == 0
        assert server.names() == []
    assert not path.exists()
