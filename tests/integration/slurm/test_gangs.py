"""A gang's members as steps of one job: each ends alone, and leaves the work of the others alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from heliostat.model.instance import BackendState, Change
from heliostat.providers.slurm import SlurmProvider
from heliostat.providers.slurm.runner import LocalRunner
from tests.integration.slurm.launching import Place, Rows, all_in, launched, request, rows_when
from tests.slurm_site import SlurmSite

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]

OPTIONS = {"time_limit": 10, "partition": "main", "network": "127.0.0.0/8"}
GANG = replace(request("g000001", 3), together=True)


@pytest.fixture
def place(slurm: SlurmSite, tmp_path: Path) -> Place:
    return Place(slurm, tmp_path, OPTIONS)


def steps(site: SlurmSite) -> list[str]:
    """Return the steps that run, the batch script's left out."""
    found = site.run("squeue", "--noheader", "--steps", "--format=%i").stdout.split()
    return sorted(one.partition(".")[2] for one in found if one.partition(".")[2].isdecimal())


async def at_work(place: Place, provider: SlurmProvider) -> Rows:
    """Launch the gang, and return its rows once each of its members says that it runs."""
    rows = await launched(provider, GANG)
    logs = [place.folder / "logs" / f"g000001.{rank}.slurm.log" for rank in range(3)]
    place.site.wait_for(
        lambda: all(log.exists() and "here I am" in log.read_text() for log in logs),
        "all members are at work",
    )
    return rows


async def test_a_member_ends_alone_and_is_listed_no_more_while_the_others_run_on(place: Place) -> None:
    runner = LocalRunner(place.site.environment)
    async with place.provider(runner=runner) as provider:
        rows = await at_work(place, provider)
        assert len({row.allocation_id for row in rows.values()}) == 1
        assert steps(place.site) == ["0", "1", "2"]
        await provider.apply(Change(terminate=("g000001.1",)))
        rows = await rows_when(provider, lambda rows: "g000001.1" not in rows, "it is gone")
        assert {key: row.state for key, row in rows.items()} == {
            "g000001.0": BackendState.RUNNING,
            "g000001.2": BackendState.RUNNING,
        }
        assert steps(place.site) == ["0", "2"]
        # Nobody is told to end who has ended.
        told = runner.counts["scancel"]
        for _ in range(5):
            await provider.instances()
        assert runner.counts["scancel"] == told
    async with place.provider() as provider:
        await provider.apply(Change(terminate=GANG.instance_ids))
        await rows_when(provider, lambda rows: not rows, "all are gone")
    assert place.site.jobs(ended=False) == []


async def test_a_gang_that_ends_while_it_starts_leaves_nothing(place: Place) -> None:
    async with place.provider() as provider:
        await provider.apply(Change(launch=(GANG,)))
        await rows_when(provider, lambda rows: all_in(rows, GANG, BackendState.RUNNING), "its job runs")
        # Its members may not have begun. Sooner than what does not hear would be killed:
        await provider.apply(Change(terminate=GANG.instance_ids))
        await rows_when(provider, lambda rows: not rows, "all are gone")
    assert place.site.jobs(ended=False) == []


async def test_a_member_that_crashes_leaves_the_others(place: Place) -> None:
    async with place.provider() as provider:
        rows = await at_work(place, provider)
        place.site.run("scancel", "--signal=KILL", rows["g000001.2"].native_id)
        place.site.wait_for(lambda: steps(place.site) == ["0", "1"], "its step has ended")
        assert [row.state for row in (await provider.instances()) if row.instance_id != "g000001.2"] == [
            BackendState.RUNNING
        ] * 2
