"""`heliostat up --idle-after`: nobody need be there to take the cluster down, and nobody is cut off."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from heliostat.cli.driver import driver_environment
from heliostat.cli.launch_file import LaunchFile
from heliostat.cli.system import tagged_processes
from heliostat.config.record import ClusterRecord, read_record
from heliostat.journal import last_event
from heliostat.model.report import StatusReport
from heliostat.ports.errors import HeliostatError
from tests.integration.cluster.conftest import CLUSTER, Cluster, places_of, terminal, until

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]

NAME = f"idle-{os.getpid()}"
IDLE_AFTER_S = 10.0
HELD_S = IDLE_AFTER_S + 3.0
"""So long a driver is connected: the cluster would have gone without it, which was idle before, too."""
NOTICE_S = 2.0
"""A driver has left Ray a moment before its process has ended."""

DRIVER = """
import os, pathlib, sys, time
import ray
gate, connected = map(pathlib.Path, sys.argv[1:])
while not gate.exists():
    time.sleep(0.02)
ray.init(address="auto", logging_level="ERROR")
connected.touch()
sys.stdin.read()
"""


@contextmanager
def driver(record: ClusterRecord, gate: Path, connected: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run a driver that imports Ray now, connects once `gate` is there, and leaves when its input ends."""
    process = subprocess.Popen(
        [sys.executable, "-c", DRIVER, str(gate), str(connected)],
        env=driver_environment(record),
        stdin=subprocess.PIPE,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate(timeout=20)


def held(found: Cluster, until_s: float) -> StatusReport | None:
    status = found.status()
    assert status.phase == "running"
    return status if time.monotonic() > until_s else None


def test_it_goes_by_itself_after_its_last_driver_and_not_before(tmp_path: Path) -> None:
    text = CLUSTER.format(name=NAME, workers=1, idle_timeout_s=600, orphan_timeout_s=60)
    options = ("--workers", "1", "--idle-after", f"{IDLE_AFTER_S:g}s")
    gate, connected = tmp_path / "gate", tmp_path / "connected"
    with terminal(tmp_path, text, name=NAME, options=options) as up:
        temp_dir = Path(until(_launch, "a launch file", 60).head_temp_dir)
        # Ahead of that file it does not say all that it will.
        record = read_record(places_of(NAME).record)
        assert record is not None
        with driver(record, gate, connected) as process:
            found = up.cluster()
            gate.touch()
            until(lambda: connected.exists() or None, "a driver", 60)
            until_s = time.monotonic() + HELD_S
            status = until(lambda: held(found, until_s), "its time", HELD_S + 30)
            assert status.cluster_idle_s == 0
            assert tagged_processes("HELIOSTAT_INSTANCE_ID", status.instances[0].instance_id)
            process.communicate(timeout=30)
            left_at_s = time.time()
            assert process.returncode == 0
        assert up.ended(IDLE_AFTER_S + 60) == 0
        said = f"nobody has used the cluster for {IDLE_AFTER_S:.0f} s (--idle-after)"
        assert up.output().splitlines()[-1] == f"{NAME} is down: {said}"
    went = last_event(places_of(NAME).journal, "down")
    assert went is not None
    assert went.text == said
    assert went.at_s - left_at_s > IDLE_AFTER_S - NOTICE_S
    until(lambda: not found.processes() or None, "end of everything", 20)
    assert read_record(places_of(NAME).record) is None
    assert _launch() is None
    assert not Path(record.runtime_dir).exists()
    assert not temp_dir.exists()


def _launch() -> LaunchFile | None:
    try:
        return LaunchFile.read(places_of(NAME).folder)
    except HeliostatError:
        return None
