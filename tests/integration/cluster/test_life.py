"""A real cluster on this machine: from zero to work and back, and what happens when parts of it die."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from heliostat.cli.driver import driver_environment
from tests.integration.cluster.conftest import Cluster, environment_of, finished, until

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]

SQUARES = """
@ray.remote(num_cpus=1)
def square(n, seconds):
    time.sleep(seconds)
    return n * n
print(sum(ray.get([square.remote(n, {seconds}) for n in range({tasks})])))
"""


def test_work_comes_workers_come_work_goes_workers_go(two_workers: Cluster) -> None:
    driver = two_workers.driver(SQUARES.format(tasks=6, seconds=1.5))
    until(lambda: len(two_workers.running()) == 2 or None, "two workers", 90)
    assert "55" in finished(driver, 60)
    two_workers.wait_empty()
    kinds = [(one.kind, one.data.get("why")) for one in two_workers.client.events(limit=500)]
    assert ("launch", "demand") in kinds
    assert ("drain", None) in kinds


def test_drivers_hear_of_it_and_see_prints_of_tasks(two_workers: Cluster) -> None:
    driver = two_workers.driver(
        "@ray.remote(num_cpus=1)\ndef say():\n    print('hello from a task')\n    time.sleep(2)\n"
        "ray.get(say.remote())\ntime.sleep(2)"
    )
    output = finished(driver, 90)
    assert "hello from a task" in output
    assert "autoscaler" in output
    two_workers.wait_empty()


def test_ray_data_scales_a_cluster_at_zero_workers(two_workers: Cluster) -> None:
    two_workers.wait_empty()
    driver = two_workers.driver(
        "import ray.data\n"
        "rows = ray.data.range(1000).map_batches(lambda batch: {'id': batch['id'] * 2}, num_cpus=1)\n"
        "print('sum', sum(row['id'] for row in rows.take_all()))"
    )
    assert "sum 999000" in finished(driver, 150)
    two_workers.wait_empty()


def test_rays_own_status_shows_our_report(two_workers: Cluster) -> None:
    driver = two_workers.driver("@ray.remote(num_cpus=7)\ndef big(): pass\nbig.remote()\ntime.sleep(8)")
    until(lambda: two_workers.status().demands or None, "demand", 30)
    verdicts = until(lambda: [d.verdict for d in two_workers.status().demands] or None, "verdict", 10)
    assert verdicts == ["infeasible"]
    shown = subprocess.run(
        [sys.executable, "-m", "ray.scripts.scripts", "status"],
        env=driver_environment(two_workers.record),
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert "{'CPU': 7.0}: 1+ pending" in shown.stdout
    assert "nearest is worker, which lacks CPU" in finished(driver, 30)


def test_add_protect_remove_by_hand(two_workers: Cluster) -> None:
    added = two_workers.command("add", "worker", "--json")
    assert added.returncode == 0, added.stderr
    (name,) = two_workers.running()
    full = two_workers.command("add", "worker", "-n", "2")
    assert full.returncode == 1
    assert "max_workers" in full.stderr
    assert two_workers.command("protect", name).returncode == 0
    explained = two_workers.command("explain", name)
    assert "by hand" in explained.stdout
    removed = two_workers.command("remove", name)
    assert removed.returncode == 0, removed.stderr
    two_workers.wait_empty()


def test_kill_9_of_the_controller_loses_no_task_and_launches_nothing_twice(two_workers: Cluster) -> None:
    driver = two_workers.driver(SQUARES.format(tasks=8, seconds=2))
    until(lambda: len(two_workers.running()) == 2 or None, "two workers", 90)
    before = two_workers.running()
    old = two_workers.status().controller_pid
    os.kill(old, signal.SIGKILL)
    until(lambda: two_workers.status().controller_pid != old or None, "new controller", 60)
    until(lambda: two_workers.running() == before or None, "sight of the same workers", 30)
    assert "140" in finished(driver, 90)
    launches = [one for one in two_workers.client.events(limit=500) if one.kind == "launch"]
    assert len({one.data["launch_id"] for one in launches}) == len(launches)
    two_workers.wait_empty()


def test_a_worker_that_is_killed_is_replaced_and_its_tasks_are_run_again(two_workers: Cluster) -> None:
    driver = two_workers.driver(SQUARES.format(tasks=4, seconds=4))
    (first, *_) = until(lambda: two_workers.running() or None, "a worker", 90)
    tags = {pid: environment_of(pid).get("HELIOSTAT_INSTANCE_ID") for pid in two_workers.processes()}
    for pid in [pid for pid, tag in tags.items() if tag == first]:
        # Some end by themselves as soon as the first of them is gone.
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    assert "14" in finished(driver, 150)
    two_workers.wait_empty()


def test_apply_changes_a_maximum_and_says_what_changed(two_workers: Cluster) -> None:
    text = two_workers.path.read_text()
    two_workers.path.write_text(text.replace("idle_timeout_s: 3", "idle_timeout_s: 4"))
    applied = two_workers.command("apply", str(two_workers.path))
    assert applied.returncode == 0, applied.stderr
    assert "worker.idle_timeout_s: 3" in applied.stdout
    two_workers.path.write_text(text.replace("max_workers: 2", "max_workers: -2"))
    refused = two_workers.command("apply", str(two_workers.path))
    assert refused.returncode == 2
    assert "max_workers" in refused.stderr
    two_workers.path.write_text(text)


def test_a_second_up_says_that_it_runs(two_workers: Cluster) -> None:
    again = two_workers.command("up", str(two_workers.path), "--detach")
    assert again.returncode == 1
    assert "heliostat apply" in again.stderr


def test_facts_come_as_json(two_workers: Cluster) -> None:
    for word in ("status", "list", "cost", "explain", "env"):
        answer = two_workers.command(word, "--json")
        assert answer.returncode == 0, answer.stderr
        json.loads(answer.stdout)
    events = two_workers.command("events", "--json").stdout.splitlines()
    assert all(json.loads(line)["seq"] for line in events)


def test_nothing_secret_is_in_a_process_or_a_log(two_workers: Cluster) -> None:
    token = Path(two_workers.record.token_path).read_text().strip()
    for pid in two_workers.processes():
        assert token.encode() not in Path(f"/proc/{pid}/cmdline").read_bytes()
        assert token.encode() not in Path(f"/proc/{pid}/environ").read_bytes()
    for log in Path(os.environ["HELIOSTAT_STATE_DIR"]).rglob("*"):
        if log.is_file():
            assert token.encode() not in log.read_bytes(), log
