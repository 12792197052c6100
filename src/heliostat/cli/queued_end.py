"""Take down a cluster whose head is a Slurm job, and clear away what a dead one has left.

Gently while somebody listens, then by Slurm; found by the tag, never by a name.
"""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Iterator
from dataclasses import replace

from heliostat.api.client import NoAnswer, NotRunning
from heliostat.cli.clusters import client_of, places_of
from heliostat.cli.foreground import on_stop_signals, say_still_going_down
from heliostat.cli.gcs_storage import forget_storage_or_say
from heliostat.cli.head_queue import POLL_S, HeadLook, HeadQueue, patiently, queue_of
from heliostat.cli.preparing import AlreadyRunning, Say
from heliostat.cli.queued_head import applied_spec, forget, own_record
from heliostat.cli.successor import SuccessorPlaces
from heliostat.cli.system import SystemClock
from heliostat.config.places import StatePlaces
from heliostat.config.record import ClusterRecord, HeadJob, read_record
from heliostat.model.instance import BackendState
from heliostat.ports.errors import HeliostatError, ProviderError

KILLED_TIMEOUT_S = 60.0
SUBMITTING_S = 90.0
"""From the record to the job: what sbatch and a look for its lost answer may take, and some margin."""


def stop(record: ClusterRecord, *, say: Say, timeout_s: float) -> None:
    """Take a cluster whose head is a job down, and return when no job of it is left.

    The controller lets the workers go and ends by itself; where it can't be reached the job is
    told so by Slurm, and cancelled if that does not help within `timeout_s`.
    """
    places = places_of(record)
    queue = queue_of(applied_spec(record, places))
    with _way_out(record):
        _stop_successor(places, queue, say)
        _end(record, places=places, queue=queue, say=say, timeout_s=timeout_s)


def take_back(record: ClusterRecord, *, places: StatePlaces, queue: HeadQueue, say: Say) -> None:
    """Cancel a head whose start came to nothing, with all that it has started."""
    say(f"cancelling the head of {record.cluster_name}")
    with on_stop_signals(say_still_going_down), _way_out(record):
        _end(record, places=places, queue=queue, say=say, timeout_s=KILLED_TIMEOUT_S)


def waiting_or_gone(
    record: ClusterRecord, *, places: StatePlaces, say: Say, queue: HeadQueue | None = None
) -> ClusterRecord | None:
    """Return a cluster whose head has not come up yet; clear away one whose job is over (None).

    Without a `queue` the cluster's file tells where its head's job is. Raises AlreadyRunning.
    """
    queue = queue or queue_of(applied_spec(record, places))
    look = queue.look(record.cluster_uid) or _submitted_elsewhere(record, places=places, queue=queue, say=say)
    if look is not None and not look.is_over:
        if record.session_name:
            raise AlreadyRunning(record)
        return replace(record, job=replace(record.job or HeadJob("", ""), job_id=look.job_id))
    why = f" ({look.detail})" if look is not None and look.detail else ""
    say(f"the last run of {record.cluster_name} is over: its head's job has ended{why}")
    _end(record, places=places, queue=queue, say=say, timeout_s=KILLED_TIMEOUT_S)
    return None


def _submitted_elsewhere(
    record: ClusterRecord, *, places: StatePlaces, queue: HeadQueue, say: Say
) -> HeadLook | None:
    """Return the job of a record that an `up` on another host has only just written, once Slurm has it.

    On this host there is no such `up`: `preparing.one_at_a_time` lets one through.
    """
    owner, _, host = record.owner.rpartition("@")
    if record.address or host == socket.gethostname():
        return None
    age_s = SystemClock().now_s() - record.created_at_s
    # Clocks of hosts differ: whatever the age seems to be, the wait is bounded.
    until_s = time.monotonic() + min(SUBMITTING_S, SUBMITTING_S - age_s)
    while time.monotonic() < until_s and own_record(record, places) is not None:
        say(f"waiting for {owner} on {host}, who is about to submit the head of {record.cluster_name}")
        time.sleep(POLL_S)
        if (look := queue.look(record.cluster_uid)) is not None:
            return look
    return None


@contextlib.contextmanager
def _way_out(record: ClusterRecord) -> Iterator[None]:
    """Say what to do where Slurm can't be asked to the end."""
    try:
        yield
    except ProviderError as error:
        name = record.cluster_name
        raise HeliostatError(
            f"{error}\njobs of {name} may be left: `heliostat down {name}` again ends them"
        ) from error


def _end(record: ClusterRecord, *, places: StatePlaces, queue: HeadQueue, say: Say, timeout_s: float) -> None:
    """End the head's job and the workers', then forget the cluster.

    Raises HeliostatError; the cluster is not forgotten then, so that `down` can be called again.
    """
    uid = record.cluster_uid
    until_s = time.monotonic() + timeout_s
    look = patiently(lambda: queue.look(uid), say=say, until_s=until_s)
    if look is not None and not look.is_over:
        _end_job(look, own_record(record, places) or record, queue=queue, say=say, until_s=until_s)
    elif look is not None and look.state is BackendState.FAILED:
        # A reason that never passes: it is still in the queue.
        _cancel(look, queue, say)
    until_s = max(until_s, time.monotonic() + KILLED_TIMEOUT_S)
    left = patiently(lambda: queue.cancel_workers(uid), say=say, until_s=until_s)
    if left:
        say(f"{left} workers of {record.cluster_name} were cancelled")
    forget_storage_or_say(record, say)
    forget(record, places)


def _end_job(look: HeadLook, record: ClusterRecord, *, queue: HeadQueue, say: Say, until_s: float) -> None:
    """Return when the head's job is over: told by its controller, else by Slurm, else cancelled."""
    if look.waits or not _told_to_go(record):
        _cancel(look, queue, say, gently=not look.waits and bool(record.address))
    left = _await_end(record, queue=queue, say=say, until_s=until_s)
    if left is not None:
        say(f"job {left.job_id} had to be cancelled")
        _cancel(left, queue, say)
        left = _await_end(record, queue=queue, say=say, until_s=time.monotonic() + KILLED_TIMEOUT_S)
    if left is not None:
        raise HeliostatError(f"job {left.job_id} of {record.cluster_name} is still there: {left.state.value}")


def _cancel(look: HeadLook, queue: HeadQueue, say: Say, *, gently: bool = False) -> None:
    until_s = time.monotonic() + KILLED_TIMEOUT_S
    patiently(lambda: queue.cancel(look.job_id, gently=gently), say=say, until_s=until_s)


def _told_to_go(record: ClusterRecord) -> bool:
    """Tell the controller to go down; False if it can't be reached."""
    try:
        client_of(record).down()
    except (NotRunning, NoAnswer):
        return False
    return True


def _await_end(record: ClusterRecord, *, queue: HeadQueue, say: Say, until_s: float) -> HeadLook | None:
    """Return None once the head's job is over, else what it is at `until_s`."""
    while True:
        look = patiently(lambda: queue.look(record.cluster_uid), say=say, until_s=until_s)
        if look is None or look.is_over:
            return None
        if time.monotonic() >= until_s:
            return look
        say(f"waiting for the head's job {look.job_id} to end")
        time.sleep(POLL_S)


def _stop_successor(places: StatePlaces, queue: HeadQueue, say: Say) -> None:
    after = SuccessorPlaces(places.folder)
    record = read_record(after.record)
    if record is None:
        return
    until_s = time.monotonic() + KILLED_TIMEOUT_S
    look = patiently(lambda: queue.look(record.cluster_uid), say=say, until_s=until_s)
    if look is not None and not look.is_over:
        say(f"cancelling the next head, job {look.job_id}")
        _cancel(look, queue, say)
    after.remove()
