"""The section `provider.backends.slurm` and a node type's own part, parsed once. Pure.

`parse_section` reads the section; `job_options` lays a `node_config`'s values over the
section's and returns what one job is made of. What a key may hold is in `keys.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from heliostat.ports.errors import InvalidRequest
from heliostat.providers.slurm.keys import (
    JOB_PARSERS,
    OPTION_KEYS,
    PARSERS,
    SECTION_KEYS,
    SITE_PARSERS,
    Container,
    EnvironmentFile,
    Ssh,
)
from heliostat.providers.slurm.values import Wrong, said

DEFAULT_PORT_RANGE = (20000, 32000)
DEFAULT_DRAIN_NOTICE_S = 120.0
DEFAULT_COMMAND_DEADLINE_S = 30.0

FIELDS = {"time_limit": "time_limit_s", "time_min": "time_min_s", "memory": "memory_bytes"}
"""Keys whose field says its unit."""


class WrongOption(InvalidRequest):
    """A key is wrong; `key`, and `text` on what was found and what is allowed."""

    def __init__(self, key: str, found: object, allowed: str) -> None:
        super().__init__(f"slurm: {key} is {found!r}; allowed: {allowed}")
        self.key = key
        self.text = f"{said(found)}; allowed is {allowed}"


@dataclass(frozen=True)
class JobOptions:
    """What the jobs of one node type are made of. None: it is not asked for, Slurm's default holds.

    `time_limit_s` may be infinite. `memory_bytes` is asked of Slurm in place of the node
    type's own. `exclusive` "user": the node is shared among the user's own jobs.
    `environment` is not secret. `python` None: the one that Heliostat runs with, or what
    `env` or the container has. `network` holds interfaces and CIDRs, the first that fits
    wins; empty: the address of the route to the head.
    """

    account: str | None = None
    partition: tuple[str, ...] = ()
    qos: str | None = None
    reservation: str | None = None
    constraint: str | None = None
    licenses: str | None = None
    time_limit_s: float | None = None
    time_min_s: float | None = None
    exclusive: bool | Literal["user"] = False
    gpu_request: str = "gres"
    gpu_type: str | None = None
    memory_request: bool = True
    memory_bytes: int | None = None
    cpus_per_task: int | None = None
    nice: int | None = None
    comment: str = ""
    sbatch: tuple[str, ...] = ()
    setup: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    env: EnvironmentFile | None = None
    container: Container | None = None
    python: str | None = None
    network: tuple[str, ...] = ()
    temp_root: str | None = None
    port_range: tuple[int, int] = DEFAULT_PORT_RANGE
    drain_notice_s: float = DEFAULT_DRAIN_NOTICE_S
    log_monitor: bool = True
    ray_args: tuple[str, ...] = ()


@dataclass(frozen=True)
class SlurmOptions:
    """The section. `job` is what node types have in common; `given` the same as it was written.

    `work_dir` None means the context's log_dir; it is a folder that compute nodes share.
    `user` None means whoever runs the commands.
    """

    job: JobOptions = field(default_factory=JobOptions)
    given: Mapping[str, object] = field(default_factory=dict)
    ssh: Ssh | None = None
    work_dir: str | None = None
    command_deadline_s: float = DEFAULT_COMMAND_DEADLINE_S
    user: str | None = None

    @property
    def network(self) -> tuple[str, ...]:
        return self.job.network


def parse_section(section: Mapping[str, object]) -> SlurmOptions:
    """Return the section's values; WrongOption names the first key that is wrong."""
    _refuse_unknown(section, SECTION_KEYS)
    given = {key: value for key, value in section.items() if key in JOB_PARSERS}
    site = {key: parse_value(key, section[key]) for key in SITE_PARSERS if section.get(key) is not None}
    return SlurmOptions(job=_job(given), given=given, **site)


def job_options(section: SlurmOptions, options: Mapping[str, object]) -> JobOptions:
    """Return what a node type's jobs are made of; `options` are the backend's keys of its `node_config`.

    A key of `options` wins over the section's, None takes it away; only `environment` is
    merged, variable by variable. Raises WrongOption.
    """
    _refuse_unknown(options, OPTION_KEYS)
    merged: dict[str, object] = {**section.given, **options}
    ours, theirs = section.given.get("environment"), options.get("environment")
    if isinstance(ours, Mapping) and isinstance(theirs, Mapping):
        merged["environment"] = {**ours, **theirs}
    return _job(merged)


def parse_value(key: str, value: object) -> Any:
    """Return one key's value; raises WrongOption, whose key may go deeper (`env.uv`, `sbatch.2`)."""
    try:
        return PARSERS[key](value)
    except Wrong as error:
        raise WrongOption(".".join((key, *error.path)), error.found, error.allowed) from None


def _refuse_unknown(given: Mapping[str, object], known: tuple[str, ...]) -> None:
    unknown = sorted(str(key) for key in given if key not in known)
    if unknown:
        raise WrongOption(unknown[0], given[unknown[0]], f"no such key; known are {', '.join(known)}")


def _job(given: Mapping[str, object]) -> JobOptions:
    parsed = {
        FIELDS.get(key, key): parse_value(key, value) for key, value in given.items() if value is not None
    }
    job = JobOptions(**parsed)
    conflict = job_conflict(job)
    if conflict:
        raise WrongOption(*conflict)
    return job


def job_conflict(job: JobOptions) -> tuple[str, object, str] | None:
    """Return (key, found, allowed) where two keys can't go together; None if all can."""
    least, most = job.time_min_s, job.time_limit_s
    if least is not None and most is not None and least > most:
        return "time_min", least / 60, f"at most time_limit, {most / 60:g} minutes"
    if job.env is not None and job.container is not None:
        return "env", {job.env.tool: job.env.file}, "env or container, not both: an image has its own Python"
    if job.env is not None and job.python is not None:
        return "python", job.python, "env or python, not both: the environment has its own Python"
    if job.gpu_type is not None and job.gpu_request == "none":
        return "gpu_type", job.gpu_type, "a type only where GPUs are asked for; gpu_request is none"
    return None
