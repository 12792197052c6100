"""Runs inside the job of a head: plans the head on this node, writes down where it is, becomes its wrapper.

    python -m heliostat.cli.head_job STATE_FOLDER CLUSTER_UID [--port N] [--idle-after S] [--attached FILE]

The state folder is on a file system that login and compute nodes share; sockets and Ray's temp
dir are on this node. A job whose cluster was taken down before it began ends at once.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import socket
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import FrameType

from heliostat.cli.addresses import reachable_address
from heliostat.cli.autoscaler import head_for
from heliostat.cli.backends import backend_keys
from heliostat.cli.head import TEMP_ROOT, TEMP_ROOT_CHARS, HeadPlace, HeadPlan, networks, plan_head
from heliostat.cli.launch_file import LaunchFile
from heliostat.cli.leftovers import cancel_jobs
from heliostat.cli.preparing import runtime_of
from heliostat.cli.successor import SuccessorPlaces, promote
from heliostat.config.cluster_file import FileConfigSource
from heliostat.config.places import RuntimePlaces, StatePlaces, site_file
from heliostat.config.record import ClusterRecord, HeadJob, read_record, write_record
from heliostat.model.node_type import ClusterSpec
from heliostat.ports.errors import HeliostatError
from heliostat.providers.slurm import on_node
from heliostat.providers.slurm.options import job_options, parse_section
from heliostat.raylink.free_port import PortClaims

SLURM = "slurm"
PORTS_SPREAD = 1000
"""Heads of several users may start on one node in the same second, each sure that a port is free."""

END_TIME_VARIABLE = "SLURM_JOB_END_TIME"
"""The job's script sets it where Slurm does not."""


def promote_successor(places: StatePlaces, cluster_uid: str) -> None:
    """Make the successor of that uid the cluster of the folder, once its predecessor is over.

    One that went in order took its record with it. Where the record is still there nobody has let
    its workers go, and from here on nobody would know of them: their jobs are cancelled by the tag.
    """
    successor = read_record(SuccessorPlaces(places.folder).record)
    if successor is None or successor.cluster_uid != cluster_uid:
        return
    dead = read_record(places.record)
    if dead is not None:
        _say(f"the last head of {dead.cluster_name} died; cancelling what it has left")
        cancel_jobs(dead, places=places, say=_say)
    promote(places)


def prepared(
    places: StatePlaces,
    cluster_uid: str,
    *,
    arguments: argparse.Namespace,
    environment: Mapping[str, str],
    claims: PortClaims,
) -> HeadPlan:
    """Plan the head here, claim its ports, write record and launch file. Raises HeliostatError."""
    promote_successor(places, cluster_uid)
    record = read_record(places.record)
    if record is None or record.cluster_uid != cluster_uid or record.job is None:
        raise HeliostatError("this cluster was taken down before its head began")
    source = FileConfigSource(
        places.config,
        backends=backend_keys(),
        site_file=site_file(environment),
        base_dir=Path(record.source).parent,
    )
    spec = source.load()
    place = replace(job_place(spec, environment), port_offset=int(cluster_uid[:8], 16) % PORTS_SPREAD)
    token_path = Path(record.token_path)
    runtime = runtime_of(record.owner, cluster_uid)
    try:
        head = plan_head(
            spec, place, cluster_uid=cluster_uid, token_path=token_path, port=arguments.port, claims=claims
        )
        head = head_for(head, record)
        _write_down(record, head, runtime, places=places, arguments=arguments, environment=environment)
    except BaseException:
        shutil.rmtree(runtime.folder, ignore_errors=True)
        raise
    return head


def _write_down(
    record: ClusterRecord,
    head: HeadPlan,
    runtime: RuntimePlaces,
    *,
    places: StatePlaces,
    arguments: argparse.Namespace,
    environment: Mapping[str, str],
) -> None:
    assert record.job is not None
    job = HeadJob(environment["SLURM_JOB_ID"], record.job.log, lease_end_s(environment) or 0.0)
    record = replace(
        record,
        host=socket.gethostname(),
        runtime_dir=str(runtime.folder),
        address=head.address,
        node_ip=head.node_ip,
        dashboard_url=head.dashboard_url,
        client_port=head.client_port,
        python=sys.executable,
        head_temp_dir=head.temp_dir,
        phase="starting",
        job=job,
    )
    launch = _launch_file(head, record, places=places, arguments=arguments)
    launch.write(places.folder)
    write_record(places.record, record)


def job_place(spec: ClusterSpec, environment: Mapping[str, str]) -> HeadPlace:
    """Return what this job gives to its head: never more than Slurm gave, whatever the machine has."""
    head = spec.head_type
    gpus_asked = job_options(parse_section(spec.backends[SLURM]), head.options).gpu_request != "none"
    resources, lines = on_node.resources_of(
        head.resources.units(), environment, on_node.read_machine(), gpus_asked=gpus_asked
    )
    for line in lines:
        _say(line)
    return HeadPlace(
        host=job_host(spec),
        temp_root=temp_root(spec, environment),
        resources=resources,
        labels=on_node.labels_of(environment["SLURM_JOB_ID"], environment),
    )


def job_host(spec: ClusterSpec) -> str:
    """Return this node's address, by the networks of the head's type, or else of its backend's section."""
    head = spec.head_type
    for wanted, key in (
        (networks(head.options), f"available_node_types.{head.name}.node_config.network"),
        (networks(spec.backends.get(head.backend, {})), f"provider.backends.{head.backend}.network"),
    ):
        if wanted:
            return reachable_address(wanted, key=key)
    return reachable_address((), key=f"provider.backends.{head.backend}.network")


def temp_root(spec: ClusterSpec, environment: Mapping[str, str]) -> str:
    """Return a folder on this node's own disk that is short enough for Ray and can be written."""
    section = spec.backends.get(spec.head_type.backend, {})
    given = spec.head_type.options.get("temp_root") or section.get("temp_root")
    wishes = [given] if given else [environment.get("SLURM_TMPDIR"), environment.get("TMPDIR"), TEMP_ROOT]
    for wish in map(str, filter(None, wishes)):
        if len(wish) <= TEMP_ROOT_CHARS and os.access(wish, os.W_OK | os.X_OK):
            return wish
    tried = ", ".join(map(str, filter(None, wishes)))
    raise HeliostatError(
        f"no folder for Ray's temp dir: {tried}; allowed is one that can be written, of at most "
        f"{TEMP_ROOT_CHARS} characters: set temp_root"
    )


def lease_end_s(environment: Mapping[str, str]) -> float | None:
    """Return when this job ends at the latest, in Unix seconds; None where it has no end."""
    told = environment.get(END_TIME_VARIABLE, "")
    return float(told) if told.isdigit() else None


def _launch_file(
    head: HeadPlan, record: ClusterRecord, *, places: StatePlaces, arguments: argparse.Namespace
) -> LaunchFile:
    return LaunchFile(
        head_argv=list(head.argv),
        head_environment=dict(head.head_environment),
        head_temp_dir=head.temp_dir,
        address=record.address,
        cluster_uid=record.cluster_uid,
        runtime_dir=record.runtime_dir,
        log_dir=str(places.logs),
        attached_file=arguments.attached,
        idle_after_s=arguments.idle_after,
        head_setup=dict(head.setup),
        head_setup_s=head.setup_s,
    )


def _arguments(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m heliostat.cli.head_job", allow_abbrev=False)
    parser.add_argument("folder", type=Path)
    parser.add_argument("cluster_uid")
    parser.add_argument("--port", type=int)
    parser.add_argument("--idle-after", type=float)
    parser.add_argument("--attached", default="")
    return parser.parse_args(argv)


def _say(text: str) -> None:
    print(f"head: {text}", flush=True)


def main() -> None:
    arguments = _arguments(sys.argv[1:])
    places = StatePlaces(arguments.folder)
    # A job that is cancelled now leaves no folder on its node; from `execve` on the wrapper sees to that.
    signal.signal(signal.SIGTERM, _end)
    claims = PortClaims()
    try:
        head = prepared(
            places, arguments.cluster_uid, arguments=arguments, environment=os.environ, claims=claims
        )
    except HeliostatError as error:
        _say(str(error))
        # The record stays: whoever asks for the cluster later is told why there is none.
        sys.exit(1)
    for note in head.notes:
        _say(note)
    _say(f"on {socket.gethostname()}, {head.address}")
    # The wrapper takes our place, so that the job's own process hears what Slurm says.
    for descriptor in claims.filenos():
        os.set_inheritable(descriptor, True)
    argv = [sys.executable, "-m", "heliostat.cli.wrapper", str(places.folder)]
    os.execve(sys.executable, argv, dict(head.environment))


def _end(number: int, _: FrameType | None) -> None:
    _say("told to end before the head was there")
    sys.exit(128 + number)


if __name__ == "__main__":
    main()
