"""A real site is seen as it is, and what is called wrong with a node type is what Slurm does with its job."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from heliostat.model.node_type import NodeType
from heliostat.model.resources import Resources
from heliostat.providers.slurm.options import JobOptions
from heliostat.providers.slurm.runner import LocalRunner
from heliostat.providers.slurm.site import Site, probe, problems
from tests import slurm_site
from tests.slurm_site import Kind, SlurmSite

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]

KINDS = (
    Kind("g", 2, cpus=8, memory_mb=8000, gpus=2, gpu_type="a100", features=("ib", "fast")),
    Kind("h", 1, cpus=16, memory_mb=16000, gpus=4, gpu_type="h100", features=("ib",)),
)
PARTITIONS = (
    "PartitionName=main Nodes=n[1-2] Default=YES MaxTime=1-00:00:00 State=UP",
    "PartitionName=gpu Nodes=g[1-2],h1 MaxTime=12:00:00 MaxCPUsPerNode=12 State=UP",
    "PartitionName=debug Nodes=n1 MaxTime=00:10:00 State=UP",
    "PartitionName=theirs Nodes=n2 AllowAccounts=chem State=UP",
    "PartitionName=quick Nodes=n2 AllowQos=fast State=UP",
    "PartitionName=others Nodes=n2 DenyAccounts=chem State=UP",
    "PartitionName=off Nodes=n2 State=DOWN",
)
MIB = 2**20


@pytest.fixture(scope="module")
def varied(slurm_folder: Path) -> Iterator[SlurmSite]:
    with slurm_site.start(slurm_folder / "varied", nodes=2, kinds=KINDS, partitions=PARTITIONS) as site:
        yield site


@pytest.fixture(scope="module")
def seen(varied: SlurmSite) -> Site:
    return asyncio.run(probe(LocalRunner(varied.environment), deadline_s=30))


def test_a_site_is_seen_as_it_is(seen: Site) -> None:
    assert [one.name for one in seen.partitions] == [
        "main", "gpu", "debug", "theirs", "quick", "others", "off",
    ]  # fmt: skip
    assert seen.default_partition == seen.partition("main")
    assert (seen.kill_wait_s, seen.min_job_age_s, seen.max_array_size) == (5, 300, 1001)
    gpu = seen.partition("gpu")
    assert gpu is not None
    assert [(kind.cpus, kind.memory_mb, kind.gpus, kind.count, kind.usable) for kind in gpu.kinds] == [
        (8, 8000, {"a100": 2}, 2, 2),
        (16, 16000, {"h100": 4}, 1, 1),
    ]


JOBS = {
    "fits": (JobOptions(), {"CPU": 4}, ()),
    "fits a gpu": (
        JobOptions(partition=("gpu",), gpu_type="h100"), {"CPU": 1, "GPU": 4}, ("--gres=gpu:h100:4", "-pgpu")
    ),
    "fits a feature": (JobOptions(partition=("gpu",), constraint="fast"), {"CPU": 8}, ("-pgpu", "-Cfast")),
    "too many cpus": (JobOptions(), {"CPU": 5}, ()),
    "too many cpus for the partition": (JobOptions(partition=("gpu",)), {"CPU": 13}, ("-pgpu",)),
    "too much memory": (JobOptions(), {"CPU": 1, "memory": 4001 * MIB}, ("--mem=4001M",)),
    "too many gpus": (JobOptions(partition=("gpu",)), {"CPU": 1, "GPU": 5}, ("-pgpu", "--gres=gpu:5")),
    "no such gpu": (
        JobOptions(partition=("gpu",), gpu_type="v100"), {"CPU": 1, "GPU": 1}, ("-pgpu", "--gres=gpu:v100:1")
    ),
    "features of no one node": (
        JobOptions(partition=("gpu",), constraint="fast"), {"CPU": 12}, ("-pgpu", "-Cfast")
    ),
    "no such feature": (JobOptions(constraint="fast"), {"CPU": 1}, ("-Cfast",)),
    "too long": (JobOptions(partition=("debug",), time_limit_s=1200), {"CPU": 1}, ("-pdebug", "-t20")),
    "no such partition": (JobOptions(partition=("nope",)), {"CPU": 1}, ("-pnope",)),
    "another account's": (JobOptions(partition=("theirs",)), {"CPU": 1}, ("-ptheirs",)),
    "an account where none is known": (
        JobOptions(partition=("theirs",), account="chem"), {"CPU": 1}, ("-ptheirs", "-Achem")
    ),
    "a partition with qos": (JobOptions(partition=("quick",)), {"CPU": 1}, ("-pquick",)),
    "a partition and its qos": (
        JobOptions(partition=("quick",), qos="fast"), {"CPU": 1}, ("-pquick", "-qfast")
    ),
    "an account that is denied": (
        JobOptions(partition=("others",), account="chem"), {"CPU": 1}, ("-pothers", "-Achem")
    ),
    "no account where one is denied": (JobOptions(partition=("others",)), {"CPU": 1}, ("-pothers",)),
    "down": (JobOptions(partition=("off",)), {"CPU": 1}, ("-poff",)),
}  # fmt: skip


def problems_of(job: JobOptions, resources: dict[str, float], seen: Site) -> list[str]:
    node_type = NodeType("t", "slurm", Resources.of(resources), shape_id="s", max_workers=1)
    return problems([node_type], {"t": job}, seen)


def does_what_is_said(
    site: SlurmSite, job: JobOptions, resources: dict[str, float], asked: tuple[str, ...], found: list[str]
) -> None:
    """Submit such a job, and see that it runs, or is refused or waits for a reason that is no queue."""
    argv = ("sbatch", "--parsable", "--output=/dev/null", "--chdir=/", f"-c{resources['CPU']}", *asked)
    submitted = site.run(*argv, stdin="#!/bin/bash\nexec sleep 600\n", check=False)
    if submitted.returncode:
        assert found, submitted.stderr
        return
    job_id = submitted.stdout.strip()
    try:
        if not found:
            site.wait_for_states({job_id: "RUNNING"})
        else:
            # Slurm says why only once its scheduler has looked at the job.
            site.wait_for(lambda: reason(site, job_id) not in {"None", ""}, f"a reason is given: {found}")
            assert reason(site, job_id) not in {"Priority", "Resources"}
    finally:
        site.cancel_all()


@pytest.mark.parametrize(("job", "resources", "asked"), JOBS.values(), ids=JOBS.keys())
def test_what_is_called_wrong_does_not_start_and_what_is_not_does(
    varied: SlurmSite, seen: Site, job: JobOptions, resources: dict[str, float], asked: tuple[str, ...]
) -> None:
    does_what_is_said(varied, job, resources, asked, problems_of(job, resources, seen))


def reason(site: SlurmSite, job_id: str) -> str:
    return site.run("squeue", "--noheader", f"--jobs={job_id}", "--format=%r").stdout.strip()


ACCOUNTED = {
    "the default account": (JobOptions(), ()),
    "another account": (JobOptions(account="bio", qos="long"), ("-Abio", "-qlong")),
    "no account of the user": (JobOptions(account="chem"), ("-Achem",)),
    "no qos of the default account": (JobOptions(qos="long"), ("-qlong",)),
    "a partition of the account": (JobOptions(partition=("bios",), account="bio"), ("-pbios", "-Abio")),
    "a partition of another account": (JobOptions(partition=("bios",)), ("-pbios",)),
    "a partition that denies it": (JobOptions(partition=("others",), account="bio"), ("-pothers", "-Abio")),
    "a partition of the qos": (
        JobOptions(partition=("longs",), account="bio", qos="long"), ("-plongs", "-Abio", "-qlong")
    ),
    "a partition of another qos": (JobOptions(partition=("longs",)), ("-plongs",)),
}  # fmt: skip


@pytest.fixture(scope="module")
def accounted(accounting_folder: Path) -> Iterator[SlurmSite]:
    partitions = (
        "PartitionName=main Nodes=ALL Default=YES State=UP",
        "PartitionName=bios Nodes=ALL AllowAccounts=bio State=UP",
        "PartitionName=others Nodes=ALL DenyAccounts=bio State=UP",
        "PartitionName=longs Nodes=ALL AllowQos=long State=UP",
    )
    with slurm_site.start(accounting_folder / "acc", nodes=1, partitions=partitions, accounting=True) as site:
        for entity in (
            ("qos", "long"),
            ("account", "chem"),
            ("account", "bio"),
            ("user", "root", "account=bio", "qos=normal,long", "defaultqos=normal"),
        ):
            site.run("sacctmgr", "--immediate", "add", *entity)
        yield site


@pytest.mark.parametrize(("job", "asked"), ACCOUNTED.values(), ids=ACCOUNTED.keys())
def test_accounts_and_qos_are_seen_as_slurm_enforces_them(
    accounted: SlurmSite, job: JobOptions, asked: tuple[str, ...]
) -> None:
    seen = asyncio.run(probe(LocalRunner(accounted.environment), deadline_s=30))
    does_what_is_said(accounted, job, {"CPU": 1}, asked, problems_of(job, {"CPU": 1}, seen))
