"""Jobs end at their walltime: it is known, told ahead, and work goes on in the next job."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from ray.core.generated import common_pb2

from tests.integration.cluster.conftest import Cluster, cluster, finished, until
from tests.integration.slurm.cluster_text import cluster_text
from tests.integration.slurm.launching import Place, launched, request, rows_when
from tests.slurm_site import SlurmSite

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]

OPTIONS = {"time_limit": 10, "partition": "main", "network": "127.0.0.0/8"}

TYPES = """\
short:
  resources: {CPU: 1, memory: 300000000, object_store_memory: 100000000}
  max_workers: 2
  idle_timeout_s: 10
  node_config: {backend: slurm}
"""

TASK_S = 180
LONG = """
@ray.remote(num_cpus=1, max_retries=5)
def long(path):
    done = int(open(path).read()) if os.path.exists(path) else 0
    with open(path + ".jobs", "a") as jobs:
        jobs.write(f"{{os.environ['SLURM_ARRAY_JOB_ID']}} {{done}}\\n")
    while done < {seconds}:
        time.sleep(1)
        done += 1
        with open(path + ".new", "w") as file:
            file.write(str(done))
        os.replace(path + ".new", path)
    return done
print("did", ray.get(long.remote({path!r})))
for node in ray.nodes():
    print("died of", node["DeathReason"] if not node["Alive"] else "nothing")
"""
PREEMPTED = common_pb2.NodeDeathInfo.AUTOSCALER_DRAIN_PREEMPTED


async def test_a_limit_changed_by_the_site_is_seen(slurm: SlurmSite, tmp_path: Path) -> None:
    async with Place(slurm, tmp_path, OPTIONS).provider() as provider:
        (row,) = (await launched(provider, request("l000001"))).values()
        before_s = row.expires_at_s
        assert row.started_at_s is not None
        assert before_s == row.started_at_s + 600
        slurm.run("scontrol", "update", f"JobId={row.native_id}", "TimeLimit=5")
        rows = await rows_when(
            provider, lambda rows: rows["l000001.0"].expires_at_s != before_s, "another end"
        )
        assert rows["l000001.0"].expires_at_s == row.started_at_s + 300


async def test_a_limit_that_the_site_makes_shorter_is_told_ahead_of_its_end(
    slurm: SlurmSite, tmp_path: Path
) -> None:
    launch = request("l000001")
    async with Place(slurm, tmp_path, OPTIONS).provider() as provider:
        (row,) = (await launched(provider, launch)).values()
        log = tmp_path / "logs" / "l000001.0+0.slurm.log"
        slurm.wait_for(lambda: log.exists() and "here I am" in log.read_text(), "it runs")
        assert "the lease ends soon" not in log.read_text()
        # A signal a minute ahead may come another minute early; Slurm looks twice a minute.
        slurm.run("scontrol", "update", f"JobId={row.native_id}", "TimeLimit=2")
        slurm.wait_for(lambda: "the lease ends soon" in log.read_text(), "it is told", deadline_s=75)


@pytest.fixture
def short_jobs(slurm: SlurmSite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    for name, value in slurm.environment.items():
        monkeypatch.setenv(name, value)
    with cluster(tmp_path, cluster_text(f"short-{os.getpid()}", TYPES, minutes=2)) as found:
        yield found


@pytest.mark.nightly
@pytest.mark.timeout(400)
def test_a_job_that_the_site_gives_more_time_uses_it(
    short_jobs: Cluster, slurm: SlurmSite, tmp_path: Path
) -> None:
    progress = tmp_path / "progress"
    driver = short_jobs.driver(LONG.format(seconds=TASK_S, path=str(progress)))
    until(lambda: progress.exists() or None, "start of the task", 90)
    for row in slurm.jobs(ended=False):
        slurm.run("scontrol", "update", f"JobId={row.id}", "TimeLimit=10")
    assert f"did {TASK_S}" in finished(driver, 300)
    assert len(Path(f"{progress}.jobs").read_text().splitlines()) == 1


@pytest.mark.nightly
@pytest.mark.timeout(900)
def test_a_task_longer_than_a_job_finishes_on_the_next(short_jobs: Cluster, tmp_path: Path) -> None:
    progress = tmp_path / "progress"
    driver = short_jobs.driver(LONG.format(seconds=TASK_S, path=str(progress)))
    until(lambda: driver.poll() is not None or None, "end of the driver", 600)
    output = finished(driver, 10)
    assert f"did {TASK_S}" in output
    assert f"died of {PREEMPTED}" in output
    runs = [line.split() for line in Path(f"{progress}.jobs").read_text().splitlines()]
    assert len({job for job, _ in runs}) == len(runs) >= 2
    assert int(runs[-1][1]) > 0
    events = short_jobs.client.events(limit=1000)
    over = next(one for one in events if one.kind == "release" and one.data["why"] == "lease ends")
    told = next(one for one in events if one.instance_id == over.instance_id and "is draining" in one.text)
    assert told.at_s < over.at_s - 5
    replacing = [one for one in events if one.kind == "launch" and one.data["why"] == "replacement"]
    assert replacing
    assert replacing[0].at_s < over.at_s
