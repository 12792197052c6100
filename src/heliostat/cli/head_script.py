"""The job of a head: what sbatch is given, and the script, which ends as the head's wrapper. Pure."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, replace

from heliostat.ports.errors import InvalidRequest
from heliostat.providers.slurm.arguments import Ask
from heliostat.providers.slurm.options import JobOptions
from heliostat.providers.slurm.script import (
    FUNCTIONS,
    LEASE,
    REQUEUE,
    Submission,
    submission,
    surroundings,
)
from heliostat.providers.slurm.tags import Tag
from heliostat.raylink.head import JOB_START_VARIABLE

PASSED_ON = ("HELIOSTAT_RUNTIME_DIR", "HELIOSTAT_SITE_FILE", "SLURM_CONF", JOB_START_VARIABLE)
"""What a person may have set that holds on every host."""

NOTICE_LEAST_S = 180.0
"""Going down in order takes as long: workers are let go, drivers hear of it."""


@dataclass(frozen=True)
class HeadAsk:
    """What is to be submitted. `folder` is the cluster's state folder, on a shared file system, as is `log`.

    `attached` is the file that a foreground `up` touches. `after_job` is the job that must be over first.
    """

    tag: Tag
    resources: Mapping[str, float]
    cluster_uid: str
    folder: str
    log: str
    versions: Mapping[str, str]
    port: int | None = None
    idle_after_s: float | None = None
    attached: str = ""
    after_job: str = ""


def head_submission(job: JobOptions, ask: HeadAsk, environment: Mapping[str, str]) -> Submission:
    """Return the submission; `environment` is this process's own. InvalidRequest for what a head can't be."""
    if job.container is not None:
        raise InvalidRequest("container: a head runs without one; use env or python")
    job = replace(job, drain_notice_s=max(job.drain_notice_s, NOTICE_LEAST_S))
    base = Ask(
        tag=ask.tag,
        count=1,
        first=0,
        together=True,
        resources=ask.resources,
        start=ask.versions,
        environment={name: environment[name] for name in PASSED_ON if name in environment},
        log_dir=ask.folder,
        bootstrap="",
    )
    argv = [one for one in submission(job, base).argv if not one.startswith("--output=")]
    log = ask.log.replace("%", "%%")
    after = [f"--dependency=afterany:{ask.after_job}"] if ask.after_job else []
    return Submission((*argv, f"--output={log}", *after), _script(job, base, ask))


def _script(job: JobOptions, base: Ask, ask: HeadAsk) -> str:
    command = ["-m", "heliostat.cli.head_job", ask.folder, ask.cluster_uid]
    command += [] if ask.port is None else [f"--port={ask.port}"]
    command += [] if ask.idle_after_s is None else [f"--idle-after={ask.idle_after_s:g}"]
    command += [f"--attached={ask.attached}"] if ask.attached else []
    parts = [
        "#!/bin/bash\n# A Ray head and its controller, started by Heliostat.",
        "trap '' USR1",
        FUNCTIONS,
        REQUEUE,
        # What they export may be what squeue needs.
        surroundings(job, base),
        LEASE,
        "heliostat_step='the start of the head'",
        f'exec "$heliostat_python" {shlex.join(command)} </dev/null',
    ]
    return "\n".join(parts) + "\n"
