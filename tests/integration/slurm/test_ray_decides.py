"""`provider.autoscaler: ray` on a real Slurm, with the head outside and as a job: jobs come as Ray says."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.cluster.conftest import Cluster, cluster, finished, until
from tests.integration.slurm.cluster_text import cluster_text
from tests.integration.slurm.login import NAME, Login
from tests.slurm_site import SlurmSite

pytestmark = [pytest.mark.integration, pytest.mark.nightly, pytest.mark.timeout(300)]

TYPES = """\
cpu:
  resources: {CPU: 1, memory: 300000000, object_store_memory: 100000000}
  max_workers: 2
  idle_timeout_s: 4
  node_config: {backend: slurm}
later:
  resources: {CPU: 0, later: 1}
  max_workers: 1
  node_config: {backend: slurm, sbatch: ["--begin=now+1hour"]}
"""

SQUARES = """
@ray.remote(num_cpus=1)
def square(n):
    time.sleep(2)
    return n * n
print('sum', sum(ray.get([square.remote(n) for n in range(4)])))
"""


LATER = """
@ray.remote(num_cpus=0, resources={'later': 1})
def wait(): pass
ray.get(wait.remote())
"""


def instances(one: Cluster, state: str) -> list[str]:
    return [found.instance_id for found in one.status().instances if found.state == state]


@pytest.fixture
def outside(slurm: SlurmSite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    for name, value in slurm.environment.items():
        monkeypatch.setenv(name, value)
    text = cluster_text(f"rays-{os.getpid()}", TYPES, minutes=20)
    with cluster(tmp_path, text.replace("provider:\n", "provider:\n  autoscaler: ray\n")) as found:
        yield found


def test_jobs_come_for_work_and_go_and_one_that_queues_is_left_to_queue(outside: Cluster) -> None:
    assert "sum 14" in finished(outside.driver(SQUARES), 120)
    waits = outside.driver(LATER)
    queued = until(lambda: instances(outside, "queued") or None, "job that queues", 60)
    until(lambda: None if outside.running() else True, "end of the idle workers", 90)
    assert instances(outside, "queued") == queued
    waits.kill()
    waits.wait()


def test_a_head_that_is_a_job_has_rays_autoscaler_beside_it(login: Login) -> None:
    path = login.file()
    path.write_text(path.read_text().replace("provider:\n", "provider:\n  autoscaler: ray\n"))
    (login.folder / "work.py").write_text(f"import ray, time\nray.init()\n{SQUARES}")
    output = login.run("run", "--keep", str(path), "--", "python", "work.py", timeout_s=200)
    assert "sum 14" in output
    record = login.record
    assert record is not None
    assert record.autoscaler == "v2"
    assert "Ray's autoscaler asks for" in login.run("events", "--limit", "100")
    login.run("down", NAME)
    login.nothing_is_left(record)
