"""What a cluster leaves behind when all but its workers is killed: found, ended, and nothing else is."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from heliostat.cli.start import StartOptions, start_cluster
from heliostat.cli.system import tagged_processes
from heliostat.config.record import read_record
from tests.integration.cluster.conftest import CLUSTER, Cluster, environment_of, places_of, until

pytestmark = [pytest.mark.integration, pytest.mark.timeout(200)]


@pytest.fixture
def strangers() -> Iterator[list[subprocess.Popen[bytes]]]:
    """Processes that are none of ours: one without a tag, and one of a cluster that nobody knows."""
    tagged = {**os.environ, "HELIOSTAT_CLUSTER_UID": "ab" * 16, "HELIOSTAT_INSTANCE_ID": "lx.0"}
    found = [
        subprocess.Popen(["sleep", "300"]),
        subprocess.Popen(["sleep", "300"], env=tagged),
    ]
    yield found
    for process in found:
        process.kill()
        process.wait(10)


def kill_all_but_workers(found: Cluster) -> None:
    """Stop them first: who sees its parent die would have time to clean up."""
    ours = [pid for pid in found.processes() if "HELIOSTAT_INSTANCE_ID" not in environment_of(pid)]
    workers = {os.getsid(pid) for pid in found.processes() if pid not in ours}
    for number in (signal.SIGSTOP, signal.SIGKILL):
        for pid in ours:
            with contextlib.suppress(ProcessLookupError):
                # A worker's own daemons hide their environment, but not their session.
                if os.getsid(pid) not in workers:
                    os.kill(pid, number)


def doctor(*arguments: str) -> list[dict[str, Any]]:
    argv = [sys.executable, "-m", "heliostat.cli.main", "doctor", "--json", *arguments]
    ran = subprocess.run(argv, capture_output=True, text=True, timeout=90, check=False)
    assert ran.returncode in (0, 1), ran.stderr
    return list(json.loads(ran.stdout))


def test_workers_of_a_cluster_that_was_killed_are_found_and_ended(
    tmp_path: Path, strangers: list[subprocess.Popen[bytes]]
) -> None:
    path = tmp_path / "cluster.yaml"
    path.write_text(CLUSTER.format(name="killed", workers=1, idle_timeout_s=600, orphan_timeout_s=300))
    record = start_cluster(path, options=StartOptions(workers=1), say=print)
    found = Cluster(record, path)
    until(lambda: found.running() or None, "a worker", 90)
    assert [one for one in doctor("--fix") if one["cluster"] == "killed"] == []
    assert found.running()
    temp = Path(f"/tmp/hel-{record.cluster_uid[:8]}")

    kill_all_but_workers(found)
    looked = [one for one in doctor() if one["cluster"] == "killed"]
    assert {one["kind"] for one in looked} >= {"process", "temp folder", "runtime folder", "record"}
    assert all(one["certain"] for one in looked)
    assert temp.exists()
    assert tagged_processes("HELIOSTAT_CLUSTER_UID", record.cluster_uid)

    cleaned = [one for one in doctor("--fix") if one["cluster"] == "killed"]
    assert [one["outcome"] for one in cleaned] == ["cleaned up"] * len(cleaned)
    assert tagged_processes("HELIOSTAT_CLUSTER_UID", record.cluster_uid) == []
    assert read_record(places_of("killed").record) is None
    assert not temp.exists()
    assert not Path(record.runtime_dir).exists()
    assert [one for one in doctor() if one["cluster"] == "killed"] == []
    assert [process.poll() for process in strangers] == [None, None]
