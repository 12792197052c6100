"""A head that is a Slurm job: what its files say, what Slurm says, and both in words."""

from __future__ import annotations

import os
import time
from pathlib import Path

from heliostat.cli.attachment import detach
from heliostat.cli.backends import backend_keys
from heliostat.cli.clusters import places_of
from heliostat.cli.head_queue import HeadLook, queue_of
from heliostat.cli.launch_file import LaunchFile
from heliostat.config.cluster_file import FileConfigSource
from heliostat.config.places import StatePlaces, site_file
from heliostat.config.record import ClusterRecord, read_record, remove_record
from heliostat.model.node_type import ClusterSpec
from heliostat.ports.errors import HeliostatError

LOG_LINES = 15


def head_look(record: ClusterRecord) -> HeadLook | None:
    """Return what Slurm says of a recorded head's job. Raises ProviderError."""
    return queue_of(applied_spec(record, places_of(record))).look(record.cluster_uid)


def applied_spec(record: ClusterRecord, places: StatePlaces) -> ClusterSpec:
    """Return the cluster as it was applied last; relative paths are those of the user's file."""
    source = FileConfigSource(
        places.config,
        backends=backend_keys(),
        site_file=site_file(os.environ),
        base_dir=Path(record.source).parent,
    )
    return source.load()


def waiting_words(look: HeadLook, *, now_s: float) -> str:
    """Return where a head's job is in one line for people."""
    if not look.waits:
        place = f" on {look.nodes}" if look.nodes else ""
        return f"the head's job {look.job_id} has begun{place}: setting up"
    detail = f", {look.detail}" if look.detail else ""
    expected = f", expected about {clock_time(look.expected_start_s, now_s)}" if look.expected_start_s else ""
    return f"waiting for the head: Slurm job {look.job_id}{detail}{expected}"


def clock_time(at_s: float, now_s: float) -> str:
    """Return a time of day, with the day if it is not today's, in this host's time zone."""
    at, now = time.localtime(at_s), time.localtime(now_s)
    return time.strftime("%H:%M" if at[:3] == now[:3] else "%Y-%m-%d %H:%M", at)


def last_lines(record: ClusterRecord) -> str:
    """Return the last lines of the job's own log, and of the head's."""
    places = places_of(record)
    lines: list[str] = []
    for path in (Path(record.job.log) if record.job else None, places.head_log, places.controller_log):
        if path is not None and path.exists() and path.stat().st_mtime >= record.created_at_s:
            last = path.read_text(encoding="utf-8", errors="replace").splitlines()[-LOG_LINES:]
            lines += [f"{path}:", *(f"  {line}" for line in last)]
    return "\n".join(lines)


def never_came_up(record: ClusterRecord, look: HeadLook | None) -> HeliostatError:
    """Return what is said of a head whose job is over before there was a head."""
    name, lines = record.cluster_name, last_lines(record)
    why = f" ({look.detail})" if look is not None and look.detail else ""
    text = f"the head of {name} never came up: its job is over{why}; `heliostat down {name}` clears it away"
    return HeliostatError(f"{text}\n{lines}" if lines else text)


def own_record(record: ClusterRecord, places: StatePlaces) -> ClusterRecord | None:
    """Return the cluster's record as it is now; None if it is gone, or another cluster's."""
    now = read_record(places.record)
    return now if now is not None and now.cluster_uid == record.cluster_uid else None


def forget(record: ClusterRecord, places: StatePlaces) -> None:
    """Remove what says that the cluster runs."""
    now = read_record(places.record)
    if now is not None and now.cluster_uid == record.cluster_uid:
        LaunchFile.remove(places.folder)
        remove_record(places.record, record.cluster_uid)
    if now is None or now.cluster_uid == record.cluster_uid:
        detach(places)
