"""Which cluster a command means, and the way to its controller."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import click

from heliostat.api.client import ControllerClient, NotRunning
from heliostat.cli.output import tell
from heliostat.cli.system import is_process
from heliostat.config.places import RuntimePlaces, StatePlaces, state_places, state_root
from heliostat.config.record import ClusterRecord, list_records, read_record
from heliostat.ports.errors import ConfigError, HeliostatError

CLUSTER_FILE_BYTES_MAX = 1_000_000


def root() -> Path:
    """Return the folder of all clusters' state folders, for this user and environment."""
    return state_root(os.environ, home=Path.home())


def places_of(record: ClusterRecord) -> StatePlaces:
    return state_places(root(), record.cluster_name)


def client_of(record: ClusterRecord) -> ControllerClient:
    """Return a client for the cluster's controller, which need not run."""
    socket_path = RuntimePlaces(Path(record.runtime_dir)).control_socket
    return ControllerClient(socket_path, cluster=record.cluster_name)


def runs(record: ClusterRecord) -> bool:
    """Say whether the cluster's wrapper lives; of another host's cluster its record is believed."""
    if record.host not in ("", socket.gethostname()):
        return True
    wrapper = record.wrapper
    return wrapper is not None and is_process(wrapper.pid, wrapper.start_ticks)


def running() -> list[ClusterRecord]:
    """Return the clusters that run, by name; a record that can't be read is said on stderr."""
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
        record = read_record(state_places(root(), name).record)
    except (ValueError, OSError) as error:
        raise NotRunning(f"no cluster can be called {name!r}") from error
    if record is None or not runs(record):
        raise NotRunning(f"{name} does not run here: {_others()}")
    return record


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


def _others() -> str:
    names = ", ".join(record.cluster_name for record in running())
    return f"running are {names}" if names else "nothing runs; `heliostat up FILE` starts a cluster"


def still_there(record: ClusterRecord) -> bool:
    """Say whether this very cluster still runs, as its state folder has it now."""
    now = read_record(places_of(record).record)
    return now is not None and now.cluster_uid == record.cluster_uid and runs(now)
