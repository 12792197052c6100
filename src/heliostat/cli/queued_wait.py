"""Wait for a head that is a Slurm job: as long as it takes in the queue, and a while for it to come up."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

from heliostat.api.client import NoAnswer, NotRunning
from heliostat.cli.clusters import client_of
from heliostat.cli.head_queue import HeadLook, HeadQueue
from heliostat.cli.launch_file import LaunchFile
from heliostat.cli.preparing import Say
from heliostat.cli.queued_head import last_lines, own_record, waiting_words
from heliostat.cli.system import SystemClock
from heliostat.config.places import StatePlaces
from heliostat.config.record import ClusterRecord, read_record
from heliostat.model.instance import BackendState
from heliostat.ports.errors import HeliostatError, ProviderError

LOOK_S = (2.0, 2.0, 3.0, 5.0, 8.0, 15.0)
"""Between two looks at the queue; the last for as long as it takes."""

RECORD_LOOK_S = 1.0
UP_TIMEOUT_S = 180.0
"""From the moment when the head is planned on its node; before that the job's setup lines run."""


@dataclass(frozen=True)
class Time:
    """How to wait; a test has its own."""

    monotonic_s: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    now_s: Callable[[], float] = SystemClock().now_s


STANDARD = Time()


def wait_until_running(
    record: ClusterRecord,
    *,
    places: StatePlaces,
    queue: HeadQueue,
    say: Say,
    clock: Time = STANDARD,
    queue_wait_s: float = math.inf,
) -> ClusterRecord:
    """Return the record when head and loop run. It waits in the queue for as long as that takes.

    A job that has not begun after `queue_wait_s` is returned as it waits. Raises HeliostatError
    with the log's last lines when the job has ended or can never start.
    """
    until_s = clock.monotonic_s() + queue_wait_s
    look = _await_planned(record, places=places, queue=queue, say=say, clock=clock, until_s=until_s)
    now = own_record(record, places)
    if now is not None and not now.address:
        return record
    limit_s = UP_TIMEOUT_S + _setup_s(places)
    until_s = clock.monotonic_s() + limit_s
    while clock.monotonic_s() < until_s:
        now = own_record(record, places)
        if now is None:
            raise _failed(record, look, read_record(places.record))
        if now.session_name and _answers(now):
            say(f"the head runs, session {now.session_name}")
            return now
        clock.sleep(RECORD_LOOK_S)
    raise HeliostatError(f"the head was not up within {limit_s:.0f} s:\n{last_lines(record)}")


def _setup_s(places: StatePlaces) -> float:
    """Return how long the setup of the head's host may take, which the job has written down."""
    try:
        launch = LaunchFile.read(places.folder)
    except HeliostatError:
        # The head is down again already, and took the file along.
        return 0.0
    return launch.head_setup_s if launch.head_setup else 0.0


def _await_planned(
    record: ClusterRecord, *, places: StatePlaces, queue: HeadQueue, say: Say, clock: Time, until_s: float
) -> HeadLook | None:
    """Return when the job has written down where its head is; raise HeliostatError if it never will.

    What has not begun at `until_s` of the monotonic clock is returned as it was seen then.
    """
    looks = 0
    look: HeadLook | None = None
    next_look_s = clock.monotonic_s()
    while True:
        now = own_record(record, places)
        if now is not None and now.address:
            say(f"Ray's head starts at {now.address} on {now.host}; its log is {places.head_log}")
            return look
        if clock.monotonic_s() >= next_look_s:
            look = _look(queue, record, say, clock)
            next_look_s = clock.monotonic_s() + LOOK_S[min(looks, len(LOOK_S) - 1)]
            looks += 1
            if look is None or look.is_over:
                raise _failed(record, look)
        if now is None:
            raise _failed(record, look, read_record(places.record))
        if look is not None and not _has_begun(look) and clock.monotonic_s() >= until_s:
            return look
        clock.sleep(RECORD_LOOK_S)


def _look(queue: HeadQueue, record: ClusterRecord, say: Say, clock: Time) -> HeadLook | None:
    try:
        look = queue.look(record.cluster_uid)
    except ProviderError as error:
        if not error.transient:
            raise
        # Slurm may be away for a while; the job waits all the same.
        say(f"waiting for the head: {error}")
        job_id = record.job.job_id if record.job else ""
        return HeadLook(job_id, BackendState.UNKNOWN, str(error))
    if look is not None and not look.is_over:
        say(waiting_words(look, now_s=clock.now_s()))
    return look


def _has_begun(look: HeadLook) -> bool:
    """Say whether the job is known to have left the queue."""
    return not look.waits and look.state is not BackendState.UNKNOWN


def _answers(record: ClusterRecord) -> bool:
    try:
        status = client_of(record).status(timeout_s=5.0)
    except (NotRunning, NoAnswer):
        return False
    return status.phase == "running" and bool(status.head)


def _failed(
    record: ClusterRecord, look: HeadLook | None, other: ClusterRecord | None = None
) -> HeliostatError:
    """Return why there is no head: what Slurm says and the last lines, or whose cluster took its place."""
    if other is not None:
        return HeliostatError(
            f"the head did not come up: {other.owner} has started {record.cluster_name} anew"
        )
    why = f": {look.detail}" if look is not None and look.detail else ""
    lines = last_lines(record)
    return HeliostatError(f"the head did not come up{why}" + (f"\n{lines}" if lines else ""))
