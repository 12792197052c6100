"""The listing: rows as squeue 22.05.8 prints them, with what else may stand in a user's queue."""

from __future__ import annotations

import pytest

from heliostat.providers.slurm.jobs import (
    END,
    ENVIRONMENT,
    FIELDS,
    SEPARATOR,
    Job,
    Listing,
    parse_duration,
    parse_squeue,
    parse_submitted,
    parse_tasks,
    squeue_command,
)
from heliostat.providers.slurm.tags import Tag, comment, job_name

UID = "0123456789abcdef"
TAG = Tag("demo", UID, "ada", "l1", "cpu", "s1", 10)
GANG = Tag("demo", UID, "ada", "g1", "cpu", "s1", 2, together=True)


def rows(*every: str) -> str:
    """Rows with | for the separator, as squeue writes them with our format."""
    return "".join(row.replace("|", SEPARATOR) + END + "\n" for row in every)


WAITING = (
    "1|1|2-9%2|PENDING|JobArrayTaskLimit|main|N/A|N/A|30:00|30:00|1795267574||"
    f"{comment(TAG)} my own note|hel-01-l1"
)
LAST_TASK = (
    f"1|1|9|RUNNING|None|main|1795267576|1795269376|30:00|29:50|1795267574|n1|{comment(TAG)}|hel-01-l1"
)
FIRST_TASK = LAST_TASK.replace("1|1|9", "1|9|0", 1)
TOGETHER = (
    f"2|2|N/A|RUNNING|None|main|1795267576|1795269376|30:00|29:50|1795267574|n[2-3]|{comment(GANG)}|hel-01-g1"
)
OF_THE_USER = (
    "8|8|1,3,5,7,10-900%3|PENDING|JobHeldUser|main|N/A|N/A|5:00:00|5:00:00|1795267575||(null)|array",
    "4|4|N/A|RUNNING|None|main|1795267576|1795269376|30:00|29:50|1795267575|n4|two\nlines | x|new\nline",
    "5|5|N/A|what|?|||never||||n[|heliostat: runs|hel-01234567-l1",
)


def test_the_command_asks_once_for_everything_and_prints_what_can_be_told_apart() -> None:
    command = squeue_command("ada")
    assert command[:4] == ("squeue", "--noheader", "--user=ada", "--states=all")
    assert command[4] == "--format=" + "\x1f".join(FIELDS) + "\x1e"
    assert squeue_command()[2] == "--me"
    assert ENVIRONMENT["SLURM_TIME_FORMAT"] == "%s"
    assert ENVIRONMENT["SLURM_BITSTR_LEN"] == "0"


def test_a_waiting_array_is_one_row() -> None:
    (job,) = parse_squeue(rows(WAITING)).jobs
    assert job == Job(
        array_id=1,
        job_id=1,
        tasks=tuple(range(2, 10)),
        throttle=2,
        state="PENDING",
        reason="JobArrayTaskLimit",
        partition="main",
        start_s=None,
        end_s=None,
        time_limit_s=1800.0,
        submitted_s=1795267574.0,
        nodes="",
        name="hel-01-l1",
        tag=TAG,
    )
    assert job.members == tuple(range(2, 10))


def test_the_last_tasks_own_id_is_the_arrays_so_tasks_are_named_by_number() -> None:
    last, first = parse_squeue(rows(LAST_TASK, FIRST_TASK)).jobs
    assert (last.job_id, last.members, last.native_id(9)) == (1, (9,), "1_9")
    assert (first.job_id, first.members, first.native_id(0)) == (9, (0,), "1_0")
    assert (last.start_s, last.end_s, last.nodes) == (1795267576.0, 1795269376.0, "n1")


def test_a_gangs_members_are_its_steps() -> None:
    (job,) = parse_squeue(rows(TOGETHER)).jobs
    assert job.tasks is None
    assert [job.native_id(member) for member in job.members] == ["2.0", "2.1"]


def test_an_array_that_lost_all_its_waiting_tasks_has_none() -> None:
    left = WAITING.replace("2-9%2", "N/A").replace("PENDING", "CANCELLED").replace("N/A|N/A|30", "7|8|30")
    (job,) = parse_squeue(rows(left)).jobs
    assert (job.state, job.tasks, job.members) == ("CANCELLED", (), ())


def test_rows_of_others_are_dropped_whatever_is_in_them() -> None:
    mixed = rows(OF_THE_USER[0], WAITING, OF_THE_USER[1], OF_THE_USER[2], TOGETHER)
    assert [job.array_id for job in parse_squeue(mixed).jobs] == [1, 2]
    assert parse_squeue("") == Listing()
    assert parse_squeue(rows(*OF_THE_USER)) == Listing((), frozenset({4, 5, 8}), 1795267586.0)


def test_a_row_whose_comment_the_site_has_changed_is_known_by_its_name() -> None:
    changed = WAITING.replace(f"{comment(TAG)} my own note", "project 7").replace("hel-01-l1", job_name(TAG))
    (job,) = parse_squeue(rows(changed), cluster_uid=UID).jobs
    assert (job.tag.launch_id, job.tag.count, job.throttle) == ("l1", 10, 2)
    lost = changed.replace(job_name(TAG), "p7")
    assert parse_squeue(rows(lost), cluster_uid=UID) == Listing((), frozenset({1}))


def test_rows_of_another_cluster_are_dropped_even_broken_or_newer_ones() -> None:
    broken = WAITING.replace(UID, "another").replace(":array", ":heap")
    newer = WAITING.replace(f"heliostat:1:{UID}", "heliostat:2:another")
    assert [job.array_id for job in parse_squeue(rows(broken, newer, TOGETHER), cluster_uid=UID).jobs] == [2]
    with pytest.raises(ValueError, match="job 1 can't be read"):
        parse_squeue(rows(broken))


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("2-9%2", "2-9,...%2", "a list such as"),
        ("2-9%2", "2-9%", "a list such as"),
        ("2-9%2", "2-x", "a list such as"),
        ("2-9%2", "2-,4", "is no range"),
        ("2-9%2", "2-4,4-9", "names a task twice"),
        ("2-9%2", "2-10", "task 10, but its comment says 10 in all"),
        ("2-9%2", "N/A", "its comment says an array, but it is one job"),
        ("1795267574", "2026-11-21T03:05:09", "Unix seconds were expected"),
        ("30:00", "half an hour", "a time limit is"),
        (":array", ":gang", "its comment says a gang, but it is an array"),
        (":array my", " my", "has 10 fields"),
        ("1|1|", "1|one|", "invalid literal"),
    ],
)
def test_anything_odd_in_a_row_of_ours_is_an_error(old: str, new: str, said: str) -> None:
    assert old in WAITING
    with pytest.raises(ValueError, match=f"squeue's row of job 1 can't be read: .*{said}"):
        parse_squeue(rows(OF_THE_USER[0], WAITING.replace(old, new, 1)))


def test_half_a_listing_is_none() -> None:
    whole = rows(OF_THE_USER[0], WAITING)
    for length in range(1, len(whole)):
        if whole[:length].endswith(END + "\n"):
            continue
        with pytest.raises(ValueError, match="breaks off"):
            parse_squeue(whole[:length])
    with pytest.raises(ValueError, match="has 2 fields, not 14"):
        parse_squeue(rows("12|12"))


def test_the_head_that_a_multi_cluster_squeue_prints_is_no_field() -> None:
    text = "CLUSTER: big\n" + rows(TOGETHER) + "\nCLUSTER: small\n" + rows(FIRST_TASK)
    assert parse_squeue(text) == parse_squeue(rows(TOGETHER, FIRST_TASK))


@pytest.mark.parametrize(
    ("text", "tasks", "throttle"),
    [
        ("0", (0,), None),
        ("0-3", (0, 1, 2, 3), None),
        ("1,3-7:2%50", (1, 3, 5, 7), 50),
        ("10-12,0", (0, 10, 11, 12), None),
    ],
)
def test_tasks(text: str, tasks: tuple[int, ...], throttle: int | None) -> None:
    assert parse_tasks(text) == (tasks, throttle)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0:45", 45),
        ("30:00", 1800),
        ("5:00:00", 18000),
        ("1-00:00:00", 86400),
        ("UNLIMITED", None),
        ("Partition_Limit", None),
    ],
)
def test_durations(text: str, seconds: float | None) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["46\n", "46;big\n", "Welcome to Big!\n\n46;big\n\n"])
def test_what_sbatch_prints(text: str) -> None:
    assert parse_submitted(text) == 46


@pytest.mark.parametrize("text", ["", "Submitted batch job 46\n", "46\nbye\n"])
def test_an_answer_without_a_job_id_is_an_error(text: str) -> None:
    with pytest.raises(ValueError, match="a job id was expected"):
        parse_submitted(text)
