"""Which cluster a command means, and the way to its controller."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import sys
from pathlib import Path

import click

from heliostat.api.client import ControllerClient, NotRunning
from heliostat.api.transport import RelayTransport
from heliostat.cli.gcs_storage import has_kept_state
from heliostat.cli.launch_file import LaunchFile
from heliostat.cli.output import tell
from heliostat.cli.successor import present_record
from heliostat.cli.system import is_process
from heliostat.cli.tunnels import beside_head, tunnel_environment
from heliostat.config.places import RuntimePlaces, StatePlaces, state_places, state_root
from heliostat.config.record import ClusterRecord, list_records, read_record
from heliostat.ports.errors import ConfigError, HeliostatError

CLUSTER_FILE_BYTES_MAX = 1_000_000
LOG_TAIL_BYTES = 16_384
CONTROLLER_STARTS = "controller starts"
"""The first thing that a controller says in its log."""


def root() -> Path:
    """Return the folder of all clusters' state folders, for this user and environment."""
    return state_root(os.environ, home=Path.home())


def places_of(record: ClusterRecord) -> StatePlaces:
    return state_places(root(), record.cluster_name)


def client_of(record: ClusterRecord) -> ControllerClient:
    """Return a client for the cluster's controller, which need not run.

    On the head's host it takes the control socket itself, from elsewhere a relay beside the head.
    Raises NotRunning while the head's job waits in its queue.
    """
    if waits(record):
        raise NotRunning(
            f"the head of {record.cluster_name} waits in Slurm's queue: "
            f"`heliostat status {record.cluster_name}` shows it"
        )
    socket_path = RuntimePlaces(Path(record.runtime_dir)).control_socket
    way: Path | RelayTransport = socket_path
    if record.host != socket.gethostname():
        relay = (record.python or sys.executable, "-m", "heliostat.api.relay", str(socket_path))
        way = RelayTransport(beside_head(record, relay), environment=tunnel_environment(os.environ))
    log = places_of(record).controller_log
    return ControllerClient(
        way,
        cluster=record.cluster_name,
        absence=_while_it_starts(record),
        last_error=lambda: last_error(log, since_s=record.created_at_s),
    )


def _while_it_starts(record: ClusterRecord) -> str:
    """Return what is said of a cluster whose head has not answered its controller yet."""
    if record.session_name:
        return ""
    if _is_set_up(record):
        log = places_of(record).head_log
        return f"{record.cluster_name} is starting: the head's host is being set up; the log is {log}"
    return (
        f"{record.cluster_name} is starting, and nobody answers yet; its logs are in {places_of(record).logs}"
    )


def _is_set_up(record: ClusterRecord) -> bool:
    """Say whether its wrapper is still at what comes before the head."""
    with contextlib.suppress(HeliostatError):
        if record.wrapper is not None and record.head is None:
            return bool(LaunchFile.read(places_of(record).folder).head_setup)
    return False


def last_error(log: Path, *, since_s: float) -> str:
    """Return the error with which a controller has ended, by its log; empty if that is not how it ends.

    `since_s` is Unix time: what a former run of the cluster has said is none of this one's.
    """
    try:
        if log.stat().st_mtime < since_s:
            return ""
        with log.open("rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - LOG_TAIL_BYTES))
            lines = file.read().decode(errors="replace").splitlines()
    except OSError:
        return ""
    for line in reversed(lines):
        try:
            said = json.loads(line)
        except ValueError:
            return ""
        # The next one may have been started since; it says so first of all.
        if not isinstance(said, dict) or said.get("event") != CONTROLLER_STARTS:
            return str(said["event"]) if isinstance(said, dict) and said.get("level") == "error" else ""
    return ""


def waits(record: ClusterRecord) -> bool:
    """Say whether the head is a job that has not begun."""
    return record.job is not None and not record.address


def runs(record: ClusterRecord) -> bool:
    """Say whether the cluster's wrapper lives.

    The record is believed of another host's cluster, and of one whose head is a job: it goes with the
    cluster, and where a crash has left it, `down` and `up` clear away what else there is.
    """
    if record.job is not None or record.host not in ("", socket.gethostname()):
        return True
    return _wrapper_lives(record)


def _wrapper_lives(record: ClusterRecord) -> bool:
    wrapper = record.wrapper
    return wrapper is not None and is_process(wrapper.pid, wrapper.start_ticks)


def running() -> list[ClusterRecord]:
    """Return the clusters that run, by name; a record that can't be read is said on stderr."""
    for folder in root().glob("*/successor.json"):
        with contextlib.suppress(HeliostatError):
            present_record(StatePlaces(folder.parent))
    records, problems = list_records(root())
    for problem in problems:
        tell(f"heliostat: {problem}")
    return [record for record in records if runs(record)]


def pick(cluster: str | None) -> ClusterRecord:
    """Return the cluster of that name or file; without either, the only one that runs.

    Raises NotRunning when it does not run, and a usage error when several could be meant.
    """
    if cluster is None:
        return _only_one()
    name = name_of(cluster)
    try:
        record = present_record(state_places(root(), name))
    except (ValueError, OSError) as error:
        raise NotRunning(f"no cluster can be called {name!r}") from error
    if record is None or not runs(record):
        raise NotRunning(f"{name} does not run here: {_way_back(record) or _others()}")
    return record


def pick_to_end(cluster: str | None) -> ClusterRecord:
    """Return the cluster of that name or file, be it one that crashed on this host; else as `pick`."""
    if cluster is not None:
        with contextlib.suppress(ValueError, OSError):
            record = present_record(state_places(root(), name_of(cluster)))
            if record is not None and record.host == socket.gethostname():
                return record
    return pick(cluster)


def pick_client(cluster: str | None) -> ControllerClient:
    return client_of(pick(cluster))


def name_of(cluster: str) -> str:
    """Return the cluster's name: `cluster` itself, or what the file of that path calls it."""
    if not _looks_like_path(cluster):
        return cluster
    return name_in_file(Path(cluster))


def name_in_file(path: Path) -> str:
    """Return `cluster_name` of a cluster file, unchecked otherwise. Raises ConfigError."""
    import yaml

    try:
        with path.open(encoding="utf-8") as file:
            found = yaml.safe_load(file.read(CLUSTER_FILE_BYTES_MAX))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError([f"{path}: it is not YAML; `heliostat check {path}` says where"]) from error
    except OSError as error:
        raise HeliostatError(f"{path} can't be read: {error.strerror}") from error
    name = found.get("cluster_name") if isinstance(found, dict) else None
    if not isinstance(name, str) or not name or "/" in name:
        raise ConfigError([f"{path}: cluster_name is missing or no plain name"])
    return name


def _looks_like_path(text: str) -> bool:
    return "/" in text or text.endswith((".yaml", ".yml"))


def _only_one() -> ClusterRecord:
    found = running()
    if len(found) == 1:
        return found[0]
    if not found:
        raise NotRunning("no cluster runs here: `heliostat up FILE` starts one, `heliostat demo` shows one")
    names = ", ".join(record.cluster_name for record in found)
    raise click.UsageError(f"several clusters run here, say which: {names}")


def _way_back(record: ClusterRecord | None) -> str:
    """Say how a cluster goes on that crashed and has kept its state; nothing of any other."""
    if record is None or record.host != socket.gethostname() or not has_kept_state(record):
        return ""
    return f"it crashed, and its state is kept: {way_back(record)}"


def way_back(record: ClusterRecord) -> str:
    name = record.cluster_name
    return f"`heliostat up {record.source}` goes on with it, `heliostat down {name}` ends it"


def _others() -> str:
    names = ", ".join(record.cluster_name for record in running())
    return f"running are {names}" if names else "nothing runs; `heliostat up FILE` starts a cluster"


def still_there(record: ClusterRecord) -> bool:
    """Say whether this very cluster still runs, as its state folder has it now."""
    now = read_record(places_of(record).record)
    if now is None or now.cluster_uid != record.cluster_uid:
        return False
    if now.job is None:
        return runs(now)
    return _wrapper_lives(now) if now.host == socket.gethostname() else _has_job(now)


def _has_job(record: ClusterRecord) -> bool:
    """Say whether Slurm still has the head's job; what can't be asked is taken to be there."""
    from heliostat.cli.queued_head import head_look

    try:
        look = head_look(record)
    except HeliostatError:
        return True
    return look is not None and not look.is_over
