"""A launch as jobs: as many arrays as it takes, and a few that run at first in all of them together."""

from __future__ import annotations

from dataclasses import replace

import pytest

from heliostat.model.instance import LaunchRequest
from heliostat.model.node_type import NodeType
from heliostat.model.resources import Resources
from heliostat.ports.errors import InvalidRequest
from heliostat.ports.provider import ClusterIdentity
from heliostat.providers.slurm.options import SlurmOptions
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


def test_a_gang_is_one_job_however_many() -> None:
    (ask,) = asks(replace(launch(2500), together=True), AROUND, now_s=0.0)
    assert (ask.count, ask.together) == (2500, True)


def test_an_id_that_would_not_be_safe_in_a_path_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="letters and digits"):
        asks(launch(1, launch_id="l1/../x"), AROUND, now_s=0.0)
