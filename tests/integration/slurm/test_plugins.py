"""A site whose job_submit plug-in changes jobs: ours are known all the same, or go, and it is said why."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from heliostat.model.instance import BackendState, Change
from heliostat.ports.errors import InvalidRequest
from heliostat.providers.slurm.untagged import WHY
from tests import slurm_site
from tests.integration.slurm.launching import Place, all_in, launched, request, rows_when
from tests.slurm_site import SlurmSite

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]

OPTIONS = {"time_limit": 10, "partition": "main", "network": "127.0.0.0/8"}
PLUGIN = """
function slurm_job_submit(job, partitions, uid)
    job.comment = "project 7"
    {more}
    return slurm.SUCCESS
end
function slurm_job_modify(job, old, partitions, uid)
    return slurm.SUCCESS
end
return slurm.SUCCESS
"""
FILE = """
cluster_name: trying
provider: {type: external, backends: {local: {}, slurm: {time_limit: 10, network: 127.0.0.0/8}}}
available_node_types:
  head: {resources: {CPU: 0}, node_config: {backend: local}}
  cpu: {resources: {CPU: 1}, max_workers: 2, node_config: {backend: slurm}}
head_node_type: head
"""


def site_with(folder: Path, more: str) -> Iterator[SlurmSite]:
    files = {"job_submit.lua": PLUGIN.format(more=more)}
    with slurm_site.start(folder, nodes=2, extra_conf="JobSubmitPlugins=lua", files=files) as site:
        yield site


@pytest.fixture(scope="module")
def changes_comments(slurm_folder: Path) -> Iterator[SlurmSite]:
    yield from site_with(slurm_folder / "comments", "")


@pytest.fixture(scope="module")
def changes_both(slurm_folder: Path) -> Iterator[SlurmSite]:
    yield from site_with(slurm_folder / "both", 'job.name = "job"')


async def test_where_comments_are_changed_jobs_are_known_by_their_names(
    changes_comments: SlurmSite, tmp_path: Path
) -> None:
    place = Place(changes_comments, tmp_path, OPTIONS)
    array, gang = request("l000001", 3), replace(request("g000001", 2), together=True)
    async with place.provider() as provider:
        await launched(provider, array)
        await launched(provider, gang)
    assert {row.comment for row in changes_comments.jobs()} == {"project 7"}
    async with place.provider() as provider:
        outcome = await provider.apply(Change(launch=(array, gang)))
        assert not outcome.failed_launches
        rows = {row.instance_id: row for row in await provider.instances()}
        assert set(rows) == {*array.instance_ids, *gang.instance_ids}
        assert {(row.node_type, row.shape_id) for row in rows.values()} == {("cpu", "s1")}
        await provider.apply(Change(terminate=tuple(rows)))
        await rows_when(provider, lambda rows: not rows, "all have ended")
    assert changes_comments.jobs(ended=False) == []


async def test_where_nothing_tells_whose_a_job_is_it_goes_and_no_other_comes(
    changes_both: SlurmSite, tmp_path: Path
) -> None:
    site, launch = changes_both, request("l000001", 3)
    theirs = site.run("sbatch", "--parsable", "--output=/dev/null", "--wrap=sleep 600").stdout.strip()
    async with Place(site, tmp_path, OPTIONS).provider() as provider:
        await provider.apply(Change(launch=(launch,)))
        rows = await rows_when(provider, lambda rows: all_in(rows, launch, BackendState.FAILED), "it failed")
        assert all(WHY in str(row.detail) for row in rows.values())
        site.wait_for(lambda: [row.id for row in site.jobs(ended=False)] == [theirs], "only ours are gone")
        refused = await provider.apply(Change(launch=(request("l000002"),), terminate=launch.instance_ids))
        assert isinstance(refused.failed_launches["l000002"], InvalidRequest)
        assert await provider.instances() == []
    assert [row.id for row in site.jobs(ended=False)] == [theirs]
    site.cancel_all()


def heliostat(site: SlurmSite, folder: Path, text: str, *words: str) -> subprocess.CompletedProcess[str]:
    (folder / "cluster.yaml").write_text(text)
    return subprocess.run(
        [sys.executable, "-m", "heliostat.cli.main", *words],
        cwd=folder,
        env=site.environment,
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )


def test_a_trial_says_so(changes_both: SlurmSite, tmp_path: Path) -> None:
    done = heliostat(changes_both, tmp_path, FILE, "check", "cluster.yaml", "--try", "30s", "--json")
    assert done.returncode == 1
    assert WHY in str(json.loads(done.stdout)["problems"])
    changes_both.wait_for(lambda: not changes_both.jobs(ended=False), "nothing of it is left")


def test_nor_is_a_head_kept_that_nobody_would_find_again(changes_both: SlurmSite, tmp_path: Path) -> None:
    head = FILE.replace("{backend: local}", "{backend: slurm}")
    done = heliostat(changes_both, tmp_path, head, "up", "cluster.yaml", "--detach")
    assert done.returncode == 1
    assert WHY in done.stderr
    changes_both.wait_for(lambda: not changes_both.jobs(ended=False), "nothing of it is left")
