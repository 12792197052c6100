"""Commands that run something beside a head on another host: a step of its job, else ssh. Pure."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence

from heliostat.config.record import ClusterRecord

KEPT = ("SLURM_CONF", "SLURM_JWT", "SLURM_TIME_FORMAT")
"""All other SLURM_ variables of a shell would bend the step that is asked for."""

SSH = ("ssh", "-o", "BatchMode=yes", "-o", "ConnectTimeout=10")


def beside_head(record: ClusterRecord, argv: Sequence[str]) -> list[tuple[str, ...]]:
    """Return the commands that run `argv` on the head's host, the best first."""
    far = (*SSH, record.host, shlex.join(argv))
    return [far] if record.job is None else [(*step_of(record.job.job_id), *argv), far]


def step_of(job_id: str, *options: str) -> tuple[str, ...]:
    """Return `srun` for one more process in a job that runs; it takes nothing from the job's other steps."""
    return ("srun", f"--jobid={job_id}", "--overlap", "--quiet", "--nodes=1", "--ntasks=1", *options)


def tunnel_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Return a shell's environment without what would bend srun: the shell may itself be in a job."""
    return {
        name: value
        for name, value in environment.items()
        if name in KEPT or not name.startswith(("SLURM_", "SRUN_"))
    }


def dashboard_tunnel(record: ClusterRecord) -> str:
    """Return the line by which a person sees the dashboard of a head elsewhere; empty without one."""
    port = record.dashboard_url.rpartition(":")[2].rstrip("/")
    return f"ssh -N -L {port}:127.0.0.1:{port} {record.host}" if port.isdigit() and record.host else ""
