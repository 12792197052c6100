"""Jobs that a cluster has left in Slurm: looked for by its tag and cancelled, when it goes or has crashed."""

from __future__ import annotations

import asyncio
import os
import tempfile

from heliostat.cli.clusters import places_of
from heliostat.cli.head_queue import SLURM, HeadQueue
from heliostat.cli.preparing import Say
from heliostat.cli.queued_head import applied_spec
from heliostat.config.record import ClusterRecord
from heliostat.ports.errors import HeliostatError
from heliostat.providers.slurm.options import SlurmOptions, parse_section
from heliostat.providers.slurm.runner import LocalRunner, Runner, SshRunner


def cancel_jobs(record: ClusterRecord, say: Say) -> None:
    """Cancel what carries the cluster's tag in Slurm. Where it can't be asked, say what may be left."""
    try:
        section = applied_spec(record, places_of(record)).backends.get(SLURM)
        left = _cancelled(parse_section(section), record.cluster_uid) if section is not None else 0
    except HeliostatError as error:
        say(f"jobs of {record.cluster_name} may be left in Slurm, which could not be asked: {error}")
        return
    if left:
        say(f"{left} jobs of {record.cluster_name} were left in Slurm, and are cancelled")


def _cancelled(options: SlurmOptions, cluster_uid: str) -> int:
    with tempfile.TemporaryDirectory(prefix="hel-", dir="/tmp") as folder:
        runner: Runner = LocalRunner(os.environ)
        if options.ssh is not None:
            runner = SshRunner(options.ssh, runtime_dir=folder)
        try:
            return HeadQueue(runner, options).cancel_workers(cluster_uid)
        finally:
            asyncio.run(runner.aclose())
