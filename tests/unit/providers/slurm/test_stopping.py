"""Ending instances: what waits, what runs, what does not hear; many in one command."""

from __future__ import annotations

from dataclasses import replace

import pytest

from heliostat.providers.slurm.jobs import Job
from heliostat.providers.slurm.members import members_of
from heliostat.providers.slurm.stopping import (
    JOBS_PER_COMMAND,
    TOLD_AGAIN_S,
    Order,
    Stop,
    compressed,
    lonely,
    looked_at,
    orders,
    steps_command,
    told,
)
from tests.unit.providers.slurm.jobs_for_tests import TAG, WAITING, gang, task

GRACE_S = 45.0
GANG = gang()


def asked(stops: dict[str, Stop], *jobs: Job, now_s: float = 100.0) -> list[Order]:
    return list(orders(stops, members_of(jobs).chosen, now_s=now_s, grace_s=GRACE_S))


def commands(stops: dict[str, Stop], *jobs: Job, now_s: float = 100.0) -> list[str]:
    return [" ".join(one.command) for one in asked(stops, *jobs, now_s=now_s)]


def test_of_what_waits_only_those_tasks_are_cancelled() -> None:
    # With a filter (--state=PENDING) scancel takes every task of the array that waits.
    assert commands({"l1.1": Stop(), "l1.3": Stop()}, WAITING) == ["scancel 46_[1,3]"]


def test_what_runs_is_told_gently_and_only_by_its_task_id() -> None:
    # The last task of an array has the array's own id as its job id.
    (order,) = asked({"l1.3": Stop()}, task(3))
    assert order == Order(("scancel", "--signal=TERM", "--batch", "46_3"), ("l1.3",), gently=True)


def test_what_would_wait_for_ever_is_cancelled_too() -> None:
    never = replace(WAITING, reason="PartitionTimeLimit", tasks=(0,))
    assert commands({"l1.0": Stop()}, never) == ["scancel 46_0"]
    assert commands({"l1.0": Stop()}, task(0, "REQUEUE_HOLD")) == ["scancel 46_0"]


def test_told_once_it_has_its_grace_and_then_it_is_cancelled() -> None:
    stops = {"l1.0": Stop()}
    (order,) = asked(stops, task(0), now_s=100.0)
    stops = told(stops, order, now_s=100.0)
    assert commands(stops, task(0), now_s=100.0 + TOLD_AGAIN_S) == []
    # A signal that comes before the job script's first line is lost.
    (again,) = asked(stops, task(0), now_s=100.1 + TOLD_AGAIN_S)
    assert again == order
    stops = told(stops, again, now_s=100.1 + TOLD_AGAIN_S)
    assert commands(stops, task(0), now_s=100.2 + TOLD_AGAIN_S) == []
    assert commands(stops, task(0), now_s=100.1 + GRACE_S) == ["scancel 46_0"]


def test_a_job_that_is_being_set_up_has_nobody_to_hear_a_signal() -> None:
    assert commands({"l1.0": Stop()}, task(0, "CONFIGURING")) == ["scancel 46_0"]


@pytest.mark.parametrize("state", ["COMPLETING", "COMPLETED", "CANCELLED", "FAILED"])
def test_what_is_over_or_ends_is_left_alone(state: str) -> None:
    assert commands({"l1.0": Stop(0.0, 0.0)}, task(0, state), now_s=1e6) == []


def test_nobody_else_is_told() -> None:
    assert commands({"l1.0": Stop(), "l9.0": Stop()}, task(0), task(1)) == [
        "scancel --signal=TERM --batch 46_0"
    ]


def test_of_a_gang_single_members_end_alone_and_all_of_them_with_the_job() -> None:
    some, every = {"g1.1": Stop()}, {f"g1.{rank}": Stop() for rank in range(3)}
    assert commands(some, gang()) == ["scancel --signal=TERM 50.1"]
    assert commands({"g1.1": Stop(0.0, 0.0)}, gang()) == ["scancel 50.1"]
    assert commands(every, gang()) == ["scancel --signal=TERM --batch 50"]
    assert commands(every, gang("PENDING")) == ["scancel 50"]
    assert commands({key: Stop(0.0, 0.0) for key in every}, gang()) == ["scancel 50"]


def after(stops: dict[str, Stop], *steps: str, now_s: float = 100.0, job: Job = GANG) -> dict[str, Stop]:
    asked = lonely(stops, members_of([job]).chosen)
    return looked_at(stops, asked, steps, now_s=now_s, grace_s=GRACE_S)


def test_a_step_that_has_run_and_does_not_any_more_is_over_and_told_nothing() -> None:
    stops = after({"g1.1": Stop(100.0, 100.0)}, "50.0", "50.1", "50.2", "50.batch")
    assert stops == {"g1.1": Stop(100.0, 100.0, seen=True)}
    stops = after(stops, "50.0", "50.2")
    assert stops["g1.1"].over
    assert commands(stops, GANG, now_s=1e6) == []
    assert lonely(stops, members_of([GANG]).chosen) == []


def test_a_step_that_never_ran_may_be_about_to_until_its_grace_is_over() -> None:
    stops = after({"g1.1": Stop(100.0, 100.0)}, "50.0", now_s=110.0)
    assert not stops["g1.1"].over
    assert not after({"g1.1": Stop()}, "50.0")["g1.1"].over
    assert after(stops, "50.0", now_s=101.0 + GRACE_S)["g1.1"].over


def test_steps_are_asked_for_only_where_a_gang_goes_on_without_a_member() -> None:
    every = {f"g1.{rank}": Stop() for rank in range(3)}
    for stops, job in (
        ({}, GANG),
        (every, GANG),
        ({"g1.1": Stop()}, gang("PENDING")),
        ({"g1.1": Stop()}, gang("COMPLETED")),
        ({"l1.0": Stop()}, task(0)),
    ):
        assert lonely(stops, members_of([job]).chosen) == []
    asked = lonely({"g1.1": Stop(), "g1.2": Stop()}, members_of([GANG]).chosen)
    assert steps_command(asked) == ("squeue", "--noheader", "--steps", "--jobs=50", "--format=%i")


def test_many_are_told_in_few_commands() -> None:
    jobs = [task(index, array_id=10_000) for index in range(4)]
    stops = {f"l1.{index}": Stop() for index in range(4)}
    assert commands(stops, *jobs) == ["scancel --signal=TERM --batch 10000_[0-3]"]


def test_a_command_line_does_not_grow_without_end() -> None:
    count = JOBS_PER_COMMAND + 1
    wide = replace(WAITING, tasks=tuple(range(count)), tag=replace(TAG, count=count))
    stops = {f"l1.{index}": Stop() for index in range(count)}
    found = asked(stops, wide)
    assert [len(one.instance_ids) for one in found] == [JOBS_PER_COMMAND, 1]


def test_ids_are_written_as_scancel_reads_them() -> None:
    members = members_of([task(0), task(2), task(3), gang()]).chosen.values()
    assert compressed(members) == ["46_[0,2-3]", "50"]
    assert compressed(members, steps=True) == ["46_[0,2-3]", "50.0", "50.1", "50.2"]
