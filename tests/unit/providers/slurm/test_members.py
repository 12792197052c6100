"""Instances out of squeue's rows."""

from __future__ import annotations

from dataclasses import replace

from heliostat.model.instance import BackendState
from heliostat.providers.slurm.members import members_of, row_of
from heliostat.providers.slurm.tags import stagger_s
from tests.unit.providers.slurm.jobs_for_tests import TAG, WAITING, gang, task


def test_an_arrays_tasks_are_instances_wherever_their_rows_are() -> None:
    found = members_of([replace(WAITING, tasks=(2, 3)), task(0), task(1, "COMPLETED")]).chosen
    assert {key: (one.native_id, one.state) for key, one in found.items()} == {
        "l1.0": ("46_0", BackendState.RUNNING),
        "l1.1": ("46_1", BackendState.ENDED),
        "l1.2": ("46_2", BackendState.QUEUED),
        "l1.3": ("46_3", BackendState.QUEUED),
    }


def test_a_launch_in_pieces_counts_on() -> None:
    second = replace(WAITING, array_id=47, tag=replace(TAG, first=1001, count=4))
    assert sorted(members_of([second]).chosen) == ["l1.1001", "l1.1002", "l1.1003", "l1.1004"]


def test_a_gangs_members_are_the_steps_of_one_job() -> None:
    found = members_of([gang()]).chosen
    rows = [row_of(one, stopping=False, notice_s=None) for one in found.values()]
    assert [(row.instance_id, row.native_id, row.allocation_id) for row in rows] == [
        ("g1.0", "50.0", "50"),
        ("g1.1", "50.1", "50"),
        ("g1.2", "50.2", "50"),
    ]


def test_of_two_jobs_for_one_instance_what_runs_counts_then_the_older() -> None:
    older, newer = task(0, array_id=46), task(0, array_id=90)
    waiting = replace(WAITING, tasks=(0,))
    for order in (1, -1):
        both = members_of([older, newer][::order])
        assert both.chosen["l1.0"].job.array_id == 46
        assert [one.native_id for one in both.doubles] == ["90_0"]
        begun = members_of([waiting, newer][::order])
        assert begun.chosen["l1.0"].job.array_id == 90
        assert [one.native_id for one in begun.doubles] == ["46_0"]
        ending = members_of([task(0, "COMPLETING", array_id=46), newer][::order])
        assert ending.chosen["l1.0"].job.array_id == 90
        assert [one.native_id for one in ending.doubles] == ["46_0"]
        dead = members_of([task(0, "FAILED", array_id=46), newer][::order])
        assert (dead.chosen["l1.0"].job.array_id, dead.doubles) == (90, ())


def test_a_row_tells_the_queue_from_the_lease() -> None:
    (waiting, *_) = members_of([replace(WAITING, start_s=5000.0, throttle=3)]).chosen.values()
    row = row_of(waiting, stopping=False, notice_s=60.0)
    assert (row.state, row.expected_start_s, row.started_at_s) == (BackendState.QUEUED, 5000.0, None)
    assert (row.expires_at_s, row.throttled) == (None, True)
    (running,) = members_of([task(2)]).chosen.values()
    row = row_of(running, stopping=False, notice_s=60.0)
    assert (row.expected_start_s, row.started_at_s, row.notice_s) == (None, 1010.0, 60.0)
    assert row.expires_at_s == 4610.0 - stagger_s(2, 3600.0)
    assert (row.host, row.slot, row.throttled) == ("n1", "n1 (main)", False)


def test_what_was_asked_to_end_is_stopping_until_it_is_over() -> None:
    (running,) = members_of([task(0)]).chosen.values()
    assert row_of(running, stopping=True, notice_s=None).state is BackendState.STOPPING
    (over,) = members_of([task(0, "COMPLETED")]).chosen.values()
    assert row_of(over, stopping=True, notice_s=None).state is BackendState.ENDED


def test_a_job_without_an_end_has_no_lease() -> None:
    (endless,) = members_of([replace(task(0), end_s=None)]).chosen.values()
    assert row_of(endless, stopping=False, notice_s=None).expires_at_s is None


def test_what_will_never_start_is_a_failure_that_still_stands_in_the_queue() -> None:
    job = replace(WAITING, tasks=(0,), reason="PartitionTimeLimit")
    (member,) = members_of([job]).chosen.values()
    assert (member.state, member.is_over) == (BackendState.FAILED, False)
    assert row_of(member, stopping=True, notice_s=None).state is BackendState.STOPPING


def test_an_array_whose_waiting_tasks_were_cancelled_names_none_of_them() -> None:
    rest = replace(WAITING, tasks=(), state="CANCELLED")
    found = members_of([task(1), rest]).chosen
    assert {key: one.state for key, one in found.items()} == {
        "l1.0": BackendState.ENDED,
        "l1.1": BackendState.RUNNING,
        "l1.2": BackendState.ENDED,
        "l1.3": BackendState.ENDED,
    }


def test_the_last_task_that_an_array_holds_back_is_known_by_its_reason() -> None:
    last = replace(WAITING, tasks=(3,), throttle=None, reason="JobArrayTaskLimit")
    (member,) = members_of([last]).chosen.values()
    assert row_of(member, stopping=False, notice_s=None).throttled
