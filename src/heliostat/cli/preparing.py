"""What every start of a cluster needs before its head begins, wherever that is.

Everything that can be refused is refused here, before the first process or job.
"""

from __future__ import annotations

import contextlib
import os
import platform
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from types import MappingProxyType
from typing import Any

from heliostat.cli.autoscaler import autoscaler_of, refuse_unusable_autoscaler
from heliostat.cli.backends import backend_keys
from heliostat.cli.gcs_storage import refuse_unusable
from heliostat.cli.system import SystemClock, abstract_lock, new_cluster_uid, owner, up_lock
from heliostat.config.cluster_file import FileConfigSource
from heliostat.config.places import (
    RuntimePlaces,
    StatePlaces,
    ensure_private_dir,
    runtime_places,
    runtime_root,
    site_file,
    writable_or_refuse,
)
from heliostat.config.record import ClusterRecord, create_record, read_record, remove_record
from heliostat.journal import SqliteJournal
from heliostat.model.node_type import ClusterSpec
from heliostat.model.snapshot import OperatorSettings
from heliostat.ports.errors import HeliostatError
from heliostat.raylink.token import ensure_token

Say = Callable[[str], None]
NOTHING: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True)
class StartOptions:
    """`workers`: that many of the first worker type at once, and kept. `detach`: the cluster
    outlives this process; otherwise it ends with it, however it ends. `queued_is_enough`: return
    once the head's job is submitted, if it is one, or has waited `queue_wait_s` in its queue.
    `overrides` are laid over the file: keys of its top level."""

    workers: int | None = None
    idle_after_s: float | None = None
    port: int | None = None
    detach: bool = False
    queued_is_enough: bool = False
    queue_wait_s: float = 0.0
    overrides: Mapping[str, Any] = field(default_factory=dict)


class AlreadyRunning(HeliostatError):
    """A cluster of that name runs; `record` says where."""

    def __init__(self, record: ClusterRecord) -> None:
        super().__init__(f"{record.cluster_name} runs already at {record.address}")
        self.record = record


def load_spec(path: Path, overrides: Mapping[str, Any] = NOTHING) -> ClusterSpec:
    """Read and check a cluster file with `overrides` laid over it, and that what it mounts is here.

    Raises ConfigError.
    """
    source = FileConfigSource(
        path.resolve(),
        backends=backend_keys(),
        site_file=site_file(os.environ),
        overrides=overrides,
        on_disk=True,
    )
    return source.load()


@contextlib.contextmanager
def one_at_a_time(places: StatePlaces) -> Iterator[None]:
    """Let one `up` of a cluster at a time get through; a second one is told."""
    with abstract_lock(up_lock(places.folder)) as held:
        if not held:
            raise HeliostatError("another `heliostat up` of this cluster is under way")
        yield


@contextlib.contextmanager
def claimed(path: Path, record: ClusterRecord, *, did: str = "started") -> Iterator[None]:
    """Write the record down; while the block fails, take it back. What the block writes is the cluster's.

    Raises HeliostatError when an `up` on another host was faster: of several one gets through.
    """
    if not create_record(path, record):
        other = read_record(path)
        who = f"{other.owner} has" if other else "another `heliostat up` has"
        raise HeliostatError(
            f"{who} just {did} {record.cluster_name}: `heliostat status {record.cluster_name}` shows it"
        )
    try:
        yield
    except BaseException:
        remove_record(path, record.cluster_uid)
        raise


def new_record(path: Path, spec: ClusterSpec, places: StatePlaces) -> ClusterRecord:
    """Return the record of a cluster that is to be.

    Its folder is there and can be written, its token and the storage of its state too.
    """
    ensure_private_dir(places.folder, uid=os.getuid())
    writable_or_refuse(places.folder)
    places.logs.mkdir(mode=0o700, exist_ok=True)
    refuse_unusable(spec)
    refuse_unusable_autoscaler(spec, os.environ)
    return ClusterRecord(
        cluster_name=spec.name,
        cluster_uid=new_cluster_uid(),
        owner=owner(),
        created_at_s=SystemClock().now_s(),
        source=str(path.resolve()),
        host="",
        runtime_dir="",
        token_path=str(ensure_token(os.environ)),
        ray_version=version("ray"),
        python_version=".".join(platform.python_version_tuple()[:2]),
        python=sys.executable,
        gcs_storage=spec.gcs_storage,
        autoscaler=autoscaler_of(spec, os.environ),
    )


def runtime_of(cluster_owner: str, cluster_uid: str) -> RuntimePlaces:
    """Make the cluster's runtime folder on this host; refuse one that can't hold a socket."""
    root = ensure_private_dir(runtime_root(os.environ, uid=os.getuid()), uid=os.getuid())
    runtime = runtime_places(root, owner=cluster_owner, cluster_uid=cluster_uid)
    ensure_private_dir(runtime.folder, uid=os.getuid())
    writable_or_refuse(runtime.folder, what="runtime folder", variable="HELIOSTAT_RUNTIME_DIR")
    _ = runtime.control_socket  # Refuses a path that is too long for a socket.
    return runtime


def keep_workers(places: StatePlaces, *, spec: ClusterSpec, cluster_uid: str, workers: int | None) -> None:
    """Open the journal once, so that a bad one is refused now; `--workers` becomes a floor in it."""
    journal = SqliteJournal(places.journal, cluster_uid=cluster_uid)
    try:
        if not workers:
            return
        if spec.policy.ray_decides:
            raise HeliostatError(
                "--workers: Ray's own autoscaler decides (autoscaler: ray); write min_workers in the file"
            )
        if not spec.policy.node_types:
            raise HeliostatError("--workers: the cluster file has no worker node type")
        first = spec.policy.node_types[0]
        most = min(first.max_workers, spec.policy.max_workers)
        if workers > most:
            raise HeliostatError(f"--workers {workers}: {first.name} may have at most {most} (max_workers)")
        journal.record_operator(OperatorSettings(floors={first.name: workers}))
    finally:
        journal.close()
