"""Start a cluster and take it down: what `up`, `run`, `demo` and `down` share.

Everything that can be refused is refused before the first process starts.
"""

from __future__ import annotations

import contextlib
import os
import platform
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from heliostat.api.client import ControllerClient, NoAnswer, NotRunning
from heliostat.cli.backends import backend_keys
from heliostat.cli.foreground import on_stop_signals, say_still_going_down
from heliostat.cli.head import HeadPlan, plan_head
from heliostat.cli.launch_file import LaunchFile
from heliostat.cli.system import (
    SystemClock,
    abstract_lock,
    end_tagged_now,
    is_process,
    new_cluster_uid,
    owner,
    process_start_ticks,
    signal_process,
    tagged_processes,
)
from heliostat.config.cluster_file import FileConfigSource, dump_for_state
from heliostat.config.places import (
    RuntimePlaces,
    StatePlaces,
    ensure_private_dir,
    runtime_places,
    runtime_root,
    site_file,
    state_places,
    state_root,
    writable_or_refuse,
)
from heliostat.config.record import ClusterRecord, read_record, write_record
from heliostat.journal import SqliteJournal
from heliostat.model.node_type import ClusterSpec
from heliostat.model.snapshot import OperatorSettings
from heliostat.ports.errors import HeliostatError
from heliostat.raylink.address_file import claim_address_file
from heliostat.raylink.token import ensure_token

START_TIMEOUT_S = 180.0
DOWN_TIMEOUT_S = 180.0
TAKE_BACK_TIMEOUT_S = 30.0
POLL_S = 0.1
LOG_LINES = 15

UID_TAG = "HELIOSTAT_CLUSTER_UID"

Say = Callable[[str], None]


@dataclass(frozen=True)
class StartOptions:
    """`workers`: that many of the first worker type at once, and kept. `detach`: the cluster
    outlives this process; otherwise it ends with it, however it ends."""

    workers: int | None = None
    idle_after_s: float | None = None
    port: int | None = None
    detach: bool = False


class AlreadyRunning(HeliostatError):
    """A cluster of that name runs; `record` says where."""

    def __init__(self, record: ClusterRecord) -> None:
        super().__init__(f"{record.cluster_name} runs already at {record.address}")
        self.record = record


def start_cluster(path: Path, *, options: StartOptions, say: Say) -> ClusterRecord:
    """Bring the cluster of a file up and return when its head answers and its loop runs.

    Raises ConfigError for a bad file, AlreadyRunning, or HeliostatError with the head's
    last log lines; whatever had started is ended then.
    """
    spec = _load(path)
    places = state_places(state_root(os.environ, home=Path.home()), spec.name)
    with _starting(places):
        _refuse_if_running(places, say)
        record, head = _prepare(path, spec=spec, places=places, options=options)
        for note in head.notes:
            say(note)
        wrapper = _spawn_wrapper(places, head)
        try:
            _wait_until_running(record, places=places, wrapper=wrapper, say=say)
            if note := claim_address_file(record.address, os.environ):
                say(note)
        except BaseException:
            # Ctrl-C, too: nothing of a start that came to nothing stays behind.
            _take_back(record, places=places, wrapper=wrapper, say=say)
            raise
    return read_record(places.record) or record


def stop_cluster(record: ClusterRecord, *, say: Say, timeout_s: float = DOWN_TIMEOUT_S) -> None:
    """Take a cluster down and return when no process of it is left.

    Raises HeliostatError, naming the processes, if some are left after `timeout_s`.
    """
    if record.host != socket.gethostname():
        raise HeliostatError(
            f"{record.cluster_name} runs on {record.host}: run `heliostat down {record.cluster_name}` there"
        )
    try:
        ControllerClient(_socket(record), cluster=record.cluster_name).down()
    except (NotRunning, NoAnswer):
        if record.wrapper is not None:
            signal_process(record.wrapper.pid, record.wrapper.start_ticks, signal.SIGTERM)
    until_s = time.monotonic() + timeout_s
    shown = ""
    while _runs(record) and time.monotonic() < until_s:
        shown = _say_what_is_left(record, shown, say)
        time.sleep(POLL_S)
    _end_rest(record, say)


def _load(path: Path) -> ClusterSpec:
    return FileConfigSource(path.resolve(), backends=backend_keys(), site_file=site_file(os.environ)).load()


@contextlib.contextmanager
def _starting(places: StatePlaces) -> Iterator[None]:
    """Let one `up` of a cluster at a time get through; a second one is told."""
    with abstract_lock(f"up {places.folder}") as held:
        if not held:
            raise HeliostatError("another `heliostat up` of this cluster is under way")
        yield


def _refuse_if_running(places: StatePlaces, say: Say) -> None:
    record = read_record(places.record)
    if record is None:
        return
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
    places.record.unlink(missing_ok=True)


def _prepare(
    path: Path, *, spec: ClusterSpec, places: StatePlaces, options: StartOptions
) -> tuple[ClusterRecord, HeadPlan]:
    uid, me = os.getuid(), owner()
    ensure_private_dir(places.folder, uid=uid)
    writable_or_refuse(places.folder)
    places.logs.mkdir(mode=0o700, exist_ok=True)
    token_path = ensure_token(os.environ)
    cluster_uid = new_cluster_uid()
    runtime = _runtime(me, cluster_uid)
    head = plan_head(spec, cluster_uid=cluster_uid, token_path=token_path, port=options.port)
    record = ClusterRecord(
        cluster_name=spec.name,
        cluster_uid=cluster_uid,
        owner=me,
        created_at_s=SystemClock().now_s(),
        source=str(path.resolve()),
        host=socket.gethostname(),
        runtime_dir=str(runtime.folder),
        token_path=str(token_path),
        ray_version=version("ray"),
        python_version=".".join(platform.python_version_tuple()[:2]),
        address=head.address,
        dashboard_url=head.dashboard_url,
    )
    _keep_workers(places, spec=spec, cluster_uid=cluster_uid, workers=options.workers)
    places.config.write_text(dump_for_state(path), encoding="utf-8")
    write_record(places.record, record)
    _launch_file(head, record=record, places=places, options=options).write(places.folder)
    return record, head


def _runtime(me: str, cluster_uid: str) -> RuntimePlaces:
    root = ensure_private_dir(runtime_root(os.environ, uid=os.getuid()), uid=os.getuid())
    runtime = runtime_places(root, owner=me, cluster_uid=cluster_uid)
    ensure_private_dir(runtime.folder, uid=os.getuid())
    writable_or_refuse(runtime.folder, what="runtime folder", variable="HELIOSTAT_RUNTIME_DIR")
    _ = runtime.control_socket  # Refuses a path that is too long for a socket.
    return runtime


def _keep_workers(places: StatePlaces, *, spec: ClusterSpec, cluster_uid: str, workers: int | None) -> None:
    """Open the journal once, so that a bad one is refused now; `--workers` becomes a floor in it."""
    journal = SqliteJournal(places.journal, cluster_uid=cluster_uid)
    try:
        if not workers:
            return
        if not spec.policy.node_types:
            raise HeliostatError("--workers: the cluster file has no worker node type")
        first = spec.policy.node_types[0]
        most = min(first.max_workers, spec.policy.max_workers)
        if workers > most:
            raise HeliostatError(f"--workers {workers}: {first.name} may have at most {most} (max_workers)")
        journal.record_operator(OperatorSettings(floors={first.name: workers}))
    finally:
        journal.close()


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
    )


def _spawn_wrapper(places: StatePlaces, head: HeadPlan) -> subprocess.Popen[bytes]:
    with (places.logs / "wrapper.log").open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "heliostat.cli.wrapper", str(places.folder)],
            env=dict(head.environment),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=places.folder,
            start_new_session=True,
        )


def _wait_until_running(
    record: ClusterRecord, *, places: StatePlaces, wrapper: subprocess.Popen[bytes], say: Say
) -> None:
    say(f"Ray's head starts at {record.address}; its log is {places.head_log}")
    client = ControllerClient(_socket(record), cluster=record.cluster_name)
    until_s = time.monotonic() + START_TIMEOUT_S
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
    raise HeliostatError(f"the head was not up within {START_TIMEOUT_S:.0f} s:\n{_last_lines(places)}")


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
        # A wrapper that was told to end before it could hear so has not cleaned up.
        places.record.unlink(missing_ok=True)
        LaunchFile.remove(places.folder)
        shutil.rmtree(record.runtime_dir, ignore_errors=True)


def _last_lines(places: StatePlaces) -> str:
    lines: list[str] = []
    for path in (places.head_log, places.controller_log):
        if path.exists():
            last = path.read_text(encoding="utf-8", errors="replace").splitlines()[-LOG_LINES:]
            lines += [f"{path}:", *(f"  {line}" for line in last)]
    return "\n".join(lines)


def _socket(record: ClusterRecord) -> Path:
    return RuntimePlaces(Path(record.runtime_dir)).control_socket


def _runs(record: ClusterRecord) -> bool:
    if record.wrapper is not None:
        return is_process(record.wrapper.pid, record.wrapper.start_ticks)
    # Between the record and the wrapper's own mark in it, its processes tell.
    return bool(tagged_processes(UID_TAG, record.cluster_uid))


def _say_what_is_left(record: ClusterRecord, shown: str, say: Say) -> str:
    try:
        status = ControllerClient(_socket(record), cluster=record.cluster_name).status(timeout_s=2.0)
    except (NotRunning, NoAnswer):
        text = "the head ends"
    else:
        names = ", ".join(one.name for one in status.instances)
        text = f"waiting for {names} to end" if names else "the head ends"
    if text != shown:
        say(text)
    return text


def _end_rest(record: ClusterRecord, say: Say) -> None:
    left = end_tagged_now(UID_TAG, record.cluster_uid)
    if left:
        say(f"{left} processes of {record.cluster_name} had to be killed")
    remaining = tagged_processes(UID_TAG, record.cluster_uid)
    if remaining:
        raise HeliostatError(f"processes of {record.cluster_name} are still there: {remaining}")
