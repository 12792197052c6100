"""Start a cluster and take it down: what `up`, `run`, `demo` and `down` share.

Everything that can be refused is refused before the first process starts.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

from heliostat.api.client import NoAnswer, NotRunning
from heliostat.cli.autoscaler import head_for, notes_on
from heliostat.cli.clusters import client_of, places_of
from heliostat.cli.foreground import on_stop_signals, say_still_going_down, stop_signals_held_back
from heliostat.cli.gcs_storage import DOWN, forget_storage, forget_storage_or_say
from heliostat.cli.head import LOCAL, HeadPlan, place_here, plan_head
from heliostat.cli.launch_file import LaunchFile
from heliostat.cli.preparing import (
    AlreadyRunning,
    Say,
    StartOptions,
    claimed,
    keep_workers,
    load_spec,
    new_record,
    one_at_a_time,
    runtime_of,
)
from heliostat.cli.resuming import leave, port_of, refuse_other_address, resumed, to_resume
from heliostat.cli.successor import present_record
from heliostat.cli.system import (
    end_tagged_now,
    is_process,
    process_start_ticks,
    signal_process,
    tagged_processes,
)
from heliostat.config.cluster_file import dump_for_state
from heliostat.config.places import StatePlaces, state_places, state_root
from heliostat.config.record import ClusterRecord, read_record, remove_record, write_record
from heliostat.model.node_type import ClusterSpec
from heliostat.ports.errors import HeliostatError
from heliostat.raylink.address_file import claim_address_file
from heliostat.raylink.free_port import PortClaims
from heliostat.raylink.version_note import version_note

START_TIMEOUT_S = 180.0
DOWN_TIMEOUT_S = 180.0
TAKE_BACK_TIMEOUT_S = 30.0
MARK_TIMEOUT_S = 5.0
POLL_S = 0.1
LOG_LINES = 15

UID_TAG = "HELIOSTAT_CLUSTER_UID"
WRAPPER = "heliostat.cli.wrapper"


def start_cluster(path: Path, *, options: StartOptions, say: Say) -> ClusterRecord:
    """Bring the cluster of a file up and return when its head answers and its loop runs.

    A head that is a Slurm job may queue first (`queued_start.start`). A cluster that crashed and has
    kept its state goes on (`resuming`). Raises ConfigError for a bad file, AlreadyRunning, or
    HeliostatError with the head's last log lines; whatever had started is ended then.
    """
    spec = load_spec(path, options.overrides)
    for note in filter(None, [version_note(version("ray")), *spec.notes]):
        say(note)
    places = state_places(state_root(os.environ, home=Path.home()), spec.name)
    with one_at_a_time(places):
        crashed = _crashed(places, spec, say)
        queued = None if crashed else _refuse_if_running(places, say)
        if queued is not None or spec.head_type.backend != LOCAL:
            with stop_signals_held_back():
                from heliostat.cli import queued_start

            return queued_start.start(path, spec, places=places, options=options, waiting=queued, say=say)
        with PortClaims() as claims:
            record, head = _prepare(
                path, spec=spec, places=places, options=options, crashed=crashed, claims=claims
            )
            for note in (*head.notes, *notes_on(record, places)):
                say(note)
            wrapper = _spawn_wrapper(places, head, claims)
        try:
            limit_s = START_TIMEOUT_S
            if head.setup:
                say(f"the head's host is set up first, its log is {places.head_log}")
                limit_s += head.setup_s
            _wait_until_running(record, places=places, wrapper=wrapper, limit_s=limit_s, say=say)
            if note := claim_address_file(record.address, os.environ):
                say(note)
        except BaseException as error:
            # Ctrl-C, too: nothing of a start that came to nothing stays behind.
            if crashed is not None and (way_out := leave(record, wrapper)):
                raise HeliostatError(f"{str(error) or 'interrupted'}\n{way_out}") from error
            _take_back(record, places=places, wrapper=wrapper, say=say)
            raise
    return read_record(places.record) or record


def stop_cluster(record: ClusterRecord, *, say: Say, timeout_s: float = DOWN_TIMEOUT_S) -> None:
    """Take a cluster down and return when no process of it is left.

    Raises HeliostatError, naming the processes, if some are left after `timeout_s`.
    """
    if record.job is not None:
        from heliostat.cli import queued_end

        queued_end.stop(record, say=say, timeout_s=timeout_s)
        return
    if record.host != socket.gethostname():
        _stop_far(record, say=say, timeout_s=timeout_s)
        return
    try:
        client_of(record).down()
    except (NotRunning, NoAnswer):
        _tell_wrapper(record)
    until_s = time.monotonic() + timeout_s
    shown = ""
    while _runs(record) and time.monotonic() < until_s:
        shown = _see_it_go(record, shown, say)
        time.sleep(POLL_S)
    _end_rest(record, say)
    _cancel_jobs(record, places_of(record), say)
    _forget_crashed(record)


def _tell_wrapper(record: ClusterRecord) -> None:
    """Tell the wrapper of a cluster without a controller to end; it may just be writing down who it is."""
    path = places_of(record).record
    until_s = time.monotonic() + MARK_TIMEOUT_S
    while record.wrapper is None and _runs(record) and time.monotonic() < until_s:
        time.sleep(POLL_S)
        now = read_record(path)
        if now is None or now.cluster_uid != record.cluster_uid:
            return
        record = now
    if record.wrapper is not None:
        signal_process(record.wrapper.pid, record.wrapper.start_ticks, signal.SIGTERM)


def _stop_far(record: ClusterRecord, *, say: Say, timeout_s: float) -> None:
    """Have the controller on another host take its cluster down; the wrapper there removes the record."""
    name, host = record.cluster_name, record.host
    try:
        client_of(record).down()
    except (NotRunning, NoAnswer) as error:
        raise HeliostatError(f"{name} runs on {host}: run `heliostat down {name}` there ({error})") from error
    until_s = time.monotonic() + timeout_s
    while time.monotonic() < until_s:
        now = read_record(places_of(record).record)
        if now is None or now.cluster_uid != record.cluster_uid:
            return
        say(f"{name} ends on {host}")
        time.sleep(POLL_S)
    raise HeliostatError(f"{name} is still there on {host}; `heliostat down {name}` there says what is left")


def _crashed(places: StatePlaces, spec: ClusterSpec, say: Say) -> ClusterRecord | None:
    """Return a cluster of this host that crashed and goes on; raise HeliostatError where that must wait."""
    record = present_record(places)
    if record is None or record.job is not None or record.host != socket.gethostname() or _runs(record):
        return None
    return to_resume(record, spec, say=say)


def _refuse_if_running(places: StatePlaces, say: Say) -> ClusterRecord | None:
    """Clear away what a crash has left; return the cluster of a head that waits in a queue.

    Raises AlreadyRunning, or HeliostatError where it can't be told from here.
    """
    record = present_record(places)
    if record is None:
        return None
    if record.job is not None:
        from heliostat.cli import queued_end

        found = queued_end.waiting_or_gone(record, places=places, say=say)
        # With the last head cleared away its successor, if one waits, is the cluster.
        return found or (_refuse_if_running(places, say) if present_record(places) else None)
    if record.host == socket.gethostname() and _runs(record):
        raise AlreadyRunning(record)
    if record.host != socket.gethostname():
        raise HeliostatError(
            f"{record.cluster_name} was started on {record.host}: look there whether it runs;"
            f" if that host is gone, remove {places.record}"
        )
    left = end_tagged_now(UID_TAG, record.cluster_uid)
    if left:
        say(f"the last run of {record.cluster_name} crashed: {left} processes of it were ended")
    _cancel_jobs(record, places, say)
    forget_storage_or_say(record, say)
    remove_record(places.record, record.cluster_uid)
    return None


def _prepare(
    path: Path,
    *,
    spec: ClusterSpec,
    places: StatePlaces,
    options: StartOptions,
    crashed: ClusterRecord | None,
    claims: PortClaims,
) -> tuple[ClusterRecord, HeadPlan]:
    record = crashed and resumed(crashed, path)
    if record is None:
        record = replace(new_record(path, spec, places), host=socket.gethostname())
    # The record of one that goes on is there, and stays whatever happens.
    with claimed(places.record, record) if crashed is None else contextlib.nullcontext():
        # A journal that is refused leaves no runtime folder behind.
        keep_workers(places, spec=spec, cluster_uid=record.cluster_uid, workers=options.workers)
        runtime = runtime_of(record.owner, record.cluster_uid)
        head = plan_head(
            spec,
            place_here(spec),
            cluster_uid=record.cluster_uid,
            token_path=Path(record.token_path),
            port=options.port or (port_of(crashed) if crashed else None),
            claims=claims,
        )
        head = head_for(head, record)
        if crashed:
            refuse_other_address(crashed, head.address)
            # Done on this host before its first head; its workers wait only for `head_timeout_s`.
            head = replace(head, setup={})
        record = replace(
            record,
            runtime_dir=str(runtime.folder),
            address=head.address,
            node_ip=head.node_ip,
            head_temp_dir=head.temp_dir,
            dashboard_url=head.dashboard_url,
            client_port=head.client_port,
        )
        places.config.write_text(dump_for_state(path, options.overrides), encoding="utf-8")
        write_record(places.record, record)
        _launch_file(head, record=record, places=places, options=options).write(places.folder)
    return record, head


def _launch_file(
    head: HeadPlan, *, record: ClusterRecord, places: StatePlaces, options: StartOptions
) -> LaunchFile:
    attached = 0 if options.detach else os.getpid()
    return LaunchFile(
        head_argv=list(head.argv),
        head_environment=dict(head.head_environment),
        head_temp_dir=head.temp_dir,
        address=record.address,
        cluster_uid=record.cluster_uid,
        runtime_dir=record.runtime_dir,
        log_dir=str(places.logs),
        attached_pid=attached,
        attached_ticks=(process_start_ticks(attached) or 0) if attached else 0,
        idle_after_s=options.idle_after_s,
        head_setup=dict(head.setup),
        head_setup_s=head.setup_s,
    )


def _spawn_wrapper(places: StatePlaces, head: HeadPlan, claims: PortClaims) -> subprocess.Popen[bytes]:
    with (places.logs / "wrapper.log").open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", WRAPPER, str(places.folder)],
            env=dict(head.environment),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=places.folder,
            start_new_session=True,
            # They are the head's as long as the wrapper lives, which may start it again.
            pass_fds=claims.filenos(),
        )


def _wait_until_running(
    record: ClusterRecord,
    *,
    places: StatePlaces,
    wrapper: subprocess.Popen[bytes],
    limit_s: float,
    say: Say,
) -> None:
    say(f"Ray's head starts at {record.address}; its log is {places.head_log}")
    client = client_of(record)
    until_s = time.monotonic() + limit_s
    while time.monotonic() < until_s:
        if wrapper.poll() is not None:
            raise HeliostatError(f"the head did not come up:\n{_last_lines(places)}")
        try:
            status = client.status(timeout_s=2.0)
        except (NotRunning, NoAnswer):
            time.sleep(POLL_S)
            continue
        if status.phase == "running" and status.head:
            say(f"the head runs, session {status.session_name}")
            return
        time.sleep(POLL_S)
    raise HeliostatError(f"the head was not up within {limit_s:.0f} s:\n{_last_lines(places)}")


def _take_back(
    record: ClusterRecord, *, places: StatePlaces, wrapper: subprocess.Popen[bytes], say: Say
) -> None:
    """End the wrapper with all that it has started, and remove what says that a cluster runs."""
    say(f"ending what had started of {record.cluster_name}")
    # A second Ctrl-C must not leave processes behind; the time is limited anyway.
    with on_stop_signals(say_still_going_down):
        wrapper.terminate()
        until_s = time.monotonic() + TAKE_BACK_TIMEOUT_S
        while wrapper.poll() is None and time.monotonic() < until_s:
            time.sleep(POLL_S)
        _end_rest(record, say)
        forget_storage_or_say(record, say)
        # A wrapper that was told to end before it could hear so has not cleaned up.
        _remove_files(record, places)
        shutil.rmtree(record.runtime_dir, ignore_errors=True)


def _last_lines(places: StatePlaces) -> str:
    lines: list[str] = []
    for path in (places.head_log, places.controller_log):
        if path.exists():
            last = path.read_text(encoding="utf-8", errors="replace").splitlines()[-LOG_LINES:]
            lines += [f"{path}:", *(f"  {line}" for line in last)]
    return "\n".join(lines)


def _runs(record: ClusterRecord) -> bool:
    if record.wrapper is not None:
        return is_process(record.wrapper.pid, record.wrapper.start_ticks)
    # Between the record and the wrapper's own mark in it, its processes tell.
    return bool(tagged_processes(UID_TAG, record.cluster_uid))


def _see_it_go(record: ClusterRecord, shown: str, say: Say) -> str:
    """Say what is left; a controller that has not heard of it is told to go down."""
    client = client_of(record)
    try:
        status = client.status(timeout_s=2.0)
        if status.phase != "going down":
            # The one that had heard died on its way, and this one was started in its place.
            client.down()
    except (NotRunning, NoAnswer):
        text = "the head ends"
    else:
        names = ", ".join(one.name for one in status.instances)
        text = f"waiting for {names} to end" if names else "the head ends"
    if text != shown:
        say(text)
    return text


def _forget_crashed(record: ClusterRecord) -> None:
    """Remove what says that the cluster runs, where its wrapper died before it could do so.

    Raises StorageError, and keeps the record, where its state can't be deleted.
    """
    places = places_of(record)
    if (now := read_record(places.record)) is not None and now.cluster_uid == record.cluster_uid:
        write_record(places.record, replace(now, phase=DOWN))
        forget_storage(now)
        _remove_files(record, places)
    shutil.rmtree(record.runtime_dir, ignore_errors=True)


def _remove_files(record: ClusterRecord, places: StatePlaces) -> None:
    # The record last: once it is gone another `up` may write files of its own.
    LaunchFile.remove(places.folder)
    places.ray_file.unlink(missing_ok=True)
    remove_record(places.record, record.cluster_uid)


def _cancel_jobs(record: ClusterRecord, places: StatePlaces, say: Say) -> None:
    # Loaded only where a cluster goes: most commands need nothing of Slurm.
    from heliostat.cli.leftovers import cancel_jobs

    cancel_jobs(record, places=places, say=say)


def _end_rest(record: ClusterRecord, say: Say) -> None:
    left = end_tagged_now(UID_TAG, record.cluster_uid)
    if left:
        say(f"{left} processes of {record.cluster_name} had to be killed")
    remaining = tagged_processes(UID_TAG, record.cluster_uid)
    if remaining:
        raise HeliostatError(f"processes of {record.cluster_name} are still there: {remaining}")


__all__ = ["AlreadyRunning", "StartOptions", "start_cluster", "stop_cluster"]
