"""Start a cluster whose head is a Slurm job: write it down, submit it, wait with it in the queue.

The record is written before the job is submitted and holds the cluster's uid, which is in the
job's tag: whatever is cut short, the next command finds the job or knows that there is none.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from heliostat.api.client import NoAnswer, NotRunning
from heliostat.cli.clusters import client_of
from heliostat.cli.head import LOCAL
from heliostat.cli.head_queue import HEAD_LAUNCH_ID, SLURM, HeadLook, HeadQueue, head_uid, queue_of
from heliostat.cli.head_script import HeadAsk, head_submission
from heliostat.cli.preparing import (
    Say,
    StartOptions,
    keep_workers,
    new_record,
)
from heliostat.cli.queued_end import take_back
from heliostat.cli.queued_head import attached_file, forget, last_lines, own_record, waiting_words
from heliostat.cli.successor import SuccessorPlaces
from heliostat.cli.system import SystemClock
from heliostat.config.cluster_file import dump_for_state
from heliostat.config.places import StatePlaces
from heliostat.config.record import ClusterRecord, HeadJob, create_record, read_record, write_record
from heliostat.model.instance import BackendState
from heliostat.model.node_type import ClusterSpec
from heliostat.ports.errors import HeliostatError, ProviderError
from heliostat.providers.slurm.options import JobOptions, job_options, parse_section
from heliostat.providers.slurm.script import Submission
from heliostat.providers.slurm.tags import Tag

LOOK_S = (2.0, 2.0, 3.0, 5.0, 8.0, 15.0)
"""Between two looks at the queue; the last for as long as it takes."""

RECORD_LOOK_S = 1.0
UP_TIMEOUT_S = 180.0
"""From the moment when the head is planned on its node; before that the job's setup lines run."""

TOUCH_S = 10.0


@dataclass(frozen=True)
class Time:
    """How to wait; a test has its own."""

    monotonic_s: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    now_s: Callable[[], float] = SystemClock().now_s


STANDARD = Time()


def refuse_other_backends(spec: ClusterSpec) -> None:
    """Raise HeliostatError for a head on a backend that can't have one."""
    backend = spec.head_type.backend
    if backend != SLURM:
        raise HeliostatError(
            f"head_node_type is {spec.head_type.name}, on the backend {backend}; a head is allowed on "
            f"{LOCAL} (this host) and {SLURM} (a job)"
        )


def start(
    path: Path,
    spec: ClusterSpec,
    *,
    places: StatePlaces,
    options: StartOptions,
    waiting: ClusterRecord | None,
    say: Say,
) -> ClusterRecord:
    """Submit the head's job, or take up the one of `waiting`, and return when the cluster runs.

    With `options.queued_is_enough` return once it is submitted. A wait that is interrupted
    cancels the job, unless it was submitted by an earlier, detached `up`.
    """
    refuse_other_backends(spec)
    queue = queue_of(spec)
    record, made = (waiting, None) if waiting else _recorded(path, spec, places=places, options=options)
    try:
        if made is not None:
            record = _submitted(record, made, path=places.record, queue=queue)
        assert record.job is not None
        say(f"the head is Slurm job {record.job.job_id}; its log is {record.job.log}")
        if options.queued_is_enough:
            return record
        if made is not None and not options.detach:
            keep_touching(attached_file(places))
        return wait_until_running(record, places=places, queue=queue, say=say)
    except KeyboardInterrupt:
        if waiting is not None:
            raise HeliostatError(
                f"the head of {spec.name} is still asked for: `heliostat down {spec.name}` cancels it"
            ) from None
        take_back(record, places=places, queue=queue, say=say)
        raise
    except BaseException as error:
        if waiting is not None:
            # It was submitted by another `up`, and may run and work: it is not this one's to end.
            if own_record(record, places) is not None:
                way_out = f"the head of {spec.name} is still asked for: `heliostat down {spec.name}` ends it"
                raise HeliostatError(f"{error}\n{way_out}") from error
            raise
        if own_record(record, places) is not None:
            take_back(record, places=places, queue=queue, say=say)
        else:
            forget(record, places)
        raise


def _recorded(
    path: Path, spec: ClusterSpec, *, places: StatePlaces, options: StartOptions
) -> tuple[ClusterRecord, Submission]:
    """Write down what is about to be submitted; whatever can be refused here leaves nothing behind."""
    record = _new(path, spec, places)
    made = head_submission(_job(spec), _ask(record, spec, places=places, options=options), os.environ)
    keep_workers(places, spec=spec, cluster_uid=record.cluster_uid, workers=options.workers)
    places.config.write_text(dump_for_state(path), encoding="utf-8")
    if not create_record(places.record, record):
        raise HeliostatError("another `heliostat up` of this cluster is under way on another host")
    return record, made


def submit_successor(
    path: Path, spec: ClusterSpec, *, places: StatePlaces, options: StartOptions, say: Say
) -> ClusterRecord:
    """Ask for the next head of a cluster: its job waits in the queue until the present one has ended."""
    present = read_record(places.record)
    if present is None or present.job is None:
        raise HeliostatError(f"{spec.name} has no head that is a Slurm job now: `heliostat up` starts one")
    if options.workers:
        raise HeliostatError("--workers goes to the cluster that runs; a successor starts without")
    refuse_other_backends(spec)
    queue = queue_of(spec)
    before = queue.look(present.cluster_uid)
    if before is None or before.is_over:
        raise HeliostatError(f"the head's job of {spec.name} is over: `heliostat up` starts the next one")
    after = SuccessorPlaces(places.folder)
    known = read_record(after.record)
    look = queue.look(known.cluster_uid) if known else None
    if look is not None and not look.is_over:
        raise HeliostatError(f"{spec.name} has a successor already: Slurm job {look.job_id}")
    record = _new(path, spec, places)
    ask = _ask(record, spec, places=places, options=replace(options, detach=True))
    made = head_submission(_job(spec), replace(ask, after_job=before.job_id), os.environ)
    after.config.write_text(dump_for_state(path), encoding="utf-8")
    write_record(after.record, record)
    record = _submitted(record, made, path=after.record, queue=queue)
    assert record.job is not None
    say(f"the next head is Slurm job {record.job.job_id}, which begins when {before.job_id} has ended")
    return record


def _new(path: Path, spec: ClusterSpec, places: StatePlaces) -> ClusterRecord:
    job = HeadJob("", str(places.logs / "head.slurm.log"))
    return replace(new_record(path, spec, places), phase="queued", job=job)


def _job(spec: ClusterSpec) -> JobOptions:
    return job_options(parse_section(spec.backends[SLURM]), spec.head_type.options)


def _ask(record: ClusterRecord, spec: ClusterSpec, *, places: StatePlaces, options: StartOptions) -> HeadAsk:
    assert record.job is not None
    head = spec.head_type
    tag = Tag(
        cluster_name=record.cluster_name,
        cluster_uid=head_uid(record.cluster_uid),
        owner=record.owner,
        launch_id=HEAD_LAUNCH_ID,
        node_type=head.name,
        shape_id=head.shape_id,
        count=1,
        together=True,
    )
    return HeadAsk(
        tag=tag,
        resources=head.resources.units(),
        cluster_uid=record.cluster_uid,
        folder=str(places.folder),
        log=record.job.log,
        versions={"ray_version": record.ray_version, "python_version": record.python_version},
        port=options.port,
        idle_after_s=options.idle_after_s,
        attached="" if options.detach else str(attached_file(places)),
    )


def _submitted(record: ClusterRecord, made: Submission, *, path: Path, queue: HeadQueue) -> ClusterRecord:
    """Submit the job; a refusal removes the record at `path`.

    That is not written again: the job, once it runs, writes its own id there.
    """
    assert record.job is not None
    try:
        job_id = queue.submit(made)
    except ProviderError as error:
        # What Slurm has not refused it may have taken, though its answer was lost.
        look = queue.look(record.cluster_uid) if error.transient else None
        if look is None:
            path.unlink(missing_ok=True)
            raise
        job_id = look.job_id
    return replace(record, job=replace(record.job, job_id=job_id))


def wait_until_running(
    record: ClusterRecord, *, places: StatePlaces, queue: HeadQueue, say: Say, clock: Time = STANDARD
) -> ClusterRecord:
    """Return the record when head and loop run. It waits in the queue for as long as that takes.

    Raises HeliostatError with the log's last lines when the job has ended or can never start.
    """
    look = _await_planned(record, places=places, queue=queue, say=say, clock=clock)
    until_s = clock.monotonic_s() + UP_TIMEOUT_S
    while clock.monotonic_s() < until_s:
        now = own_record(record, places)
        if now is None:
            raise _failed(record, look)
        if now.session_name and _answers(now):
            say(f"the head runs, session {now.session_name}")
            return now
        clock.sleep(RECORD_LOOK_S)
    raise HeliostatError(f"the head was not up within {UP_TIMEOUT_S:.0f} s:\n{last_lines(record)}")


def _await_planned(
    record: ClusterRecord, *, places: StatePlaces, queue: HeadQueue, say: Say, clock: Time
) -> HeadLook | None:
    """Return when the job has written down where its head is; raise HeliostatError if it never will."""
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
        elif now is None:
            raise _failed(record, look)
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


def keep_touching(path: Path) -> None:
    """Let the head's wrapper know, for as long as this process lives, that its `up` is there."""

    def touch() -> None:
        # Whoever takes the cluster down removes the file; it must not come back.
        with contextlib.suppress(OSError):
            while True:
                time.sleep(TOUCH_S)
                os.utime(path)

    path.touch()
    threading.Thread(target=touch, name="attached", daemon=True).start()


def _answers(record: ClusterRecord) -> bool:
    try:
        status = client_of(record).status(timeout_s=5.0)
    except (NotRunning, NoAnswer):
        return False
    return status.phase == "running" and bool(status.head)


def _failed(record: ClusterRecord, look: HeadLook | None) -> HeliostatError:
    why = f": {look.detail}" if look is not None and look.detail else ""
    lines = last_lines(record)
    return HeliostatError(f"the head did not come up{why}" + (f"\n{lines}" if lines else ""))
