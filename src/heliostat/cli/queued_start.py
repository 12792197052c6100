"""Start a cluster whose head is a Slurm job: write it down, submit it, wait with it in the queue.

The record is written before the job is submitted and holds the cluster's uid, which is in the
job's tag: whatever is cut short, the next command finds the job or knows that there is none.
"""

from __future__ import annotations

import math
import os
import platform
import shlex
import time
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

from heliostat.cli.attachment import attach, attached_file, detach, holder_elsewhere, is_attached, is_ours
from heliostat.cli.head import LOCAL
from heliostat.cli.head_queue import HEAD_LAUNCH_ID, SLURM, HeadQueue, head_uid, patiently, queue_of
from heliostat.cli.head_script import HeadAsk, head_submission
from heliostat.cli.preparing import (
    Say,
    StartOptions,
    claimed,
    keep_workers,
    new_record,
)
from heliostat.cli.queued_end import KILLED_TIMEOUT_S, SUBMITTING_S, take_back
from heliostat.cli.queued_head import own_record
from heliostat.cli.queued_wait import wait_until_running
from heliostat.cli.successor import SuccessorPlaces
from heliostat.cli.system import SystemClock, owner
from heliostat.config.cluster_file import dump_for_state
from heliostat.config.places import StatePlaces
from heliostat.config.record import ClusterRecord, HeadJob, read_record, remove_record
from heliostat.model.node_type import ClusterSpec
from heliostat.ports.errors import HeliostatError, InvalidRequest, ProviderError, Unavailable
from heliostat.providers.slurm.options import JobOptions, job_options, parse_section
from heliostat.providers.slurm.script import Submission
from heliostat.providers.slurm.tags import Tag
from heliostat.providers.slurm.untagged import WHY


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

    With `options.queued_is_enough` return once it is submitted, or has not begun within
    `options.queue_wait_s`. A wait that is interrupted cancels the job, unless it was asked for by an
    `up --detach`.
    """
    refuse_other_backends(spec)
    queue = queue_of(spec)
    record, made = (waiting, None) if waiting else _recorded(path, spec, places=places, options=options)
    try:
        if waiting is not None:
            _say_what_is_not_heard(path, places, options, say)
            _take_over(waiting, places=places, options=options, say=say)
        if made is not None:
            record = _submitted(record, made, path=places.record, queue=queue, say=say)
        assert record.job is not None
        say(f"the head is Slurm job {record.job.job_id}; its log is {record.job.log}")
        if options.queued_is_enough and not options.queue_wait_s:
            return record
        return wait_until_running(
            record, places=places, queue=queue, say=say, queue_wait_s=options.queue_wait_s or math.inf
        )
    except BaseException as error:
        asked_for = waiting is not None or (options.queue_wait_s and isinstance(error, KeyboardInterrupt))
        if not asked_for or is_ours(places):
            take_back(record, places=places, queue=queue, say=say)
            raise
        # It may run and work: it is not this one's to end.
        if own_record(record, places) is None:
            raise
        words = "" if isinstance(error, KeyboardInterrupt) else f"{error}\n"
        raise HeliostatError(
            f"{words}the head of {spec.name} is still asked for: `heliostat down {spec.name}` ends it"
        ) from error


def _say_what_is_not_heard(path: Path, places: StatePlaces, options: StartOptions, say: Say) -> None:
    """Say what an `up` asks in vain, since the head that it waits for was asked for by another."""
    way_out = "`heliostat down` and `up` ask anew"
    if dump_for_state(path, options.overrides) != places.config.read_text(encoding="utf-8"):
        say(f"{path} has changed, but the head waits as it was asked for: {way_out}")
    asked = {"--workers": options.workers, "--idle-after": options.idle_after_s, "--port": options.port}
    given = [name for name, value in asked.items() if value is not None]
    if given:
        say(f"{', '.join(given)}: only heard when the head is asked for; {way_out}")


def _take_over(waiting: ClusterRecord, *, places: StatePlaces, options: StartOptions, say: Say) -> None:
    """Make a head that waits already this command's, where the one that it belonged to is gone.

    A detached one is nobody's. Raises HeliostatError where a command on another host waits with its head.
    """
    if not is_attached(places):
        return
    name = waiting.cluster_name
    say(f"looking whether the `heliostat up` that asked for the head of {name} is still there")
    holder = holder_elsewhere(places)
    if holder is not None:
        raise HeliostatError(f"`heliostat up` on {holder} waits for the head of {name}, which ends with it")
    # On this host there is none, or it would not have let us get here (`preparing.one_at_a_time`).
    if options.detach:
        detach(places)
        say(f"it is gone; {name} goes on without it")
    else:
        attach(places)
        say(f"it is gone; {name} ends with this one now")


def _recorded(
    path: Path, spec: ClusterSpec, *, places: StatePlaces, options: StartOptions
) -> tuple[ClusterRecord, Submission]:
    """Write down what is about to be submitted; whatever can be refused here leaves nothing behind."""
    record = _new(path, spec, places)
    made = head_submission(_job(spec), _ask(record, spec, places=places, options=options), os.environ)
    with claimed(places.record, record):
        keep_workers(places, spec=spec, cluster_uid=record.cluster_uid, workers=options.workers)
        places.config.write_text(dump_for_state(path, options.overrides), encoding="utf-8")
        # Before the job is there: from then on the file says whether the cluster is attached.
        detach(places) if options.detach else attach(places)
    return record, made


def preview(spec: ClusterSpec, places: StatePlaces) -> str:
    """Return what would be submitted for the head, as people would read it; asks and writes nothing.

    Raises HeliostatError for a head that can't be submitted from here.
    """
    refuse_other_backends(spec)
    queue_of(spec)
    record = ClusterRecord(
        cluster_name=spec.name,
        cluster_uid="check",
        owner=owner(),
        created_at_s=0.0,
        source="",
        host="",
        runtime_dir="",
        token_path="",
        ray_version=version("ray"),
        python_version=".".join(platform.python_version_tuple()[:2]),
        job=_head_job(places),
    )
    made = head_submission(
        _job(spec), _ask(record, spec, places=places, options=StartOptions(detach=True)), os.environ
    )
    return f"{shlex.join(made.argv)} <<'SCRIPT'\n{made.script}SCRIPT"


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
    _refuse_another(after, queue)
    record = _new(path, spec, places)
    ask = _ask(record, spec, places=places, options=replace(options, detach=True))
    made = head_submission(_job(spec), replace(ask, after_job=before.job_id), os.environ)
    with claimed(after.record, record, did="asked for the next head of"):
        after.config.write_text(dump_for_state(path, options.overrides), encoding="utf-8")
    record = _submitted(record, made, path=after.record, queue=queue, say=say)
    assert record.job is not None
    say(f"the next head is Slurm job {record.job.job_id}, which begins when {before.job_id} has ended")
    return record


def _refuse_another(after: SuccessorPlaces, queue: HeadQueue) -> None:
    """Raise HeliostatError where a next head waits, or is about to; clear away one that is over."""
    known = read_record(after.record)
    if known is None:
        return
    look = queue.look(known.cluster_uid)
    if look is not None and not look.is_over:
        raise HeliostatError(f"{known.cluster_name} has a successor already: Slurm job {look.job_id}")
    # Clocks of hosts differ, to either side.
    if look is None and abs(SystemClock().now_s() - known.created_at_s) < SUBMITTING_S:
        raise HeliostatError(
            f"{known.owner} has just asked for the next head of {known.cluster_name}, and Slurm does not have"
            f" it yet: if nothing comes of it, try again in {SUBMITTING_S:.0f} s"
        )
    remove_record(after.record, known.cluster_uid)


def _new(path: Path, spec: ClusterSpec, places: StatePlaces) -> ClusterRecord:
    return replace(new_record(path, spec, places), phase="queued", job=_head_job(places))


def _head_job(places: StatePlaces) -> HeadJob:
    return HeadJob("", str(places.logs / "head.slurm.log"))


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


def _submitted(
    record: ClusterRecord, made: Submission, *, path: Path, queue: HeadQueue, say: Say
) -> ClusterRecord:
    """Submit the job; a refusal, Slurm's or ours, removes the record at `path`.

    That is not written again: the job, once it runs, writes its own id there.
    """
    assert record.job is not None
    try:
        job_id = queue.submit(made)
    except ProviderError as error:
        # What Slurm has not refused it may have taken, though its answer was lost.
        look = queue.look(record.cluster_uid) if error.transient else None
        if look is None:
            remove_record(path, record.cluster_uid)
            raise
        job_id = look.job_id
    _refuse_untagged(job_id, record, path=path, queue=queue, say=say)
    return replace(record, job=replace(record.job, job_id=job_id))


def _refuse_untagged(job_id: str, record: ClusterRecord, *, path: Path, queue: HeadQueue, say: Say) -> None:
    """Cancel a job whose tag the site took away, and raise InvalidRequest: `down` would never find it."""
    try:
        if queue.shows_tag(job_id, record.cluster_uid):
            return
    except Unavailable:
        return
    until_s = time.monotonic() + KILLED_TIMEOUT_S
    patiently(lambda: queue.cancel(job_id), say=say, until_s=until_s)
    remove_record(path, record.cluster_uid)
    raise InvalidRequest(f"the head's job {job_id} was cancelled: {WHY}")
