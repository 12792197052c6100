"""How a cluster ends when nobody takes it down: lost controllers, heads and terminals."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from heliostat.cli.system import tagged_processes
from heliostat.config.record import ClusterRecord, read_record
from tests.integration.cluster.conftest import (
    CLUSTER,
    Cluster,
    cluster,
    environment_of,
    places_of,
    terminal,
    until,
)

pytestmark = [pytest.mark.integration, pytest.mark.timeout(200)]


def text(name: str, **changed: object) -> str:
    values = {"name": name, "workers": 1, "idle_timeout_s": 600, "orphan_timeout_s": 8, **changed}
    return CLUSTER.format(**values)


def workers_of(record: ClusterRecord) -> list[int]:
    ours = tagged_processes("HELIOSTAT_CLUSTER_UID", record.cluster_uid)
    return [pid for pid in ours if "HELIOSTAT_INSTANCE_ID" in environment_of(pid)]


def with_a_worker(found: Cluster) -> None:
    until(lambda: found.running() or None, "a worker", 90)


def test_without_a_controller_idle_workers_end_by_themselves(tmp_path: Path) -> None:
    with cluster(tmp_path, text("orphans"), workers=1) as found:
        with_a_worker(found)
        # What makes a restart hopeless: the applied file is broken, so no controller comes back.
        places = places_of("orphans")
        places.config.write_text("not: [a cluster")
        os.kill(found.status().controller_pid, signal.SIGKILL)
        until(lambda: not workers_of(found.record) or None, "end of the orphan", 8 + 40)


def test_a_dead_head_is_said_waited_for_and_cleaned_up(tmp_path: Path) -> None:
    with cluster(tmp_path, text("headless"), workers=1) as found:
        with_a_worker(found)
        record = read_record(places_of("headless").record)
        assert record is not None
        assert record.head is not None
        for pid in tagged_processes("HELIOSTAT_HEAD", record.cluster_uid):
            # Some end by themselves as soon as the first of them is gone.
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        until(lambda: found.status().phase == "head lost" or None, "word of it", 20)
        until(lambda: not found.processes() or None, "end of everything", 90)


def test_a_foreground_cluster_goes_with_its_terminal(tmp_path: Path) -> None:
    with terminal(tmp_path, text("attached"), name="attached") as up:
        found = up.cluster()
        up.process.kill()
        up.process.wait(10)
        until(lambda: not found.processes() or None, "its end", 60)
    assert read_record(places_of("attached").record) is None


def test_ctrl_c_takes_a_foreground_cluster_down(tmp_path: Path) -> None:
    with terminal(tmp_path, text("interrupted"), name="interrupted", options=("--workers", "1")) as up:
        found = up.cluster()
        with_a_worker(found)
        assert up.interrupted() == 0
        assert "interrupted is down" in up.output()
        assert found.processes() == []


def test_run_keeps_the_scripts_exit_code_and_cleans_up(tmp_path: Path) -> None:
    path = tmp_path / "cluster.yaml"
    path.write_text(text("runner"))
    script = "import ray, sys; ray.init(address='auto'); sys.exit(7)"
    argv = [sys.executable, "-m", "heliostat.cli.main", "run", str(path), "--", sys.executable, "-c", script]
    ran = subprocess.run(argv, capture_output=True, text=True, timeout=120, check=False)
    assert ran.returncode == 7, ran.stderr
    assert read_record(places_of("runner").record) is None
