"""`ray up` where the head is a Slurm job, and where only the workers are."""

from __future__ import annotations

from dataclasses import replace

import pytest

from heliostat.config.record import write_record
from tests.integration.launcher.conftest import LISTS, WORK, Launcher
from tests.integration.slurm.login import ELSEWHERE, until
from tests.slurm_site import SlurmSite

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

TOP = """
cluster_name: up
max_workers: 2
idle_timeout_minutes: 1
upscaling_speed: 1
head_node_type: front
provider:
  type: external
  module: heliostat.launcher.NodeProvider
  head_timeout_s: 20
  backends:
    local: {}
    slurm: {network: 127.0.0.0/8, time_limit: "00:10:00", memory_request: false}
available_node_types:
"""
SLURM_WORKERS = """
  cpu: {resources: {CPU: 1}, max_workers: 2, idle_timeout_s: 3, node_config: {backend: slurm}}
"""
HEAD_INSIDE = """
  front: {resources: {CPU: 0}, node_config: {backend: slurm, sbatch: ["--begin=now+1hour"]}}
"""
HEAD_OUTSIDE = """
  front: {resources: {CPU: 0}, node_config: {backend: local}}
  near: {resources: {CPU: 1, near: 1}, max_workers: 1, idle_timeout_s: 3, node_config: {backend: local}}
"""
BOTH = """
import os, ray
ray.init(logging_level="ERROR")
@ray.remote(num_cpus=1)
def job():
    return bool(os.environ.get("SLURM_JOB_ID"))
near = job.options(resources={"near": 1}, num_cpus=0).remote()
far = ray.util.placement_group([{"CPU": 1}], bundle_label_selector=[{"ray.io/node-group": "cpu"}])
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy as In
print("in jobs:", ray.get([near, job.options(scheduling_strategy=In(far)).remote()]))
"""


def test_the_head_is_a_job_that_has_to_wait(launcher: Launcher, slurm: SlurmSite) -> None:
    launcher.file.write_text(TOP + HEAD_INSIDE + SLURM_WORKERS + LISTS)
    (launcher.folder / "work.py").write_text(WORK)
    said = launcher.ray("up", "--yes", HELIOSTAT_UP_WAIT="2s")
    (row,) = slurm.jobs(ended=False)
    assert f"waiting for the head: Slurm job {row.id}, BeginTime" in said
    assert f"up is waiting, nothing runs yet: `ray up {launcher.file}` again" in said
    assert f"up waits for its head: Slurm job {row.id}" in launcher.ray("exec", "true", code=1)
    slurm.run("scontrol", "update", f"JobId={row.id}", "StartTime=now")
    launcher.ray("up", "--yes", HELIOSTAT_UP_WAIT="60s")
    assert [one.id for one in slurm.jobs(ended=False)] == [row.id]
    record = launcher.record
    assert record is not None
    # As it is where nodes are machines of their own: commands go by a step of the head's job.
    write_record(launcher.places.record, replace(record, host=ELSEWHERE))
    assert "squares [0, 1, 4, 9]" in launcher.ray("submit", "work.py")
    assert row.id in launcher.ray("exec", "echo $SLURM_JOB_ID; exit 7", code=7)
    launcher.ray("down", "--yes")
    launcher.nothing_is_left(record)
    assert slurm.jobs(ended=False) == []


def test_the_head_is_here_and_workers_come_from_two_backends(launcher: Launcher, slurm: SlurmSite) -> None:
    launcher.file.write_text(TOP + HEAD_OUTSIDE + SLURM_WORKERS + LISTS)
    (launcher.folder / "both.py").write_text(BOTH)
    launcher.ray("up", "--yes")
    record = launcher.record
    assert record is not None
    assert "in jobs: [False, True]" in launcher.ray("submit", "both.py")
    until(lambda: not launcher.workers(), "zero workers")
    launcher.ray("down", "--yes")
    launcher.nothing_is_left(record)
    assert slurm.jobs(ended=False) == []


@pytest.mark.nightly
def test_down_cancels_a_head_that_waits(launcher: Launcher, slurm: SlurmSite) -> None:
    launcher.file.write_text(TOP + HEAD_INSIDE + SLURM_WORKERS + LISTS)
    launcher.ray("up", "--yes", HELIOSTAT_UP_WAIT="1s")
    assert len(slurm.jobs(ended=False)) == 1
    launcher.ray("down", "--yes")
    assert slurm.jobs(ended=False) == []
    assert launcher.record is None
