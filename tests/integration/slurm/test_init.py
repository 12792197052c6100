"""`heliostat init slurm` writes a file that passes `check` on the site, and a cluster of it does work."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests import slurm_site
from tests.slurm_site import Kind, SlurmSite

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]

COMMAND_S = 120.0
PARTITIONS = (
    "PartitionName=main Nodes=n[1-2] Default=YES MaxTime=1-00:00:00 State=UP",
    "PartitionName=gpu Nodes=g1 MaxTime=12:00:00 State=UP",
    "PartitionName=debug Nodes=n1 MaxTime=00:10:00 State=UP",
)
WORK = """\
import os, ray

ray.init(address="auto")

@ray.remote(num_cpus=1)
def partition():
    return os.environ["SLURM_JOB_PARTITION"]

@ray.remote(num_gpus=1)
def gpu():
    return os.environ["SLURM_JOB_PARTITION"], os.environ["CUDA_VISIBLE_DEVICES"]

print(ray.get(partition.remote()), *ray.get(gpu.remote()))
"""

Heliostat = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def site(slurm_folder: Path) -> Iterator[SlurmSite]:
    kinds = [Kind("g", 1, cpus=2, gpus=1, gpu_type="a100")]
    with slurm_site.start(slurm_folder / "init", nodes=2, cpus=2, kinds=kinds, partitions=PARTITIONS) as site:
        yield site


@pytest.fixture
def heliostat(site: SlurmSite, tmp_path: Path) -> Iterator[Heliostat]:
    # Jobs find Ray by this Python; nothing else of the shell gets into them.
    own = {"HELIOSTAT_STATE_DIR": str(tmp_path / "state"), "NO_COLOR": "1"}

    def run(*arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [sys.executable, "-m", "heliostat.cli.main", *arguments],
            env={**site.environment, **own},
            cwd=tmp_path,
            text=True,
            capture_output=True,
            timeout=COMMAND_S,
            check=False,
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done

    yield run
    if (tmp_path / "state" / "mine" / "cluster.json").exists():
        run("down", "mine")


def test_the_file_is_right_for_the_site_and_its_cluster_works(
    heliostat: Heliostat, site: SlurmSite, tmp_path: Path
) -> None:
    heliostat("init", "slurm", "-o", "cluster.yaml", "--name", "mine")
    text = (tmp_path / "cluster.yaml").read_text(encoding="utf-8")
    for part in ('partition: "main"', "gpu-a100:", "# Left out, for trials: jobs end after 10 minutes"):
        assert part in text
    assert "cluster mine: fine" in heliostat("check", "cluster.yaml").stdout
    (tmp_path / "work.py").write_text(WORK)
    done = heliostat("run", "cluster.yaml", "--", sys.executable, "work.py")
    # Ray's own lines for drivers come when they come.
    assert "main gpu 0" in done.stdout.splitlines()
    site.wait_for(lambda: not site.jobs(ended=False), "the cluster's jobs are gone")


def test_what_does_not_fit_the_site_is_told_before_anything_is_submitted(
    heliostat: Heliostat, site: SlurmSite, tmp_path: Path
) -> None:
    heliostat("init", "slurm", "-o", "cluster.yaml", "--name", "mine")
    path = tmp_path / "cluster.yaml"
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace('"main"', '"mian"').replace('"a100"', '"a10"'), encoding="utf-8")
    said = heliostat("check", "cluster.yaml", code=1).stdout
    assert "main: partition: mian: no such partition here (did you mean main?)" in said
    assert "gpu-a100: gpu_type: no a10 in partition gpu (did you mean a100?)" in said
    assert site.jobs() == []
