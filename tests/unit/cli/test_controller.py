"""How a controller starts, or refuses to: its lock, its journal, its log."""

from __future__ import annotations

import asyncio
import errno
import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from heliostat.api.client import NotRunning
from heliostat.cli import controller, wrapper
from heliostat.cli.clusters import client_of, last_error
from heliostat.cli.launch_file import LaunchFile
from heliostat.cli.system import abstract_lock, controller_lock, lock_holder
from heliostat.config.places import StatePlaces
from heliostat.config.record import ClusterRecord, write_record
from heliostat.journal import SqliteJournal
from heliostat.ports.errors import HeliostatError, JournalBusy, JournalError

HOLDER = """
import sys
from heliostat.cli.system import abstract_lock
with abstract_lock(sys.argv[1]) as held:
    print(held, flush=True)
    sys.stdin.read()
"""


@contextmanager
def held_elsewhere(what: str) -> Iterator[int]:
    """Have another process hold the lock; yields its pid."""
    argv = [sys.executable, "-c", HOLDER, what]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "True\n"
        yield holder.pid
        assert holder.stdin is not None
        holder.stdin.close()
        holder.wait(10)


@pytest.fixture
def places(state: Path, cluster: ClusterRecord) -> StatePlaces:
    """The state folder of a recorded cluster, with a launch file."""
    found = StatePlaces(state / cluster.cluster_name)
    write_record(found.record, replace(cluster, runtime_dir=str(state / "run")))
    LaunchFile([], {}, str(state / "temp"), "", cluster.cluster_uid, str(state / "run"), str(state)).write(
        found.folder
    )
    return found


def test_one_of_two_has_the_lock_and_is_known_by_its_pid() -> None:
    assert lock_holder("a lock of a test") is None
    with held_elsewhere("a lock of a test") as pid:
        assert lock_holder("a lock of a test") == pid
        with abstract_lock("a lock of a test") as held:
            assert not held
    with abstract_lock("a lock of a test") as held:
        assert held
        assert lock_holder("a lock of a test") == os.getpid()


async def test_a_second_controller_is_told_who_has_it(places: StatePlaces, cluster: ClusterRecord) -> None:
    with (
        held_elsewhere(controller_lock(cluster.cluster_uid)) as pid,
        pytest.raises(HeliostatError, match=rf"another controller of demo runs on this host: pid {pid}"),
    ):
        await controller.run(places.folder)


async def test_a_journal_that_is_no_good_is_refused_before_anything_starts(places: StatePlaces) -> None:
    places.journal.write_bytes(b"not a database" * 500)
    with pytest.raises(JournalError, match="move it away and start again"):
        await asyncio.wait_for(controller.run(places.folder), 5)


async def test_a_journal_that_another_process_has_is_refused(
    places: StatePlaces, cluster: ClusterRecord
) -> None:
    journal = SqliteJournal(places.journal, cluster_uid=cluster.cluster_uid)
    with pytest.raises(JournalBusy, match="held by another process"):
        await asyncio.wait_for(controller.run(places.folder), 5)
    journal.close()


def test_commands_say_why_no_controller_runs(places: StatePlaces, cluster: ClusterRecord) -> None:
    places.logs.mkdir()
    refusal = "the journal /x/journal.db can't be read (malformed): move it away and start again"
    lines = [
        {"event": "controller starts", "level": "info"},
        {"event": refusal, "level": "error"},
        {"event": "controller starts", "level": "info"},
    ]
    places.controller_log.write_text("".join(json.dumps(one) + "\n" for one in lines))
    silent = replace(cluster, runtime_dir=str(places.folder), created_at_s=0.0)
    with pytest.raises(NotRunning, match=r"the controller of demo can't run: the journal .* move it away"):
        client_of(silent).status()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Traceback (most recent call last):\n",
        '{"event": "an old error", "level": "error"}\n{"event": "the head answers", "level": "info"}\n',
        "[]\n",
    ],
)
def test_no_error_is_said_where_the_log_does_not_end_with_one(tmp_path: Path, text: str) -> None:
    (tmp_path / "controller.log").write_text(text)
    assert last_error(tmp_path / "controller.log", since_s=0.0) == ""
    assert last_error(tmp_path / "missing.log", since_s=0.0) == ""


def test_an_error_of_a_former_run_is_not_this_ones(tmp_path: Path) -> None:
    path = tmp_path / "controller.log"
    path.write_text('{"event": "an old error", "level": "error"}\n')
    assert last_error(path, since_s=path.stat().st_mtime - 1) == "an old error"
    assert last_error(path, since_s=path.stat().st_mtime + 1) == ""


class FullDisk(io.StringIO):
    def write(self, text: str) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    def flush(self) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")


def test_a_log_on_a_full_disk_ends_no_controller() -> None:
    full = controller.UnfailingLog(FullDisk())
    assert full.write("a line\n") == 0
    full.flush()
    kept = io.StringIO()
    controller.UnfailingLog(kept).write("a line\n")
    assert kept.getvalue() == "a line\n"


def test_nor_a_wrapper(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", FullDisk())
    wrapper._say("a line")
