"""A launch as jobs: as many arrays as it takes, and a few that run at first in all of them together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from heliostat.model.instance import Change, LaunchRequest
from heliostat.model.node_type import NodeType
from heliostat.model.resources import Resources
from heliostat.ports.errors import InvalidRequest
from heliostat.ports.provider import ClusterIdentity, ProviderContext
from heliostat.providers.slurm.options import SlurmOptions
from heliostat.providers.slurm.provider import SlurmProvider
from heliostat.providers.slurm.runner import Output
from heliostat.providers.slurm.submitting import Surroundings, asks

AROUND = Surroundings(
    ClusterIdentity("demo", "uid", "ada"),
    SlurmOptions(),
    "/logs",
    "",
    max_array_size=1000,
    lease_end_s=4000.0,
)
KIND = NodeType("cpu", "slurm", Resources.of({"CPU": 1}), shape_id="s1", max_workers=9999)


def launch(count: int, at_once: int | None = None, launch_id: str = "l1") -> LaunchRequest:
    return LaunchRequest(launch_id, KIND, count, {}, at_once=at_once)


def test_a_launch_is_as_many_arrays_as_it_takes() -> None:
    found = asks(launch(2500), AROUND, now_s=1000.0)
    assert [(one.first, one.count, one.tag.first, one.tag.count) for one in found] == [
        (0, 1000, 0, 1000),
        (1000, 1000, 1000, 1000),
        (2000, 500, 2000, 500),
    ]
    assert {one.time_limit_s for one in found} == {3000.0}


@pytest.mark.parametrize(
    ("count", "at_once", "each"),
    [(5, None, [None]), (5, 3, [3]), (2500, 3, [1, 1, 1]), (2500, 10, [3, 3, 3]), (2500, 2, [1, 1, 1])],
)
def test_the_few_that_run_at_first_are_few_in_all_arrays(
    count: int, at_once: int | None, each: list[int | None]
) -> None:
    assert [one.at_once for one in asks(launch(count, at_once), AROUND, now_s=0.0)] == each


@pytest.mark.parametrize(
    ("lease_end_s", "usual_s", "asked_s"),
    [(4000.0, 600.0, 600.0), (4000.0, 7200.0, 3000.0), (None, 600.0, None)],
)
def test_a_head_that_ends_late_lets_nobody_ask_for_more_than_is_usual(
    lease_end_s: float | None, usual_s: float, asked_s: float | None
) -> None:
    around = replace(AROUND, lease_end_s=lease_end_s, usual_s=usual_s)
    (ask,) = asks(launch(1), around, now_s=1000.0)
    assert ask.time_limit_s == asked_s


class Site:
    """Answers as the captured site, and keeps what it is asked to start."""

    def __init__(self) -> None:
        self.submitted: list[Sequence[str]] = []

    async def run(self, argv: Sequence[str], *, stdin: str = "", deadline_s: float) -> Output:
        files = {"config": "config.txt", "partition": "partitions.txt", "--all": "nodes.txt"}
        if argv[0] == "sbatch":
            self.submitted.append(argv)
            return Output(0, "7\n", "")
        captured = Path(__file__).parent / "captured"
        name = files.get(argv[2]) if argv[0] in ("scontrol", "sinfo") else None
        return Output(0, (captured / name).read_text() if name else "", "")

    async def aclose(self) -> None: ...


@pytest.mark.parametrize(
    ("options", "time"),
    [({}, 60), ({"time_limit": "04:00:00"}, 240), ({"partition": "debug"}, 10), ({"time_limit": 1000}, 720)],
    ids=["the default", "its own", "the most", "the head's"],
)
async def test_under_a_head_with_a_lease_no_job_asks_for_more_than_its_partition_gives(
    tmp_path: Path, options: dict[str, object], time: int
) -> None:
    bootstrap, site = tmp_path / "bootstrap.py", Site()
    bootstrap.write_text("")
    context = ProviderContext(
        AROUND.identity, {}, str(tmp_path), str(tmp_path), str(bootstrap), lease_end_s=lambda: 43_200.0
    )
    slurm = SlurmProvider(context, runner=site, environment={}, now_s=lambda: 0.0)
    request = replace(launch(1), node_type=replace(KIND, options=options))
    await slurm.apply(Change(launch=(request,)))
    (argv,) = site.submitted
    assert [one for one in argv if one.startswith("--time=")] == [f"--time={time}"]


def test_a_gang_is_one_job_however_many() -> None:
    (ask,) = asks(replace(launch(2500), together=True), AROUND, now_s=0.0)
    assert (ask.count, ask.together) == (2500, True)


def test_an_id_that_would_not_be_safe_in_a_path_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="letters and digits"):
        asks(launch(1, launch_id="l1/../x"), AROUND, now_s=0.0)
