"""Jobs that the site left without name and comment: by their id they are found, cancelled and told."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from heliostat.model.instance import BackendState, Change, LaunchRequest, OfferQuery
from heliostat.model.node_type import NodeType
from heliostat.model.resources import Resources
from heliostat.ports.errors import InvalidRequest, Unavailable
from heliostat.ports.provider import ClusterIdentity, ProviderContext
from heliostat.providers.slurm.jobs import END, SEPARATOR, Listing
from heliostat.providers.slurm.provider import LAUNCHES_KEPT, SlurmProvider
from heliostat.providers.slurm.runner import Output
from heliostat.providers.slurm.untagged import FRESH_AT_MOST, WHY, Untagged
from tests.unit.providers.slurm.jobs_for_tests import RUNNING, TAG

CAPTURED = Path(__file__).parent / "captured"
GANG = replace(TAG, launch_id="g1", count=2, together=True)


def test_a_job_that_no_row_of_ours_has_is_stray_and_its_instances_have_failed() -> None:
    untagged = Untagged()
    untagged.took({46: TAG, 50: GANG, 51: TAG})
    untagged.saw(Listing((replace(RUNNING, array_id=51),), frozenset({50, 99})))
    assert set(untagged.stray) == {50}
    assert set(untagged.fresh) == {46}
    rows = {row.instance_id: row for row in untagged.rows(terminated=())}
    assert {key: (row.native_id, row.state) for key, row in rows.items()} == {
        "g1.0": ("50.0", BackendState.FAILED),
        "g1.1": ("50.1", BackendState.FAILED),
    }
    assert WHY in str(rows["g1.0"].detail)
    untagged.cancelled([50])
    assert untagged.stray == {}
    assert [row.instance_id for row in untagged.rows(terminated=("g1.1",))] == ["g1.0"]
    assert "cpu" in str(untagged.why("cpu"))
    assert untagged.why("gpu") is None


def test_only_so_many_fresh_ones_are_remembered() -> None:
    untagged = Untagged()
    untagged.took(dict.fromkeys(range(FRESH_AT_MOST + 5), TAG))
    assert list(untagged.fresh) == list(range(5, FRESH_AT_MOST + 5))


class Site:
    """Answers as a site whose plug-in gives every job a name and a comment of its own."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.cancelled: list[str] = []
        self.silent = False
        self.lists = True

    async def run(self, argv: Sequence[str], *, stdin: str = "", deadline_s: float) -> Output:
        self.counts[argv[0]] += 1
        if argv[0] == "scancel":
            if self.silent:
                raise Unavailable("scancel did not answer")
            self.cancelled += argv[1:]
        if argv[0] == "squeue" and not self.lists:
            raise Unavailable("squeue did not answer")
        answers = {
            "sbatch": "7\n",
            "squeue": self._row() if self.counts["sbatch"] else "",
            "sinfo": (CAPTURED / "nodes.txt").read_text(),
        }
        if argv[0] == "scontrol":
            return Output(0, (CAPTURED / f"{argv[2]}s.txt".replace("configs", "config")).read_text(), "")
        return Output(0, answers.get(argv[0], ""), "")

    def _row(self) -> str:
        job = ("7", "7", "0", "RUNNING", "None", "main", "1", "2", "30:00", "30:00", "1", "n1", "p7", "job")
        return SEPARATOR.join(job) + END + "\n"

    async def aclose(self) -> None: ...


def provider(site: Site, folder: Path) -> SlurmProvider:
    bootstrap = folder / "bootstrap.py"
    bootstrap.write_text("")
    identity = ClusterIdentity("demo", "uid-of-ours", "ada")
    context = ProviderContext(identity, {}, str(folder / "run"), str(folder), str(bootstrap))
    return SlurmProvider(context, runner=site, environment={})


def launch(launch_id: str = "l1") -> LaunchRequest:
    node_type = NodeType("cpu", "slurm", Resources.of({"CPU": 1}), shape_id="s1", max_workers=4)
    return LaunchRequest(launch_id, node_type, 1, {"gcs_address": "127.0.0.1:6379"})


async def test_a_job_that_can_not_be_known_again_goes_and_no_other_is_submitted(tmp_path: Path) -> None:
    site = Site()
    slurm = provider(site, tmp_path)
    assert not (await slurm.apply(Change(launch=(launch(),)))).failed_launches
    (row,) = await slurm.instances()
    assert (row.instance_id, row.state, site.cancelled) == ("l1.0", BackendState.FAILED, ["7"])
    assert WHY in str(row.detail)
    outcome = await slurm.apply(Change(launch=(launch("l2"),), terminate=("l1.0",)))
    assert isinstance(outcome.failed_launches["l2"], InvalidRequest)
    (offer,) = await slurm.offers([OfferQuery(launch().node_type, 4)])
    assert offer.count == 0
    assert WHY in str(offer.why)
    assert await slurm.instances() == []
    assert (site.cancelled, site.counts["sbatch"]) == (["7"], 1)
    # `heliostat apply` reads the file again: the site may have been mended.
    slurm.complete(launch().node_type)
    assert not (await slurm.apply(Change(launch=(launch("l3"),)))).failed_launches


async def test_a_stray_job_is_cancelled_as_often_as_it_takes(tmp_path: Path) -> None:
    site = Site()
    slurm = provider(site, tmp_path)
    await slurm.apply(Change(launch=(launch(),)))
    site.silent = True
    assert len(await slurm.instances()) == 1
    site.silent = False
    await slurm.instances()
    assert site.cancelled == ["7"]


@pytest.mark.parametrize("silent", [False, True])
async def test_a_trial_that_is_interrupted_leaves_no_job_either(tmp_path: Path, silent: bool) -> None:
    site = Site()
    slurm = provider(site, tmp_path)
    trial = asyncio.ensure_future(slurm.rehearse(launch(), head_host="127.0.0.1", wait_s=60.0))
    async with asyncio.timeout(10):
        while not site.counts["sbatch"]:
            await asyncio.sleep(0)
    site.lists = not silent
    trial.cancel()
    with pytest.raises(asyncio.CancelledError):
        await trial
    assert site.cancelled == ["7"]


async def test_launches_of_long_ago_are_forgotten(tmp_path: Path) -> None:
    slurm = provider(Site(), tmp_path)
    slurm._remember(f"l{number}" for number in range(2 * LAUNCHES_KEPT))
    slurm._remember(["l3", "new"])
    assert len(slurm._launched) == LAUNCHES_KEPT + 2
    assert {"l3", "new", f"l{2 * LAUNCHES_KEPT - 1}"} <= set(slurm._launched)
