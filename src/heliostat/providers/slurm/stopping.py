"""How instances are ended: gently through the bootstrap, then for good; what waits is just cancelled.

    waits in the queue   scancel, never with a filter: `--state=PENDING 60_3` takes all of 60 that waits
    runs                 scancel --signal=TERM to the batch script, which is the bootstrap: it drains, and
                         ends; again after a while, since one before the script's first line is lost
    still runs later     scancel
    a gang's member      the same for its step alone, unless all members of the gang end

A gang's job runs on without a member, and squeue lists the job as before, so its steps are asked for.
What scancel says of a step tells nothing: 22.05 calls one that it has signalled an invalid id (seen).

Decided anew from every listing, so that nothing is forgotten when a command fails or a job starts
at the wrong moment. One command names many jobs: their number does not grow with the cluster. Pure.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from heliostat.providers.slurm.members import Member

TOLD_AGAIN_S = 5.0
"""The bootstrap does not mind to be told twice."""

JOBS_PER_COMMAND = 500
"""A command line must not grow without end."""


@dataclass(frozen=True)
class Stop:
    """When an instance's bootstrap was first and last told to end (monotonic seconds), None: not yet.

    Of a member that ends alone: whether its step was `seen` to run, and whether it is `over`.
    """

    told_s: float | None = None
    last_s: float | None = None
    seen: bool = False
    over: bool = False


@dataclass(frozen=True)
class Order:
    """A command, and the instances that it tells to end; only what `gently` is told has a grace."""

    command: tuple[str, ...]
    instance_ids: tuple[str, ...]
    gently: bool = False


def orders(
    stops: Mapping[str, Stop], members: Mapping[str, Member], *, now_s: float, grace_s: float
) -> Iterator[Order]:
    """Yield what is to be told to whom now."""
    told_of = [key for key in sorted(stops) if key in members and not stops[key].over]
    concerned = [members[key] for key in told_of if not members[key].is_over]
    running = [one for one in concerned if one.job.state == "RUNNING"]
    # A job that waits, is being set up, suspended or held has nobody who would hear a signal.
    others = [one for one in concerned if one.job.state not in ("RUNNING", "COMPLETING")]
    late = [one for one in running if _is_due(stops[one.instance_id].told_s, now_s, grace_s, first=False)]
    fresh = [
        one
        for one in running
        if one not in late and _is_due(stops[one.instance_id].last_s, now_s, TOLD_AGAIN_S)
    ]
    whole, single = _by_job(fresh, stops)
    yield from _commands(("scancel", "--signal=TERM", "--batch"), whole, gently=True)
    yield from _commands(("scancel", "--signal=TERM"), single, gently=True, steps=True)
    whole, single = _by_job(late, stops)
    yield from _commands(("scancel",), [*others, *whole])
    yield from _commands(("scancel",), single, steps=True)


def told(stops: Mapping[str, Stop], order: Order, *, now_s: float) -> dict[str, Stop]:
    """Return the stops once the order has been carried out."""
    after = dict(stops)
    for instance_id in order.instance_ids if order.gently else ():
        first_s = after[instance_id].told_s
        told_s = now_s if first_s is None else first_s
        after[instance_id] = replace(after[instance_id], told_s=told_s, last_s=now_s)
    return after


def lonely(stops: Mapping[str, Stop], members: Mapping[str, Member]) -> list[Member]:
    """Return the members that are to end while their gang's job goes on, less those that are over."""
    open_ = [members[key] for key, stop in stops.items() if key in members and not stop.over]
    _, single = _by_job([one for one in open_ if one.job.state == "RUNNING"], stops)
    return single


def steps_command(members: Iterable[Member]) -> tuple[str, ...]:
    """Return what asks for the steps of these members' jobs that run, an id each."""
    jobs = sorted({one.job.job_id for one in members})
    return ("squeue", "--noheader", "--steps", f"--jobs={','.join(map(str, jobs))}", "--format=%i")


def looked_at(
    stops: Mapping[str, Stop],
    asked: Iterable[Member],
    steps: Collection[str],
    *,
    now_s: float,
    grace_s: float,
) -> dict[str, Stop]:
    """Return the stops once the steps have been seen that run of those `asked` for.

    A step that ran and does not any more is over. One that never ran may be about to, for as long as
    `grace_s` after it was told to end.
    """
    after = dict(stops)
    for one in asked:
        stop, runs = stops[one.instance_id], one.native_id in steps
        over = not runs and (stop.seen or _is_due(stop.told_s, now_s, grace_s, first=False))
        after[one.instance_id] = replace(stop, seen=stop.seen or runs, over=over)
    return after


def compressed(members: Iterable[Member], *, steps: bool = False) -> list[str]:
    """Return job ids as scancel takes them, an array's tasks in one: `12_[0,3-5]`, `14`, a step `14.2`."""
    tasks: dict[int, list[int]] = {}
    jobs: dict[str, None] = {}
    for one in members:
        if one.job.tasks is not None:
            tasks.setdefault(one.job.array_id, []).append(one.index)
        else:
            jobs[one.native_id if steps else str(one.job.job_id)] = None
    arrays = [f"{array_id}_{_ranges(sorted(indexes))}" for array_id, indexes in sorted(tasks.items())]
    return [*arrays, *jobs]


def _is_due(told_s: float | None, now_s: float, after_s: float, *, first: bool = True) -> bool:
    return first if told_s is None else now_s - told_s > after_s


def _by_job(members: list[Member], stops: Mapping[str, Stop]) -> tuple[list[Member], list[Member]]:
    """Split into what ends with its whole job, and gangs' members whose job goes on without them."""
    whole: list[Member] = []
    single: list[Member] = []
    for one in members:
        tag = one.job.tag
        everyone = not tag.together or all(tag.instance_id(rank) in stops for rank in range(tag.count))
        (whole if everyone else single).append(one)
    return whole, single


def _commands(
    command: tuple[str, ...], members: list[Member], *, gently: bool = False, steps: bool = False
) -> Iterator[Order]:
    for start in range(0, len(members), JOBS_PER_COMMAND):
        some = members[start : start + JOBS_PER_COMMAND]
        ids = tuple(one.instance_id for one in some)
        yield Order((*command, *compressed(some, steps=steps)), ids, gently)


def _ranges(numbers: list[int]) -> str:
    """Return `3` or `[0,3-5]`."""
    if len(numbers) == 1:
        return str(numbers[0])
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    parts = [str(low) if low == high else f"{low}-{high}" for low, high in runs]
    return f"[{','.join(parts)}]"
