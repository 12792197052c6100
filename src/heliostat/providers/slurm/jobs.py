"""The listing: one `squeue` for everything of ours, and its rows. Pure.

Of a user's other jobs only the ids are kept, whatever else is in their rows. A row of ours that can't
be read in full is an error: a listing is whole, or it is none.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from heliostat.providers.slurm.tags import Tag, tag_of

ENVIRONMENT: Mapping[str, str] = {"LC_ALL": "C", "SLURM_BITSTR_LEN": "0", "SLURM_TIME_FORMAT": "%s"}
"""What Slurm's commands need: English words, whole lists of array tasks, times as Unix seconds."""

SEPARATOR, END = "\x1f", "\x1e"
"""Between fields and after each row: a job's name may hold a line break, and people's do."""
FIELDS = ("%F", "%A", "%K", "%T", "%r", "%P", "%S", "%e", "%l", "%L", "%V", "%N", "%k", "%j")
ARRAY_ID, COMMENT, NAME = FIELDS.index("%F"), FIELDS.index("%k"), FIELDS.index("%j")

NO_TIME = ("N/A", "NONE", "Unknown", "")
NO_LIMIT = ("UNLIMITED", "NOT_SET", "INVALID", "Partition_Limit", "")
MULTI_CLUSTER_HEAD = re.compile(r"\n?CLUSTER: .*\n")
TASKS = re.compile(r"([0-9,:-]+)(?:%([0-9]+))?")
TASK_RANGE = re.compile(r"([0-9]+)(?:-([0-9]+)(?::([1-9][0-9]*))?)?")
DURATION = re.compile(r"(?:([0-9]+)-)?(?:([0-9]+):)?([0-9]{1,2}):([0-9]{2})")
SUBMITTED = re.compile(r"([0-9]+)(?:;\S*)?")
WITHOUT_TASKS = ("CANCELLED", "FAILED")
"""States of an array that lost all its waiting tasks, or was refused: squeue shows no task of it (seen)."""
MOST_MEMBERS = 4_000_001
"""The largest MaxArraySize that Slurm allows: no row of ours can hold more."""


@dataclass(frozen=True)
class Job:
    """One row of squeue: a job of ours, or those tasks of an array that are alike.

    `array_id` is the array's id, or the job's own; `job_id` the id that Slurm gives this
    row, which for an array's last task is the array's. `tasks` None: no array; empty: what is
    left of an array of which the waiting tasks, whichever, were cancelled. Times are
    Unix seconds; `start_s` is expected while the job waits, None where Slurm does not
    know. `nodes` is a host list as Slurm writes it. `throttle` is the array's `%` limit.
    """

    array_id: int
    job_id: int
    tasks: tuple[int, ...] | None
    throttle: int | None
    state: str
    reason: str
    partition: str
    start_s: float | None
    end_s: float | None
    time_limit_s: float | None
    submitted_s: float | None
    nodes: str
    name: str
    tag: Tag

    @property
    def members(self) -> tuple[int, ...]:
        """Return the members of the launch in this row: tasks of an array, or ranks of a gang."""
        return self.tasks if self.tasks is not None else tuple(range(self.tag.count))

    @property
    def is_throttled(self) -> bool:
        """Say whether the array's own limit holds these tasks back, now or when their turn comes.

        Of a last waiting task squeue shows no limit, only the reason.
        """
        limited = self.throttle is not None or self.reason == "JobArrayTaskLimit"
        return self.state == "PENDING" and limited

    def moved(self, by_s: float) -> Job:
        """Return the same with all times so much later."""
        times = (None if one is None else one + by_s for one in (self.start_s, self.end_s, self.submitted_s))
        start_s, end_s, submitted_s = times
        return replace(self, start_s=start_s, end_s=end_s, submitted_s=submitted_s)

    def native_id(self, member: int) -> str:
        """Return Slurm's own name of a member: `<array>_<task>`, or a gang's step `<job>.<rank>`."""
        return f"{self.job_id}.{member}" if self.tasks is None else f"{self.array_id}_{member}"


def squeue_command(user: str | None = None) -> tuple[str, ...]:
    """Return the listing's command; `user` None: whoever runs it. It needs `ENVIRONMENT`."""
    whose = "--me" if user is None else f"--user={user}"
    return ("squeue", "--noheader", whose, "--states=all", f"--format={SEPARATOR.join(FIELDS)}{END}")


@dataclass(frozen=True)
class Listing:
    """The rows with our tag, and the ids (an array's own) of the user's other jobs.

    `now_s` is what time it was by the clock that the times are of; None where no running job tells.
    """

    jobs: tuple[Job, ...] = ()
    others: frozenset[int] = frozenset()
    now_s: float | None = None


def parse_squeue(text: str, *, cluster_uid: str | None = None) -> Listing:
    """Return the rows with our tag; with `cluster_uid` only those of that cluster are ours.

    ValueError when one of them can't be read, or the text breaks off.
    """
    jobs, others, nows = [], set(), []
    for fields in _rows(text):
        try:
            nows += _nows(fields)
            tag = tag_of(fields[COMMENT], fields[NAME], cluster_uid=cluster_uid)
            if tag is not None:
                jobs.append(_checked(_parsed(fields, tag)))
            elif fields[ARRAY_ID].isdecimal():
                others.add(int(fields[ARRAY_ID]))
        except ValueError as error:
            raise ValueError(f"squeue's row of job {fields[ARRAY_ID]} can't be read: {error}") from error
    return Listing(tuple(jobs), frozenset(others), max(nows, default=None))


def _nows(fields: Sequence[str]) -> list[float]:
    """Return what a row lets its time be: squeue's host counts how long a job that runs may go on.

    A preemption brings its end forward and a suspension puts it off, which is not counted: the latest of all
    is right.
    """
    state, start, end, limit, left = (fields[FIELDS.index(one)] for one in ("%T", "%S", "%e", "%l", "%L"))
    try:
        limit_s, left_s, start_s, end_s = (
            parse_duration(limit),
            parse_duration(left),
            _time(start),
            _time(end),
        )
    except ValueError:
        return []
    # None is left, as it says, of a job that is over its limit, too.
    if state != "RUNNING" or not left_s or limit_s is None or start_s is None or end_s is None:
        return []
    return [max(end_s - left_s, start_s + limit_s - left_s)]


def parse_submitted(text: str) -> int:
    """Return the job id that `sbatch --parsable` prints, `123` or `123;cluster`.

    A site's own words may stand above it. ValueError when there is none.
    """
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    found = SUBMITTED.fullmatch(lines[-1]) if lines else None
    if found is None:
        raise ValueError(f"sbatch printed {text[:200]!r}; a job id was expected")
    return int(found[1])


def parse_tasks(text: str) -> tuple[tuple[int, ...], int | None]:
    """Return the tasks and the throttle of `0-99%50` or `1,3-7:2`; ValueError for anything else."""
    found = TASKS.fullmatch(text)
    if found is None:
        raise ValueError(f"array tasks are {text!r}; a list such as 0-9,12%4 was expected")
    tasks = [task for part in found[1].split(",") for task in _task_range(part, text)]
    if len(tasks) > MOST_MEMBERS or len(set(tasks)) != len(tasks):
        raise ValueError(f"array tasks are {text!r}, which names a task twice or too many of them")
    return tuple(sorted(tasks)), int(found[2]) if found[2] else None


def parse_duration(text: str) -> float | None:
    """Return the seconds of `30:00`, `4:00:00` or `1-00:00:00`; None where there is no limit."""
    if text in NO_LIMIT:
        return None
    found = DURATION.fullmatch(text)
    if found is None:
        raise ValueError(f"a time limit is {text!r}; [days-][hours:]minutes:seconds was expected")
    days, hours, minutes, seconds = (int(part or 0) for part in found.groups())
    return float(((days * 24 + hours) * 60 + minutes) * 60 + seconds)


def _rows(text: str) -> Iterator[list[str]]:
    *rows, rest = text.split(f"{END}\n")
    if rest.strip():
        raise ValueError(f"squeue's answer breaks off at {rest[-200:]!r}")
    for row in rows:
        fields = MULTI_CLUSTER_HEAD.sub("", row, count=1).split(SEPARATOR, len(FIELDS) - 1)
        if len(fields) != len(FIELDS):
            raise ValueError(f"squeue's row {row[:200]!r} has {len(fields)} fields, not {len(FIELDS)}")
        yield fields


def _parsed(fields: list[str], tag: Tag) -> Job:
    array_id, job_id, tasks, state, reason, partition, start, end, limit, _, submitted, nodes, _, name = (
        fields
    )
    numbers, throttle = parse_tasks(tasks) if tasks != "N/A" else (None, None)
    return Job(
        array_id=int(array_id),
        job_id=int(job_id),
        tasks=numbers,
        throttle=throttle,
        state=state,
        reason=reason,
        partition=partition,
        start_s=_time(start),
        end_s=_time(end),
        time_limit_s=parse_duration(limit),
        submitted_s=_time(submitted),
        nodes=nodes,
        name=name,
        tag=tag,
    )


def _checked(job: Job) -> Job:
    if job.tasks is None and not job.tag.together and job.state in WITHOUT_TASKS:
        return replace(job, tasks=())
    if job.tag.together != (job.tasks is None):
        kinds = ("a gang", "an array") if job.tag.together else ("an array", "one job")
        raise ValueError(f"its comment says {kinds[0]}, but it is {kinds[1]}")
    if job.tasks and job.tasks[-1] >= job.tag.count:
        raise ValueError(f"it has task {job.tasks[-1]}, but its comment says {job.tag.count} in all")
    return job


def _time(text: str) -> float | None:
    if text in NO_TIME:
        return None
    if not re.fullmatch(r"[0-9]+", text):
        raise ValueError(f"a time is {text!r}; Unix seconds were expected (SLURM_TIME_FORMAT=%s)")
    return float(text)


def _task_range(part: str, text: str) -> range:
    found = TASK_RANGE.fullmatch(part)
    if found is None:
        raise ValueError(f"array tasks are {text!r}; {part!r} is no range")
    first = int(found[1])
    return range(first, int(found[2] or first) + 1, int(found[3] or 1))
