"""`provider.autoscaler: ray` with real Ray: its own autoscaler decides, Heliostat brings the workers."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from heliostat.cli.autoscaler import V1_VARIABLE
from heliostat.cli.driver import driver_environment
from tests.integration.cluster.conftest import Cluster, cluster, environment_of, finished, places_of, until

pytestmark = [pytest.mark.integration]

CLUSTER = """
cluster_name: {name}
max_workers: {workers}
idle_timeout_minutes: 0.25
upscaling_speed: 10
provider:
  type: external
  module: heliostat.launcher.NodeProvider
  autoscaler: ray
  head_timeout_s: 20
  backends: {{local: {{cpus: 8}}}}
available_node_types:
  head: {{resources: {{CPU: 0}}, node_config: {{backend: local}}}}
{types}
head_node_type: head
"""
CPU = "  cpu: {{resources: {{CPU: 1}}, max_workers: {workers}, node_config: {{backend: local}}}}"

SQUARES = """
@ray.remote(num_cpus=1)
def square(n, seconds):
    time.sleep(seconds)
    return n * n, ray.get_runtime_context().get_node_id()
found = ray.get([square.remote(n, {seconds}) for n in range({tasks})])
print('sum', sum(n for n, _ in found), 'nodes', len({{node for _, node in found}}))
"""


def text(name: str, workers: int) -> str:
    return CLUSTER.format(name=name, workers=workers, types=CPU.format(workers=workers))


def monitors(one: Cluster) -> list[int]:
    """Return the processes that are Ray's own autoscaler of this cluster."""
    return [pid for pid in one.processes() if b"rays_autoscaler" in _cmdline(pid)]


def _cmdline(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def launches(one: Cluster) -> dict[str, str]:
    """Return the words of every launch so far, by its first instance."""
    events = one.client.events(limit=500)
    return {event.instance_id: event.text for event in events if event.kind == "launch"}


@pytest.mark.timeout(360)
def test_from_zero_to_work_and_back_with_a_kill_and_a_changed_file(private_folder: Path) -> None:
    name = f"rays{os.getpid()}"
    folder = private_folder / name
    folder.mkdir()
    with cluster(folder, text(name, 2), detach=True) as one:
        shown = one.command("status", name)
        assert "decides    Ray's own autoscaler" in shown.stdout
        # Two are as many as the file allows: the third task waits for one of them.
        driver = one.driver(SQUARES.format(tasks=3, seconds=2))
        assert "sum 5 nodes 2" in finished(driver, 150)
        first = launches(one)
        assert all("Ray's autoscaler asks" in text for text in first.values())

        [before] = until(lambda: monitors(one) or None, "Ray's autoscaler", 10)
        os.kill(before, signal.SIGKILL)
        until(lambda: [pid for pid in monitors(one) if pid != before] or None, "another autoscaler", 30)

        (folder / "cluster.yaml").write_text(text(name, 3))
        applied = one.command("apply", str(folder / "cluster.yaml"))
        assert "cpu.max_workers: 2 → 3" in applied.stdout, applied.stderr
        driver = one.driver(SQUARES.format(tasks=3, seconds=12))
        until(lambda: len(one.running()) == 3 or None, "three workers", 60)
        assert "sum 5" in finished(driver, 90)

        one.wait_empty(60)
        assert first.keys() < launches(one).keys()
        refused = one.command("add", "cpu")
        assert refused.returncode == 1
        assert "Ray's own autoscaler decides here" in refused.stderr
        log = places_of(name).autoscaler_log.read_text(encoding="utf-8")
        assert "Using Autoscaling Config" in log
        autoscalers = monitors(one)
    assert not [pid for pid in autoscalers if Path(f"/proc/{pid}").exists()]


@pytest.mark.nightly
@pytest.mark.timeout(300)
def test_v1_brings_one_worker_of_each_type(private_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(V1_VARIABLE, "0")
    name = f"v1rays{os.getpid()}"
    folder = private_folder / name
    folder.mkdir()
    one_each = CLUSTER.format(name=name, workers=1, types=CPU.format(workers=1))
    with cluster(folder, one_each, detach=True) as one:
        assert driver_environment(one.record)["RAY_enable_autoscaler_v2"] == "0"
        [pid] = until(lambda: monitors(one) or None, "Ray's autoscaler", 60)
        assert environment_of(pid)["RAY_enable_autoscaler_v2"] == "0"
        # Longer than the idle timeout: what works is not ended.
        driver = one.driver(SQUARES.format(tasks=2, seconds=15))
        assert "sum 1 nodes 1" in finished(driver, 120)
        assert len(launches(one)) == 1, "nothing is ended and started again"
        one.wait_empty(90)


@pytest.mark.timeout(90)
def test_v1_is_refused_where_workers_may_share_an_address(private_folder: Path) -> None:
    name = f"v1no{os.getpid()}"
    path = private_folder / f"{name}.yaml"
    path.write_text(text(name, 2))
    done = subprocess.run(
        [sys.executable, "-m", "heliostat.cli.main", "up", str(path), "--detach"],
        env={**os.environ, V1_VARIABLE: "0"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    assert "may share an IP address" in done.stderr
