"""The journal on disks that are full, read-only or limited: refused in words, and nothing is lost."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from heliostat.journal import SqliteJournal
from heliostat.model.instance import InstanceIntent, Intent
from heliostat.ports.errors import JournalError
from heliostat.ports.journal import Event
from tests.small_disk import SmallDisk, small_disk

pytestmark = [pytest.mark.integration, pytest.mark.timeout(60)]

INTENT = InstanceIntent("la.0", "la", "cpu", "local", "shape", Intent.WANTED, 10.0, "x" * 500)

WRITER = """
import sys
from pathlib import Path
from heliostat.journal import SqliteJournal
from tests.integration.journal.test_disks import opened, until_refused
journal = opened(Path(sys.argv[1]))
print(until_refused(journal), flush=True)
sys.stdin.read()
"""


def opened(folder: Path) -> SqliteJournal:
    return SqliteJournal(folder / "journal.db", cluster_uid="u1")


def until_refused(journal: SqliteJournal) -> int:
    """Write intents until the disk refuses one; return how many it took."""
    written = 0
    try:
        while True:
            journal.record_intents([replace(INTENT, instance_id=f"la.{written:06}")], [])
            written += 1
    except JournalError as error:
        print(error, file=sys.stderr, flush=True)
    return written


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    with small_disk(tmp_path / "disk") as found:
        yield found


def test_a_disk_that_fills_up_loses_nothing_and_goes_on_once_there_is_space(disk: SmallDisk) -> None:
    journal = opened(disk.folder)
    journal.record_intents([INTENT], [])
    disk.fill()
    written = until_refused(journal)
    journal.record_events([Event(1.0, "state", "noted")])
    with pytest.raises(JournalError, match=r"can't be written \(the disk is full\): free some space"):
        journal.record_intents([replace(INTENT, instance_id="lb.0", reason="y" * 9000)], [])
    assert len(journal.intents()) == written + 1
    disk.free()
    journal.record_intents([replace(INTENT, instance_id="lb.0")], [])
    journal.close()
    again = opened(disk.folder)
    assert len(again.intents()) == written + 2
    assert [one.text for one in again.events()] == ["noted"]


def test_kill_9_on_a_full_disk_loses_nothing_that_was_written(disk: SmallDisk) -> None:
    disk.fill()
    (disk.folder / "filler").open("r+b").truncate(1_500_000)
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, str(disk.folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as writer:
        assert writer.stdout is not None
        written = int(writer.stdout.readline())
        os.kill(writer.pid, signal.SIGKILL)
    assert written > 10
    # A controller that is started again there can look, though it can't write.
    journal = opened(disk.folder)
    assert len(journal.intents()) == written
    with pytest.raises(JournalError, match="the disk is full"):
        journal.record_intents([replace(INTENT, instance_id="lb.0", reason="y" * 9000)], [])


def test_a_new_journal_on_a_full_disk_is_refused(disk: SmallDisk) -> None:
    disk.fill()
    with pytest.raises(JournalError, match="the disk is full"):
        opened(disk.folder)


def test_a_read_only_disk_is_refused(disk: SmallDisk) -> None:
    opened(disk.folder).close()
    disk.make_read_only()
    with pytest.raises(JournalError, match=r"can't be written .* make it writable"):
        opened(disk.folder)


def test_a_limit_of_the_users_is_refused_as_a_full_disk_is(tmp_path: Path) -> None:
    """What a quota or `ulimit -f` does: the file may not grow, and the process goes on."""
    limited = f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))\n{WRITER}"
    ran = subprocess.run(
        [sys.executable, "-c", limited, str(tmp_path)], input="", capture_output=True, text=True, check=True
    )
    written = int(ran.stdout)
    assert written > 10
    assert "can't be written" in ran.stderr
    assert len(opened(tmp_path).intents()) == written
