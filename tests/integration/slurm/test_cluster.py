"""A real Ray cluster whose workers are jobs of a real Slurm: it grows, shrinks, and bears what Slurm does."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from heliostat.config.record import read_record
from heliostat.model.report import InstanceReport
from tests.integration.cluster.conftest import Cluster, cluster, finished, places_of, until
from tests.integration.slurm.cluster_text import cluster_text
from tests.slurm_site import SlurmSite

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

NAME = f"slurm-{os.getpid()}"

TYPES = """\
cpu:
  resources: {CPU: 1, memory: 300000000, object_store_memory: 100000000}
  max_workers: 4
  idle_timeout_s: 4
  node_config: {backend: slurm}
broken:
  resources: {CPU: 0, broken: 1, memory: 300000000, object_store_memory: 100000000}
  max_workers: 4
  node_config: {backend: slurm, setup: ["echo about to load", "module load no/such/module"]}
endless:
  resources: {CPU: 0, endless: 1, memory: 300000000, object_store_memory: 100000000}
  max_workers: 1
  node_config: {backend: slurm, partition: short, time_limit: 60}
later:
  resources: {CPU: 0, later: 1}
  max_workers: 1
  node_config: {backend: slurm, sbatch: ["--begin=now+1hour"]}
"""

SQUARES = """
@ray.remote(num_cpus=1, max_retries=5)
def square(n):
    time.sleep({seconds})
    return n * n
print(sum(ray.get([square.remote(n) for n in range({tasks})])))
"""

WAITS = """
@ray.remote(num_cpus=1, max_retries=5)
def wait():
    while not os.path.exists({path!r}):
        time.sleep(0.2)
    return "seen"
print(ray.get(wait.remote()))
"""


@pytest.fixture(scope="module")
def workers(shared_site: SlurmSite, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A cluster with its head on this machine, shared by the tests of this module."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in shared_site.environment.items():
            patch.setenv(name, value)
        with cluster(tmp_path_factory.mktemp("slurm"), cluster_text(NAME, TYPES, minutes=20)) as found:
            yield found


def alive(site: SlurmSite) -> list[str]:
    return sorted(row.id for row in site.jobs(ended=False) if row.comment.startswith("heliostat:"))


def placed(one: InstanceReport) -> bool:
    return one.slot.endswith(" (main)") and one.expires_at_s is not None


def waiting(site: SlurmSite) -> list[str]:
    return [row.id for row in site.jobs(ended=False) if ":later:" in row.comment]


def test_work_brings_jobs_which_go_when_it_is_done_and_others_stay(
    workers: Cluster, shared_site: SlurmSite
) -> None:
    name = f"--job-name=hel-{workers.record.cluster_uid[:8]}-theirs"
    theirs = ("sbatch", "--parsable", name, "--output=/dev/null", "--chdir=/", "--wrap=sleep 600")
    foreign = shared_site.run(*theirs).stdout.strip()
    try:
        driver = workers.driver(
            SQUARES.format(tasks=12, seconds=6) + "print([one['Labels'] for one in ray.nodes()])"
        )
        until(lambda: len(workers.running()) == 4 or None, "four workers", 120)
        # Ray may show a node before Slurm's next listing says where it is.
        until(lambda: all(map(placed, workers.status().instances)) or None, "where they are", 30)
        output = finished(driver, 120)
        assert "506" in output
        assert "'heliostat.io/partition': 'main'" in output
        workers.wait_empty(90)
        until(lambda: not alive(shared_site) or None, "end of our jobs", 30)
        states = {row.id: row.state for row in shared_site.jobs()}
        assert states[foreign] == "RUNNING"
    finally:
        shared_site.run("scancel", foreign)


def test_a_job_cancelled_from_outside_loses_no_task(workers: Cluster, shared_site: SlurmSite) -> None:
    driver = workers.driver(SQUARES.format(tasks=4, seconds=8))
    until(lambda: len(workers.running()) == 4 or None, "four workers", 120)
    shared_site.run("scancel", alive(shared_site)[0])
    assert "14" in finished(driver, 180)
    workers.wait_empty(90)


def test_a_silent_slurmctld_is_unknown_not_empty(workers: Cluster, shared_site: SlurmSite) -> None:
    driver = workers.driver(SQUARES.format(tasks=2, seconds=25))
    until(lambda: len(workers.running()) == 2 or None, "two workers", 120)
    before = alive(shared_site)
    shared_site.save_state()
    shared_site.stop_controller()
    try:
        until(lambda: [one for one in workers.status().backends if one.error] or None, "word of it", 90)
        assert len(workers.running()) == 2
    finally:
        shared_site.start_controller()
    until(lambda: not [one for one in workers.status().backends if one.error] or None, "Slurm again", 90)
    assert alive(shared_site) == before
    assert "1" in finished(driver, 120)
    workers.wait_empty(90)


def test_a_gang_is_one_allocation(workers: Cluster, shared_site: SlurmSite) -> None:
    driver = workers.driver(
        "from ray.util.placement_group import placement_group\n"
        "group = placement_group([{'CPU': 1}] * 3, strategy='STRICT_SPREAD')\n"
        "ray.get(group.ready(), timeout=150)\n"
        "print('placed', len({one['NodeID'] for one in ray.nodes() if one['Alive']}))\n"
        "time.sleep(4)"
    )
    until(lambda: len(workers.running()) == 3 or None, "three workers", 150)
    assert len(alive(shared_site)) == 1
    assert "placed 4" in finished(driver, 60)
    workers.wait_empty(90)
    until(lambda: not alive(shared_site) or None, "end of the allocation", 60)


def test_a_broken_setup_line_costs_a_few_jobs_and_is_told(workers: Cluster, shared_site: SlurmSite) -> None:
    driver = workers.driver(
        "@ray.remote(num_cpus=0, resources={'broken': 1})\ndef f(): pass\n"
        "waits = [f.remote() for _ in range(4)]\ntime.sleep(25)"
    )
    failures = until(lambda: workers.status().failures or None, "a failure", 60)
    assert "module load no/such/module" in failures[0].error
    assert any("about to load" in line for line in failures[0].log)
    finished(driver, 60)
    workers.wait_empty(60)
    ran = [row for row in shared_site.jobs() if ":broken:" in row.comment and row.state == "FAILED"]
    # Three at a time, after pauses that grow, never the fourth that waits behind them.
    assert 1 <= len(ran) <= 12


def test_what_slurm_would_let_wait_for_ever_is_refused_in_words(
    workers: Cluster, shared_site: SlurmSite
) -> None:
    driver = workers.driver(
        "@ray.remote(num_cpus=0, resources={'endless': 1})\ndef f(): pass\nf.remote()\ntime.sleep(10)"
    )
    waiting = until(
        lambda: [d for d in workers.status().demands if "time_limit" in d.why] or None, "its reason", 60
    )
    assert "short" in waiting[0].why
    finished(driver, 60)
    assert not [row for row in shared_site.jobs() if ":endless:" in row.comment]
    shown = workers.command("check", str(workers.path), "--json")
    assert shown.returncode == 1
    assert any("endless" in one and "time_limit" in one for one in json.loads(shown.stdout)["problems"])


def test_a_second_cluster_on_the_same_slurm_keeps_to_itself(
    workers: Cluster, shared_site: SlurmSite, tmp_path: Path
) -> None:
    seen = tmp_path / "seen"
    driver = workers.driver(WAITS.format(path=str(seen)))
    until(lambda: len(workers.running()) == 1 or None, "a worker", 120)
    with cluster(tmp_path, cluster_text(f"{NAME}-b", TYPES, minutes=20)) as other:
        assert other.status().instances == []
    assert len(workers.running()) == 1
    seen.touch()
    assert "seen" in finished(driver, 60)
    workers.wait_empty(90)


def test_a_cluster_that_crashed_leaves_no_job_once_it_is_taken_down(
    shared_site: SlurmSite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in shared_site.environment.items():
        monkeypatch.setenv(name, value)
    with cluster(tmp_path, cluster_text(f"{NAME}-c", TYPES, minutes=20)) as found:
        driver = found.driver(
            "@ray.remote(num_cpus=0, resources={'later': 1})\ndef f(): pass\nf.remote()\ntime.sleep(300)"
        )
        until(lambda: waiting(shared_site) or None, "a job that waits", 60)
        driver.kill()
        controller = found.status().controller_pid
        record = read_record(places_of(f"{NAME}-c").record)
        assert record is not None
        assert record.wrapper is not None
        assert record.head is not None
        # Its parent stands still meanwhile, or it would start the controller again.
        os.kill(record.wrapper.pid, signal.SIGSTOP)
        for pid in (controller, record.head.pid, record.wrapper.pid):
            os.kill(pid, signal.SIGKILL)
        assert waiting(shared_site)
    assert waiting(shared_site) == []
