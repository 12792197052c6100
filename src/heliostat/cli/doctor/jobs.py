"""Jobs in Slurm of clusters that are gone: workers without a controller, records of heads that are over."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections import defaultdict
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from heliostat.cli.clusters import places_of
from heliostat.cli.doctor.finding import Finding
from heliostat.cli.doctor.living import START_S, Host
from heliostat.cli.head_queue import SLURM, queue_at
from heliostat.cli.leftovers import brief_runner, cancelled_at
from heliostat.cli.preparing import Say
from heliostat.cli.queued_end import waiting_or_gone
from heliostat.cli.queued_head import applied_spec
from heliostat.cli.successor import SuccessorPlaces
from heliostat.config.record import ClusterRecord, read_record
from heliostat.ports.errors import ConfigError, HeliostatError, Unavailable
from heliostat.providers.slurm.asking import listed
from heliostat.providers.slurm.jobs import Job, parse_squeue, squeue_command
from heliostat.providers.slurm.members import members_of
from heliostat.providers.slurm.options import parse_section
from heliostat.providers.slurm.refusals import trouble
from heliostat.providers.slurm.runner import LocalRunner

HEAD_UID_END = ".head"
"""What a head's tag has behind its cluster's uid (cli/head_queue.py)."""
DEADLINE_S = 30.0
SLURM_CONF = Path("/etc/slurm/slurm.conf")
NAMED = 5


def left(host: Host, say: Say) -> list[Finding]:
    """Return what clusters that are gone have left in Slurm. Where it can't be asked, that is a finding."""
    heads = [one for one in host.records if one.job is not None and host.now_s - one.created_at_s > START_S]
    found = [finding for one in host.gone for finding in _asked(partial(_workers, say=say), one)]
    found += [finding for one in heads for finding in _asked(partial(_head, say=say), one)]
    return found + _strangers(host, say)


def _asked(look: Callable[[ClusterRecord], list[Finding]], record: ClusterRecord) -> list[Finding]:
    try:
        return look(record)
    except HeliostatError as error:
        what = "there may be some in Slurm, which can't be asked"
        return [Finding("job", record.cluster_name, what, str(error), hint="try again")]


def _workers(record: ClusterRecord, *, say: Say) -> list[Finding]:
    section = _section(record, say)
    if section is None:
        return []
    options = parse_section(section)
    with brief_runner(options) as runner:
        jobs = asyncio.run(listed(runner, options, cluster_uid=record.cluster_uid))
    living = _living(jobs)
    if not living:
        return []

    def fix() -> None:
        cancelled_at(options, record.cluster_uid, say=say)

    return [Finding("job", record.cluster_name, living, "its cluster is gone", fix)]


def _section(record: ClusterRecord, say: Say) -> Mapping[str, Any] | None:
    """Return how the cluster reached Slurm, None if it did not.

    Where its file can't be read any more this host's own Slurm is asked, if it has one: a record is not to
    stay for ever. Workers that are elsewhere end by themselves, without a head.
    """
    try:
        return applied_spec(record, places_of(record)).backends.get(SLURM)
    except ConfigError as error:
        name = record.cluster_name
        say(f"the file of {name} can't be read, so only this host is asked for its jobs: {error}")
        return {} if shutil.which("squeue") else None


def _head(record: ClusterRecord, *, say: Say) -> list[Finding]:
    places = places_of(record)
    section = _section(record, say)
    if section is None:
        why = "its file can't be read, and there is no squeue here to ask for the job of its head"
        hint = "run `heliostat doctor` where Slurm's commands are"
        return [Finding("record", record.cluster_name, str(places.record), why, hint=hint)]
    queue = queue_at(parse_section(section))
    look = queue.look(record.cluster_uid)
    if look is not None and not look.is_over:
        return []
    ended = f"is over{f' ({look.detail})' if look and look.detail else ''}"
    after = SuccessorPlaces(places.folder)
    if _is_of(after, record):
        # It never began, so it has no workers; the cluster that it was to follow may run.
        return [_successor(record, after, f"the job of its next head {ended}")]

    def fix() -> None:
        waiting_or_gone(record, places=places, say=say, queue=queue)

    return [
        Finding(
            "record",
            record.cluster_name,
            f"{places.record}, and workers if any",
            f"the job of its head {ended}",
            fix,
        )
    ]


def _successor(record: ClusterRecord, after: SuccessorPlaces, why: str) -> Finding:
    def fix() -> None:
        if _is_of(after, record):
            after.remove()

    return Finding("record", record.cluster_name, str(after.record), why, fix)


def _is_of(after: SuccessorPlaces, record: ClusterRecord) -> bool:
    waiting = read_record(after.record)
    return waiting is not None and waiting.cluster_uid == record.cluster_uid


def _strangers(host: Host, say: Say) -> list[Finding]:
    """Return jobs with our tag of clusters that nothing here tells of: they may live elsewhere."""
    if shutil.which("squeue") is None:
        return []
    known = {one.cluster_uid for one in host.records}
    try:
        jobs = asyncio.run(_every_job())
    except HeliostatError as error:
        # The commands alone do not make a site: they may be installed for nothing.
        if host.environment.get("SLURM_CONF") or SLURM_CONF.exists():
            say(f"Slurm can't be asked: {error}")
        return []
    by_cluster: dict[str, list[Job]] = defaultdict(list)
    for job in jobs:
        uid = job.tag.cluster_uid.removesuffix(HEAD_UID_END)
        if uid not in known and not host.lives(uid):
            by_cluster[uid].append(job)
    return [_stranger(found) for found in by_cluster.values() if _living(found)]


def _stranger(jobs: list[Job]) -> Finding:
    tag, ids = jobs[0].tag, sorted({str(job.job_id) for job in jobs})
    # The tag in a job's name, which counts where a site changes comments, holds neither owner nor name.
    why = "no record of it is here" + (f"; `up` was run by {tag.owner}" if tag.owner else "")
    # Not one of ours, though it may have the same name.
    cluster = f"{tag.cluster_name} ({tag.cluster_uid[:8]})".lstrip()
    return Finding("job", cluster, _living(jobs), why, hint=f"scancel {' '.join(ids)}")


async def _every_job() -> tuple[Job, ...]:
    command = squeue_command()
    answer = await LocalRunner(os.environ).run(command, deadline_s=DEADLINE_S)
    if (wrong := trouble(command, answer.code, answer.stderr)) is not None:
        raise wrong
    try:
        return parse_squeue(answer.stdout).jobs
    except ValueError as error:
        raise Unavailable(str(error)) from error


def _living(jobs: tuple[Job, ...] | list[Job]) -> str:
    """Return the jobs that are not over in words; empty if none is."""
    found = members_of(jobs)
    names = [one.native_id for one in (*found.chosen.values(), *found.doubles) if not one.is_over]
    if not names:
        return ""
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return f"{len(names)} in Slurm: {', '.join(sorted(names)[:NAMED])}{more}"
