"""Processes are known by pid and start time; nothing else is ever signalled."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from heliostat.providers.local import processes
from heliostat.providers.local.processes import (
    CLUSTER_TAG,
    INSTANCE_TAG,
    Identity,
    Stat,
    families,
    is_alive,
    parse_stat,
    parse_tags,
    reap,
    send,
    spawn,
    stat_of,
)

DEADLINE_S = 20.0


def wait_until(condition: object) -> None:
    assert callable(condition)
    deadline_s = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline_s, "the condition never held"
        time.sleep(0.01)


@pytest.fixture
def sleeper(tmp_path: Path) -> Iterator[Identity]:
    environment = {CLUSTER_TAG: f"uid-{tmp_path}", INSTANCE_TAG: "l1.0"}
    process = spawn(["/bin/sleep", "300"], environment=environment, log=tmp_path / "log")
    wait_until(lambda: Path(f"/proc/{process.pid}/comm").read_text().strip() == "sleep")
    yield process
    send(process, signal.SIGKILL)
    wait_until(lambda: not is_alive(process))
    reap(process)


def test_stat_with_brackets_in_the_name() -> None:
    fields = "S 7 1 1 0 -1 4194560 100 0 0 0 1 2 0 0 20 0 1 0 987654 1000 10"
    assert parse_stat(f"12 (odd) name (x)) {fields}") == Stat("S", 7, 1, 987654)


@pytest.mark.parametrize(("off", "expected"), [(0, {"l9.0"}), (-1, set())])
def test_a_session_counts_only_while_its_leader_is_the_one_we_know(
    off: int, expected: set[str], tmp_path: Path
) -> None:
    leader = spawn(["/bin/sleep", "300"], environment={"PATH": "/bin"}, log=tmp_path / "log")
    wait_until(lambda: Path(f"/proc/{leader.pid}/comm").read_text().strip() == "sleep")
    try:
        known = Identity(leader.pid, leader.start_ticks + off)
        assert set(families("uid", {"l9.0": known})) == expected
    finally:
        send(leader, signal.SIGKILL)
        wait_until(lambda: not is_alive(leader))
        reap(leader)


def test_the_boots_id_is_read_once_and_asked_for_again_where_it_could_not_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "boot_id"
    monkeypatch.setattr(processes, "BOOT_ID", path)
    processes._read_boot_id.cache_clear()
    try:
        assert processes.boot_id() == ""
        path.write_text("one\n")
        assert processes.boot_id() == "one"
        path.unlink()
        assert processes.boot_id() == "one"
    finally:
        processes._read_boot_id.cache_clear()


def test_tags_need_both_names_and_the_first_counts() -> None:
    both = f"A=1\0{CLUSTER_TAG}=u\0{INSTANCE_TAG}=l1.0\0{INSTANCE_TAG}=l9.9\0".encode()
    assert parse_tags(both) == ("u", "l1.0")
    assert parse_tags(f"{CLUSTER_TAG}=u\0".encode()) is None
    assert parse_tags(b"") is None


def test_our_own_process_is_alive_only_with_its_own_start_time() -> None:
    stat = stat_of(os.getpid())
    assert stat is not None
    assert is_alive(Identity(os.getpid(), stat.start_ticks))
    assert not is_alive(Identity(os.getpid(), stat.start_ticks + 1))


def test_a_pid_that_was_used_again_is_not_signalled(sleeper: Identity) -> None:
    assert not send(Identity(sleeper.pid, sleeper.start_ticks - 5), signal.SIGKILL)
    assert is_alive(sleeper)


def test_a_spawned_process_has_a_session_of_its_own_and_no_open_files_of_ours(
    sleeper: Identity, tmp_path: Path
) -> None:
    assert os.getsid(sleeper.pid) == sleeper.pid
    files = {number: os.readlink(f"/proc/{sleeper.pid}/fd/{number}") for number in (0, 1, 2)}
    assert files == {0: "/dev/null", 1: str(tmp_path / "log"), 2: str(tmp_path / "log")}
    # While it starts, the loader has a library open for a moment.
    wait_until(lambda: len(os.listdir(f"/proc/{sleeper.pid}/fd")) == 3)
    assert (tmp_path / "log").stat().st_mode & 0o777 == 0o600


def test_tagged_finds_the_family_of_our_cluster_only(sleeper: Identity, tmp_path: Path) -> None:
    # For a moment a new process has no environment to be read yet.
    wait_until(lambda: families(f"uid-{tmp_path}", {}) == {"l1.0": [sleeper]})
    assert families("uid-of-another", {}) == {}


def test_a_dead_child_is_collected_once_with_its_exit_code(tmp_path: Path) -> None:
    process = spawn([sys.executable, "-S", "-c", "raise SystemExit(7)"], environment={}, log=tmp_path / "l")
    wait_until(lambda: not is_alive(process))
    assert reap(process) == 7
    assert stat_of(process.pid) is None
    assert reap(process) is None


def test_a_process_that_is_no_child_of_ours_is_left_to_its_parent() -> None:
    script = (
        "import subprocess; p = subprocess.Popen(['/bin/sleep', '300']); print(p.pid, flush=True); p.wait()"
    )
    with subprocess.Popen([sys.executable, "-S", "-c", script], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        stat = stat_of(pid)
        assert stat is not None
        assert reap(Identity(pid, stat.start_ticks)) is None
        assert send(Identity(pid, stat.start_ticks), signal.SIGKILL)


def test_signalling_a_process_that_is_gone_is_no_error(tmp_path: Path) -> None:
    process = spawn(["/bin/true"], environment={}, log=tmp_path / "log")
    wait_until(lambda: not is_alive(process))
    assert not send(process, signal.SIGTERM)
    reap(process)
    assert not send(process, signal.SIGTERM)
