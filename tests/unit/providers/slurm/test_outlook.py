"""When a job would start: expected, seen, tried, in this order."""

from __future__ import annotations

from dataclasses import replace

from heliostat.providers.slurm.outlook import BEYOND_S, LATELY_S, TRIAL_EVERY_S, Outlook
from tests.unit.providers.slurm.jobs_for_tests import RUNNING, WAITING, gang, task

NOW_S = 2000.0


def test_what_slurm_expects_counts_first_the_soonest_of_a_type() -> None:
    outlook = Outlook()
    later, sooner = replace(WAITING, start_s=9000.0), replace(WAITING, array_id=47, start_s=7000.0)
    outlook.saw([later, sooner, task(0, job=RUNNING, array_id=48)], now_s=NOW_S)
    assert outlook.ready_at_s("cpu", now_s=NOW_S) == 7000.0


def test_an_expected_start_that_has_passed_is_now_and_one_in_years_is_unknown() -> None:
    outlook = Outlook()
    outlook.saw([replace(WAITING, start_s=NOW_S - 50)], now_s=NOW_S)
    assert outlook.ready_at_s("cpu", now_s=NOW_S + 5) == NOW_S + 5
    outlook.saw([replace(WAITING, start_s=NOW_S + BEYOND_S + 1)], now_s=NOW_S)
    assert outlook.ready_at_s("cpu", now_s=NOW_S) is None


def test_waits_seen_lately_tell_by_their_median_each_task_once() -> None:
    outlook = Outlook()
    # Submitted at 1000 s, begun at 1010, 1020 and 1300 s.
    jobs = [replace(task(index), start_s=start_s) for index, start_s in enumerate((1010.0, 1020.0, 1300.0))]
    for _ in range(5):
        other = replace(gang(), start_s=1700.0, tag=replace(gang().tag, node_type="gpu"))
        outlook.saw([*jobs, other], now_s=NOW_S)
    assert outlook.ready_at_s("cpu", now_s=NOW_S) == NOW_S + 20.0
    assert outlook.ready_at_s("gpu", now_s=NOW_S) == NOW_S + 700.0
    assert outlook.ready_at_s("cpu", now_s=1010.0 + LATELY_S + 400) is None


def test_what_our_own_throttle_holds_back_tells_nothing_of_the_queue() -> None:
    outlook = Outlook()
    held = replace(WAITING, tasks=(2, 3), throttle=2, reason="JobArrayTaskLimit", start_s=9000.0)
    first = [replace(task(index), start_s=1030.0) for index in (0, 1)]
    outlook.saw([*first, held], now_s=NOW_S)
    assert outlook.ready_at_s("cpu", now_s=NOW_S) == NOW_S + 30
    # The throttle was lifted, and the others began; no row shows it any more.
    outlook.saw([*first, replace(task(2), start_s=1990.0), replace(task(3), start_s=1990.0)], now_s=NOW_S)
    assert outlook.ready_at_s("cpu", now_s=NOW_S) == NOW_S + 30
    last = replace(held, tasks=(3,), throttle=None)
    other = Outlook()
    other.saw([last], now_s=NOW_S)
    assert other.ready_at_s("cpu", now_s=NOW_S) is None


def test_an_array_that_is_throttled_and_waits_for_the_queue_tells_of_it() -> None:
    outlook = Outlook()
    outlook.saw([replace(WAITING, throttle=2, reason="Priority", start_s=9000.0)], now_s=NOW_S)
    assert outlook.ready_at_s("cpu", now_s=NOW_S) == 9000.0


def test_a_trial_is_asked_seldom_and_only_where_nothing_else_tells() -> None:
    outlook = Outlook()
    assert outlook.wants_trial("cpu", now_s=NOW_S)
    outlook.tried("cpu", NOW_S + 500, now_s=NOW_S)
    assert not outlook.wants_trial("cpu", now_s=NOW_S + TRIAL_EVERY_S - 1)
    assert outlook.ready_at_s("cpu", now_s=NOW_S + 100) == NOW_S + 600
    assert outlook.ready_at_s("cpu", now_s=NOW_S + TRIAL_EVERY_S) is None
    assert outlook.wants_trial("cpu", now_s=NOW_S + TRIAL_EVERY_S)
    outlook.saw([replace(task(0), start_s=NOW_S, submitted_s=NOW_S - 5)], now_s=NOW_S)
    assert not outlook.wants_trial("cpu", now_s=NOW_S)


def test_a_trial_that_tells_nothing_is_not_repeated_at_once() -> None:
    outlook = Outlook()
    outlook.tried("cpu", None, now_s=NOW_S)
    assert outlook.ready_at_s("cpu", now_s=NOW_S) is None
    assert not outlook.wants_trial("cpu", now_s=NOW_S + 1)
