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
from heliostat.config.places import state_places, state_root
from heliostat.config.record import ClusterRecord, read_record
from tests.integration.cluster.conftest import CLUSTER, Cluster, cluster, until

pytestmark = [pytest.mark.integration, pytest.mark.timeout(200)]


def text(name: str, **changed: object) -> str:
    values = {"name": name, "workers": 1, "idle_timeout_s": 600, "orphan_timeout_s": 8, **changed}
    return CLUSTER.format(**values)


def workers_of(record: ClusterRecord) -> list[int]:
    ours = tagged_processes("HELIOSTAT_CLUSTER_UID", record.cluster_uid)
    return [pid for pid in ours if b"HELIOSTAT_INSTANCE_ID=" in _environ(pid)]


def _environ(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return b""


def with_a_worker(found: Cluster) -> None:
    until(lambda: found.running() or None, "a worker", 90)


def test_without_a_controller_idle_workers_end_by_themselves(tmp_path: Path) -> None:
    with cluster(tmp_path, text("orphans"), workers=1) as found:
        with_a_worker(found)
        # What makes a restart hopeless: the applied file is broken, so no controller comes back.
        places = state_places(state_root(os.environ, home=Path.home()), "orphans")
        places.config.write_text("not: [a cluster")
        os.kill(found.status().controller_pid, signal.SIGKILL)
        until(lambda: not workers_of(found.record) or None, "end of the orphan", 8 + 40)


def test_a_dead_head_is_said_waited_for_and_cleaned_up(tmp_path: Path) -> None:
    with cluster(tmp_path, text("headless"), workers=1) as found:
        with_a_worker(found)
        record = read_record(state_places(state_root(os.environ, home=Path.home()), "headless").record)
        assert record is not None
        assert record.head is not None
        for pid in tagged_processes("HELIOSTAT_HEAD", record.cluster_uid):
            # Some end by themselves as soon as the first of them is gone.
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        until(lambda: found.status().phase == "head lost" or None, "word of it", 20)
        until(lambda: not found.processes() or None, "end of everything", 90)


def test_a_foreground_cluster_goes_with_its_terminal(tmp_path: Path) -> None:
    path = tmp_path / "cluster.yaml"
    path.write_text(text("attached"))
    up = subprocess.Popen(
        [sys.executable, "-m", "heliostat.cli.main", "up", str(path)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    places = state_places(state_root(os.environ, home=Path.home()), "attached")
    record = until(lambda: _up(places.record), "a cluster", 60)
    up.kill()
    up.wait(10)
    until(lambda: not tagged_processes("HELIOSTAT_CLUSTER_UID", record.cluster_uid) or None, "its end", 60)
    assert read_record(places.record) is None


def test_ctrl_c_takes_a_foreground_cluster_down(tmp_path: Path) -> None:
    path = tmp_path / "cluster.yaml"
    path.write_text(text("interrupted"))
    up = subprocess.Popen(
        [sys.executable, "-m", "heliostat.cli.main", "up", str(path), "--workers", "1"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    places = state_places(state_root(os.environ, home=Path.home()), "interrupted")
    record = until(lambda: _up(places.record), "a cluster", 60)
    found = Cluster(record, path)
    with_a_worker(found)
    up.send_signal(signal.SIGINT)
    output, _ = up.communicate(timeout=90)
    assert "interrupted is down" in output
    assert tagged_processes("HELIOSTAT_CLUSTER_UID", record.cluster_uid) == []


def test_run_keeps_the_scripts_exit_code_and_cleans_up(tmp_path: Path) -> None:
    path = tmp_path / "cluster.yaml"
    path.write_text(text("runner"))
    script = "import ray, sys; ray.init(address='auto'); sys.exit(7)"
    argv = [sys.executable, "-m", "heliostat.cli.main", "run", str(path), "--", sys.executable, "-c", script]
    ran = subprocess.run(argv, capture_output=True, text=True, timeout=120, check=False)
    assert ran.returncode == 7, ran.stderr
    places = state_places(state_root(os.environ, home=Path.home()), "runner")
    assert read_record(places.record) is None


def _up(path: Path) -> ClusterRecord | None:
    record = read_record(path)
    if record is None or record.wrapper is None:
        return None
    found = Cluster(record, path)._status()
    return record if found is not None and found.phase == "running" else None
