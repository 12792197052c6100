"""A new version takes over a running cluster: its wrapper and workers are still those of an earlier one."""

from __future__ import annotations

import io
import os
import shutil
import signal
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from heliostat.cli.start import stop_cluster
from tests.integration.cluster.conftest import CLUSTER, Cluster, came_up, finished, until
from tests.unit.repo import tree

pytestmark = [pytest.mark.integration, pytest.mark.nightly]

EARLIER = "5ce3c8a5655d5dee2ab8b13e0043fc7d41756f14"
"""The last commit whose journal was of version 1."""

NEXT = "next"
"""What this version calls itself here: the number may be the same."""

LASTS = """
@ray.remote(num_cpus=1, max_retries=0)
def lasts(path):
    while not os.path.exists(path):
        time.sleep(0.2)
    return os.getpid()
print("done by", ray.get(lasts.remote({path!r})))
"""


def unpack_earlier(folder: Path) -> None:
    """Put the package as it was at `EARLIER` into a folder; skip the test where git does not have it."""
    argv = ["git", "-C", str(tree.ROOT), "archive", EARLIER, "src/heliostat"]
    found = subprocess.run(argv, capture_output=True, check=False)
    if found.returncode != 0:
        pytest.skip(f"no history here that goes back to {EARLIER[:9]}: {found.stderr.decode().strip()}")
    with tarfile.open(fileobj=io.BytesIO(found.stdout)) as tar:
        tar.extractall(folder, filter="data")


def upgrade(package: Path) -> None:
    """Put this version in the place of the earlier one, under the feet of what runs."""
    shutil.rmtree(package)
    shutil.copytree(tree.ROOT / "src" / "heliostat", package)
    with (package / "__init__.py").open("a", encoding="utf-8") as module:
        module.write(f"__version__ = {NEXT!r}\n")


def up(folder: Path, name: str, *, installed: Path) -> Cluster:
    path = folder / "cluster.yaml"
    path.write_text(CLUSTER.format(name=name, workers=2, idle_timeout_s=3, orphan_timeout_s=120))
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    argv = [sys.executable, "-m", "heliostat.cli.main", "up", str(path), "--detach"]
    subprocess.run(argv, env=environment, timeout=120, check=True)
    return Cluster(until(lambda: came_up(name), "a cluster", 60), path)


def launches(found: Cluster) -> list[object]:
    return [one.data["launch_id"] for one in found.client.events(limit=5000) if one.kind == "launch"]


@pytest.mark.timeout(600)
def test_this_version_takes_over_from_an_earlier_one(tmp_path: Path) -> None:
    unpack_earlier(tmp_path)
    found = up(tmp_path, f"upgraded-{os.getpid()}", installed=tmp_path / "src")
    try:
        over = tmp_path / "over"
        driver = found.driver(LASTS.format(path=str(over)))
        (worker,) = until(lambda: found.running() or None, "a worker", 90)
        before, old = launches(found), found.status()
        upgrade(tmp_path / "src" / "heliostat")
        os.kill(old.controller_pid, signal.SIGKILL)
        until(lambda: found.status().version == NEXT or None, "controller of this version", 60)
        # It has looked at Ray and at the backend, and would have launched or let go by now.
        until(lambda: found.status().uptime_s > 20 or None, "controller that has seen it all", 60)
        assert found.running() == [worker]
        assert launches(found) == before
        assert driver.poll() is None
        over.touch()
        assert "done by" in finished(driver, 60)
        found.wait_empty()
    finally:
        stop_cluster(found.record, say=print)
    assert found.processes() == []
