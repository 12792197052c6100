"""Jobs that a cluster has left in Slurm: looked for by its tag and cancelled, when it goes or has crashed."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
import time
from collections.abc import Iterator

from heliostat.cli.head_queue import SLURM, HeadQueue, patiently, runner_of
from heliostat.cli.preparing import Say
from heliostat.cli.queued_head import applied_spec
from heliostat.config.places import StatePlaces
from heliostat.config.record import ClusterRecord
from heliostat.ports.errors import HeliostatError
from heliostat.providers.slurm.options import SlurmOptions, parse_section
from heliostat.providers.slurm.runner import Runner

PATIENCE_S = 30.0
"""A slurmctld that is busy or restarts is back by then; nobody waits longer for what may not be there."""


def cancel_jobs(record: ClusterRecord, *, places: StatePlaces, say: Say) -> None:
    """Cancel what carries the cluster's tag in Slurm. Where it can't be asked, say what may be left."""
    try:
        left = cancelled(record, places=places, say=say)
    except HeliostatError as error:
        say(f"jobs of {record.cluster_name} may be left in Slurm, which could not be asked: {error}")
        return
    if left:
        say(f"{left} jobs of {record.cluster_name} were left in Slurm, and are cancelled")


def cancelled(record: ClusterRecord, *, places: StatePlaces, say: Say) -> int:
    """Cancel what carries the cluster's tag in Slurm; return how many instances that were."""
    section = applied_spec(record, places).backends.get(SLURM)
    return 0 if section is None else cancelled_at(parse_section(section), record.cluster_uid, say=say)


def cancelled_at(options: SlurmOptions, cluster_uid: str, *, say: Say) -> int:
    """Cancel what carries the tag at a site that is reached by `options`; return how many instances."""
    until_s = time.monotonic() + PATIENCE_S
    with brief_runner(options) as runner:
        queue = HeadQueue(runner, options)
        return patiently(lambda: queue.cancel_workers(cluster_uid), say=say, until_s=until_s)


@contextlib.contextmanager
def brief_runner(options: SlurmOptions) -> Iterator[Runner]:
    """Give what runs Slurm's commands, of a cluster that need not run itself."""
    with tempfile.TemporaryDirectory(prefix="hel-", dir="/tmp") as folder:
        runner = runner_of(options, runtime_dir=folder)
        try:
            yield runner
        finally:
            asyncio.run(runner.aclose())
