"""A cluster that crashed and has kept its state: the next `up` goes on with it, workers and all.

Its record is still there, with the uid, the address and the session; Ray on the workers waits for a head
at that address for `head_timeout_s`.
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import time
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

from heliostat.cli.clusters import places_of
from heliostat.cli.gcs_storage import has_kept_state, refuse_unusable
from heliostat.cli.preparing import Say
from heliostat.cli.queued_head import applied_spec
from heliostat.cli.system import end_tagged_now
from heliostat.config.record import ClusterRecord, read_record
from heliostat.control.spec_changes import changes
from heliostat.model.node_type import ClusterSpec
from heliostat.ports.errors import HeliostatError
from heliostat.raylink.free_port import is_free
from heliostat.raylink.storage import has_state

PORT_S = 5.0
POLL_S = 0.05

UID_TAG, INSTANCE_TAG = "HELIOSTAT_CLUSTER_UID", "HELIOSTAT_INSTANCE_ID"


def to_resume(record: ClusterRecord, spec: ClusterSpec, *, say: Say) -> ClusterRecord | None:
    """Return the crashed cluster if a new head can go on with it, None where there is nothing to go on with.

    What the crash has left of its head is ended then, its workers are not touched. Raises HeliostatError
    where it could go on, but not now or not with this file.
    """
    storage, name = record.gcs_storage, record.cluster_name
    if storage is None or not has_kept_state(record):
        return None
    if not has_state(storage, os.environ, cluster_uid=record.cluster_uid):
        say(f"{name} crashed, and {storage.address} has lost its state: it starts afresh")
        return None
    _refuse_changes(record, spec)
    refuse_unusable(spec)
    end_tagged_now(UID_TAG, record.cluster_uid, but=INSTANCE_TAG)
    _await_port(port_of(record))
    say(f"{name} crashed: it goes on with the state in {storage.address}")
    return record


def resumed(crashed: ClusterRecord, path: Path) -> ClusterRecord:
    """Return the record with which a crashed cluster starts again, from the file at `path`.

    It has the old wrapper's mark until the new one writes its own: while it has none, any process of
    the cluster, a worker too, would count as one that runs.
    """
    return replace(crashed, source=str(path.resolve()), python=sys.executable, phase="starting")


def port_of(record: ClusterRecord) -> int:
    return int(record.address.rpartition(":")[2])


def refuse_other_address(crashed: ClusterRecord, address: str) -> None:
    """Raise HeliostatError unless the new head is where the workers look for the old one."""
    if address != crashed.address:
        raise HeliostatError(
            f"the workers of {crashed.cluster_name} wait for their head at {crashed.address}, and it would "
            f"be at {address} now: end what uses that port, or `heliostat down {crashed.cluster_name}` first"
        )


def leave(record: ClusterRecord, wrapper: subprocess.Popen[bytes]) -> str:
    """End a start that came to nothing as a crash would; return what to do next, nothing if all is gone."""
    wrapper.kill()
    wrapper.wait()
    now = read_record(places_of(record).record)
    if now is None or now.cluster_uid != record.cluster_uid:
        return ""
    end_tagged_now(UID_TAG, record.cluster_uid, but=INSTANCE_TAG)
    name = record.cluster_name
    return (
        f"the state of {name} and its workers are as they were: `heliostat up` tries again, "
        f"`heliostat down {name}` ends them"
    )


def _await_port(port: int) -> None:
    """Wait while a process that has just ended still has its sockets: they go after all else of it."""
    until_s = time.monotonic() + PORT_S
    while not is_free(port) and time.monotonic() < until_s:
        time.sleep(POLL_S)


def _refuse_changes(record: ClusterRecord, spec: ClusterSpec) -> None:
    applied = applied_spec(record, places_of(record))
    reasons = [one.text for one in changes(applied, spec) if one.refused]
    here = (version("ray"), ".".join(platform.python_version_tuple()[:2]))
    if here != (record.ray_version, record.python_version):
        reasons.append(
            f"its workers have Ray {record.ray_version} and Python {record.python_version}, "
            f"here are {here[0]} and {here[1]}"
        )
    if reasons:
        name = record.cluster_name
        raise HeliostatError(
            f"{name} crashed and can't go on like this: {'; '.join(reasons)}\n"
            f"`heliostat down {name}` ends what is left of it"
        )
