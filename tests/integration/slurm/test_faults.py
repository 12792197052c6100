"""What a site does to jobs is told as it is: limits, nodes that die, jobs that are killed or requeued."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from heliostat.model.instance import BackendState, Change, OfferQuery
from heliostat.ports.errors import InsufficientCapacity, QuotaExceeded, Unavailable
from heliostat.providers.slurm.ends import ASKED_AT_MOST
from heliostat.providers.slurm.runner import LocalRunner
from tests import slurm_site
from tests.integration.slurm.launching import LosesReplies, Place, all_in, launched, request, rows_when
from tests.slurm_site import SlurmSite

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]

# A task's memory is looked at every other second, so that what is too much ends soon.
SMALL = """\
MaxArraySize=5
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=2
JobAcctGatherParams=OverMemoryKill
"""
OPTIONS = {"time_limit": 10, "partition": "main", "network": "127.0.0.0/8"}


@pytest.fixture(scope="module")
def small(slurm_folder: Path) -> Iterator[SlurmSite]:
    """A site that takes arrays of five, and kills what uses more memory than it asked for."""
    with slurm_site.start(slurm_folder / "small", nodes=3, extra_conf=SMALL) as site:
        yield site


@pytest.fixture
def place(small: SlurmSite, tmp_path: Path) -> Iterator[Place]:
    yield Place(small, tmp_path, OPTIONS)
    small.cancel_all()


async def test_a_launch_above_the_largest_array_is_several(place: Place) -> None:
    launch = request("l000001", 12)
    async with place.provider() as provider:
        rows = await launched(provider, launch)
        assert set(rows) == set(launch.instance_ids)
        arrays = {row.native_id.partition("_")[0] for row in rows.values()}
        assert len(arrays) == 3
        assert len({row.native_id for row in rows.values()}) == 12


@pytest.mark.parametrize(
    ("behaviour", "words"), [("die", "its script was killed"), ("fill", "exceeded memory limit")]
)
async def test_a_job_that_is_killed_has_failed_in_words(place: Place, behaviour: str, words: str) -> None:
    launch = request("l000001", behaviour=behaviour)
    async with place.provider() as provider:
        await provider.apply(Change(launch=(launch,)))
        rows = await rows_when(
            provider, lambda rows: all_in(rows, launch, BackendState.FAILED), "it has failed"
        )
        assert words in (rows["l000001.0"].detail or "")


async def test_a_node_that_dies_takes_its_instance_and_says_so(place: Place) -> None:
    launch = request("l000001", 3)
    async with place.provider() as provider:
        rows = await launched(provider, launch)
        node = rows["l000001.0"].host or ""
        on_it = {key for key, row in rows.items() if row.host == node}
        place.site.stop_node(node)
        try:
            rows = await rows_when(
                provider,
                lambda rows: all(rows[key].state is BackendState.FAILED for key in on_it),
                "what was on the node has failed",
            )
        finally:
            place.site.start_node(node)
        assert "NODE_FAIL" in (rows["l000001.0"].detail or "")
        assert {key for key, row in rows.items() if row.state is BackendState.RUNNING} == set(rows) - on_it


async def test_a_requeue_by_the_site_brings_no_instance_twice(place: Place) -> None:
    async with place.provider() as provider:
        (row,) = (await launched(provider, request("l000001"))).values()
        asked = place.site.run("scontrol", "requeue", row.native_id, check=False)
        assert asked.returncode != 0
        rows = await rows_when(provider, bool, "it is listed")
        assert {key: (one.native_id, one.state) for key, one in rows.items()} == {
            "l000001.0": (row.native_id, BackendState.RUNNING)
        }
        # An administrator may lift our --no-requeue: the job comes back as what it was, or not at all.
        place.site.run("scontrol", "update", f"JobId={row.native_id}", "Requeue=1")
        place.site.run("scontrol", "requeue", row.native_id)
        rows = await rows_when(
            provider, lambda rows: rows["l000001.0"].state is not BackendState.RUNNING, "it is away"
        )
        assert set(rows) == {"l000001.0"}
        ours = [one for one in place.site.jobs() if one.id == row.native_id]
        assert len(ours) == 1


async def test_of_a_type_that_never_came_up_a_few_run_until_they_are_let_go(place: Place) -> None:
    launch = replace(request("l000001", 5), at_once=2)
    async with place.provider() as provider:
        await provider.apply(Change(launch=(launch,)))
        rows = await rows_when(
            provider,
            lambda rows: sum(one.state is BackendState.RUNNING for one in rows.values()) == 2,
            "two of them run",
        )
        held = {key for key, row in rows.items() if row.throttled}
        assert held == {f"l000001.{index}" for index in range(2, 5)}
        (offer,) = await provider.offers([OfferQuery(launch.node_type, 4)])
        # What we hold back ourselves does not wait for the queue.
        assert offer.ready_at_s is None or offer.ready_at_s < time.time() + 30
        await provider.apply(Change(unthrottle=("cpu",)))
        await rows_when(provider, lambda rows: all_in(rows, launch, BackendState.RUNNING), "all run")
    assert len({row.id.partition("_")[0] for row in place.site.jobs(ended=False)}) == 1


async def test_a_drained_partition_takes_nothing_and_says_so_until_it_is_up_again(place: Place) -> None:
    place.site.run("scontrol", "update", "PartitionName=main", "State=DRAIN")
    try:
        async with place.provider() as provider:
            outcome = await provider.apply(Change(launch=(request("l000001"),)))
            error = outcome.failed_launches["l000001"]
            assert isinstance(error, InsufficientCapacity)
            assert "the site has stopped this partition" in str(error)
            place.site.run("scontrol", "update", "PartitionName=main", "State=UP")
            await launched(provider, request("l000002"))
    finally:
        place.site.run("scontrol", "update", "PartitionName=main", "State=UP")


PREEMPTING = (
    "PartitionName=main Nodes=ALL Default=YES PriorityTier=1 PreemptMode=CANCEL GraceTime=5 State=UP",
    "PartitionName=first Nodes=ALL PriorityTier=10 PreemptMode=OFF State=UP",
)
PREEMPTION = "PreemptType=preempt/partition_prio\nPreemptMode=CANCEL\n"


async def test_a_preempted_job_has_its_new_end_at_once_and_ends_as_such(
    slurm_folder: Path, tmp_path: Path
) -> None:
    conf = {"partitions": PREEMPTING, "extra_conf": PREEMPTION}
    with slurm_site.start(slurm_folder / "preempting", nodes=1, cpus=1, **conf) as site:  # type: ignore[arg-type]
        async with Place(site, tmp_path, OPTIONS).provider() as provider:
            (row,) = (await launched(provider, request("l000001"))).values()
            assert row.expires_at_s is not None
            site.run("sbatch", "--partition=first", "--output=/dev/null", "--chdir=/", "--wrap=sleep 60")
            before_s = row.expires_at_s
            rows = await rows_when(
                provider,
                lambda rows: (rows["l000001.0"].expires_at_s or before_s) < before_s - 300,
                "its end is near",
            )
            # Slurm looks twice a minute for what is to end; then comes TERM, and KillWait for a drain.
            rows = await rows_when(
                provider,
                lambda rows: all_in(rows, request("l000001"), BackendState.ENDED),
                "it has ended",
                within_s=60,
            )
            assert "preempted" in str(rows["l000001.0"].detail)
        site.cancel_all()


async def test_a_lost_reply_is_found_again_by_the_same_provider(place: Place) -> None:
    runner = LosesReplies(LocalRunner(place.site.environment), lost="sbatch")
    launch = request("l000001", 2)
    async with place.provider(runner=runner) as provider:
        outcome = await provider.apply(Change(launch=(launch,)))
        assert isinstance(outcome.failed_launches["l000001"], Unavailable)
        await provider.apply(Change(launch=(launch,)))
        rows = await rows_when(provider, lambda rows: all_in(rows, launch, BackendState.RUNNING), "all run")
        assert set(rows) == set(launch.instance_ids)
        assert runner.counts["sbatch"] == 1
        assert len({row.native_id for row in rows.values()}) == len(place.site.jobs(ended=False)) == 2


async def test_a_lost_reply_is_found_again_by_the_next_provider(place: Place) -> None:
    launch = request("l000001", 2)
    runner = LosesReplies(LocalRunner(place.site.environment), lost="sbatch")
    async with place.provider(runner=runner) as provider:
        await provider.apply(Change(launch=(launch,)))
    async with place.provider() as provider:
        rows = await launched(provider, launch)
        assert set(rows) == set(launch.instance_ids)
        assert len(place.site.jobs(ended=False)) == 2


async def test_what_a_limit_does_not_take_is_told_and_the_rest_runs(
    accounting_folder: Path, tmp_path: Path
) -> None:
    with slurm_site.start(accounting_folder / "limited", nodes=1, cpus=8, accounting=True) as site:
        site.run("sacctmgr", "--immediate", "modify", "qos", "normal", "set", "MaxSubmitJobsPerUser=3")
        launch = request("l000001", 8)
        async with Place(site, tmp_path, OPTIONS).provider() as provider:
            outcome = await provider.apply(Change(launch=(launch,)))
            refused = outcome.failed_instances
            assert outcome.failed_launches == {}
            assert len(refused) == 6
            assert all(isinstance(one, QuotaExceeded) and one.retry_after_s for one in refused.values())
            assert all("QOSMaxSubmitJobPerUserLimit" in str(one) for one in refused.values())
            taken = set(launch.instance_ids) - set(refused)
            rows = await rows_when(
                provider,
                lambda rows: all(key in rows and rows[key].state is BackendState.RUNNING for key in taken),
                "the rest runs",
            )
            assert {key for key, row in rows.items() if row.state is BackendState.RUNNING} == taken
        site.cancel_all()


@pytest.mark.nightly
@pytest.mark.timeout(240)
async def test_what_ended_and_was_forgotten_while_no_provider_was_there_is_told(
    accounting_folder: Path, tmp_path: Path
) -> None:
    launch = request("l000001", 3)
    conf = "MinJobAge=2\n"
    with slurm_site.start(accounting_folder / "old", nodes=1, accounting=True, extra_conf=conf) as site:
        place, asked_s = Place(site, tmp_path, OPTIONS), time.time()
        async with place.provider() as provider:
            rows = await launched(provider, launch)
        killed = rows["l000001.1"].native_id
        site.run("scancel", "--signal=KILL", "--full", killed)
        # slurmctld looks once a minute for what it may forget.
        site.wait_for(lambda: killed not in {row.id for row in site.jobs()}, "forgotten", deadline_s=120)
        runner = LocalRunner(site.environment)
        async with place.provider(runner=runner) as provider:
            provider.recall(dict.fromkeys([*launch.instance_ids, "l000002.0"], asked_s))
            rows = await rows_when(provider, lambda rows: len(rows) == 3, "all are told of")
            assert rows["l000001.1"].state is BackendState.ENDED
            assert rows["l000001.1"].detail == "CANCELLED: cancelled by user id 0"
            assert {rows[f"l000001.{index}"].state for index in (0, 2)} == {BackendState.RUNNING}
            for _ in range(5):
                await provider.instances()
            assert runner.counts["sacct"] <= ASKED_AT_MOST
        site.cancel_all()
