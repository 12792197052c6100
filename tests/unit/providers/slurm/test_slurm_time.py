"""Slurm's clock and the controller's: by what a listing tells, leases are as long as Slurm makes them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from heliostat.ports.provider import ClusterIdentity, ProviderContext
from heliostat.providers.slurm.jobs import END, SEPARATOR, parse_squeue
from heliostat.providers.slurm.provider import SlurmProvider
from heliostat.providers.slurm.runner import Output
from heliostat.providers.slurm.slurm_time import APART_S, SlurmTime
from heliostat.providers.slurm.tags import Tag, comment
from tests.unit.providers.slurm.jobs_for_tests import RUNNING, WAITING

HOUR_S = 3_600.0
NOW_S = 1_795_267_600.0
TAG = Tag("demo", "0123456789abcdef", "ada", "l1", "cpu", "s1", 1)


def row(*, state: str = "RUNNING", began_s_ago: int = 600, limit: str = "30:00", left: str = "20:00") -> str:
    """A row of a job, by a clock that shows `NOW_S`: one of half an hour that has 20 minutes to go."""
    start, end = int(NOW_S) - began_s_ago, int(NOW_S) - began_s_ago + 1800
    fields = f"1|1|0|{state}|None|main|{start}|{end}|{limit}|{left}|{start}|n1|{comment(TAG)}|hel-01-l1"
    return fields.replace("|", SEPARATOR) + END + "\n"


@pytest.mark.parametrize(
    ("rows", "now_s"),
    [
        (row(), NOW_S),
        # It was suspended for five minutes, by which its end was put off: start and end say other things.
        (row(began_s_ago=900, left="20:00") + row(), NOW_S),
        (row(state="PENDING"), None),
        (row(state="SUSPENDED"), None),
        (row(left="0:00"), None),
        (row(limit="UNLIMITED", left="UNLIMITED"), None),
        (row(left="N/A"), None),
        ("", None),
    ],
)
def test_a_job_that_runs_tells_what_time_it_is(rows: str, now_s: float | None) -> None:
    assert parse_squeue(rows).now_s == now_s


def test_all_times_of_a_job_move_together() -> None:
    moved = RUNNING.moved(-10.0)
    assert (moved.start_s, moved.end_s, moved.submitted_s) == (1000.0, 4600.0, 990.0)
    assert WAITING.moved(5.0).start_s is None


def test_small_differences_are_none_and_without_a_job_that_runs_it_is_this_hosts() -> None:
    host_s = [NOW_S]
    time = SlurmTime(lambda: NOW_S, lambda: host_s[0])
    for seen_s, ahead_s in (
        (NOW_S + APART_S, 0.0),
        (NOW_S - HOUR_S, -HOUR_S),
        (NOW_S - HOUR_S + 2.0, -HOUR_S),
    ):
        time.saw(seen_s)
        assert time.ahead_s == ahead_s
    time.saw(None)
    assert time.ahead_s == 0.0
    host_s[0] += HOUR_S
    time.saw(None)
    assert time.ahead_s == HOUR_S


def test_through_ssh_what_was_told_holds_while_nothing_tells() -> None:
    host_s = [NOW_S + HOUR_S]
    time = SlurmTime(lambda: NOW_S, lambda: host_s[0], elsewhere=True)
    time.saw(None)
    assert time.ahead_s == HOUR_S
    time.saw(NOW_S - 60.0)
    host_s[0] += HOUR_S
    time.saw(None)
    assert time.ahead_s == -60.0
    time.saw(NOW_S)
    assert time.ahead_s == 0.0


class Queue:
    async def run(self, argv: Sequence[str], *, stdin: str = "", deadline_s: float) -> Output:
        return Output(0, row() if argv[0] == "squeue" else "", "")

    async def aclose(self) -> None: ...


@pytest.mark.parametrize("off_s", [-2 * HOUR_S, 0.0, 2 * HOUR_S])
async def test_a_lease_ends_when_slurm_ends_it_whatever_the_controllers_clock_shows(
    off_s: float, tmp_path: Path
) -> None:
    identity = ClusterIdentity("demo", TAG.cluster_uid, "ada")
    context = ProviderContext(
        identity, {}, str(tmp_path), str(tmp_path), "/none", now_s=lambda: NOW_S + off_s
    )
    provider = SlurmProvider(context, runner=Queue(), environment={})
    (found,) = await provider.instances()
    assert found.started_at_s == NOW_S + off_s - 600
    assert found.expires_at_s is not None
    # A twentieth of it at most is for leases that do not all end at once.
    assert 20 * 60 - 90 <= found.expires_at_s - (NOW_S + off_s) <= 20 * 60
    await provider.aclose()
