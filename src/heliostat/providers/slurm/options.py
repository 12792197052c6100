"""The section `provider.backends.slurm` and a node type's own part, parsed once. Pure.

`parse_section` reads the section; `job_options` lays a `node_config`'s values over the
section's and returns what one job is made of. Each key has one parser, in
`JOB_PARSERS` or `SITE_PARSERS`; a parser raises `Wrong`, and the key's name is added here.
"""

from __future__ import annotations

import ipaddress
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from heliostat.ports.errors import InvalidRequest
from heliostat.providers.slurm import passthrough
from heliostat.providers.slurm.values import (
    Wrong,
    absolute_path,
    count,
    is_seconds,
    mapping,
    name,
    names,
    said,
    size,
    text,
    texts,
    truth,
)

GPU_REQUESTS = ("gres", "gpus", "gpus-per-node", "gpus-per-task", "none")
RUNTIMES = ("apptainer", "singularity")
ENVIRONMENT_TOOLS = ("uv", "conda")
DEFAULT_PORT_RANGE = (20000, 32000)
DEFAULT_DRAIN_NOTICE_S = 120.0
DEFAULT_COMMAND_DEADLINE_S = 30.0
NICE_MOST = 2147483645

# What a worker gets from the cluster and from its allocation; a value given here would be lost or do harm.
SET_FOR_EACH_WORKER = re.compile(
    r"RAY_(ADDRESS|AUTH_\w+|CLOUD_INSTANCE_ID|NODE_TYPE_NAME)|HELIOSTAT_\w+|SLURM_\w+"
    r"|(CUDA|ROCR|HIP)_VISIBLE_DEVICES|CUDA_DEVICE_ORDER"
)
VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
INTERFACE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.@:-]{0,31}")
HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_.-]*[A-Za-z0-9])?")

TIME_RULE = 'minutes, "minutes:seconds", "hours:minutes:seconds" or "days-hours[:minutes[:seconds]]"'
# YAML takes 4:00:00 without quotes for the number 14400, which would be ten days.
NUMBER_MOST_MINUTES = 24 * 60


class WrongOption(InvalidRequest):
    """A key is wrong; `key`, and `text` on what was found and what is allowed."""

    def __init__(self, key: str, found: object, allowed: str) -> None:
        super().__init__(f"slurm: {key} is {found!r}; allowed: {allowed}")
        self.key = key
        self.text = f"{said(found)}; allowed is {allowed}"


@dataclass(frozen=True)
class EnvironmentFile:
    """An environment that is made once, by `tool` from `file`, a path on the shared file system."""

    tool: Literal["uv", "conda"]
    file: str


@dataclass(frozen=True)
class Container:
    """An image in which workers run; `args` are more arguments of the runtime's `exec`."""

    runtime: Literal["apptainer", "singularity"]
    image: str
    args: tuple[str, ...] = ()


@dataclass(frozen=True)
class Ssh:
    """Where Slurm's commands run, if not here; `options` are `ssh`'s own arguments."""

    host: str
    user: str | None = None
    port: int | None = None
    options: tuple[str, ...] = ()


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


# -- the parsers


def time_s(value: object) -> float:
    """Return the seconds of a time in any of Slurm's forms; a number is minutes."""
    if isinstance(value, str) and value.strip().lower() in {"unlimited", "infinite"}:
        return math.inf
    if isinstance(value, int) and not isinstance(value, bool) and 0 < value <= NUMBER_MOST_MINUTES:
        return value * 60.0
    seconds = _clock_s(value.strip()) if isinstance(value, str) else None
    if not seconds:
        raise Wrong(value, f'{TIME_RULE} in quotes, "unlimited", or a number of minutes up to a day')
    return float(seconds)


def _clock_s(written: str) -> int | None:
    if found := re.fullmatch(r"(\d{1,5})-(\d{1,4})(?::(\d{1,2})(?::(\d{1,2}))?)?", written):
        days, hours, minutes, seconds = (int(part or 0) for part in found.groups())
        return ((days * 24 + hours) * 60 + minutes) * 60 + seconds
    if found := re.fullmatch(r"(?:(\d{1,6}):)?(\d{1,7}):(\d{1,2})", written):
        hours, minutes, seconds = (int(part or 0) for part in found.groups())
        return (hours * 60 + minutes) * 60 + seconds
    return int(written) * 60 if re.fullmatch(r"\d{1,8}", written) else None


def _exclusive(value: object) -> bool | str:
    if isinstance(value, bool) or value == "user":
        return value
    raise Wrong(value, "true, false or user")


def _one_of(allowed: tuple[str, ...]) -> Callable[[object], str]:
    def parse(value: object) -> str:
        if isinstance(value, str) and value in allowed:
            return value
        raise Wrong(value, f"{', '.join(allowed[:-1])} or {allowed[-1]}")

    return parse


def _gpu_type(value: object) -> str:
    if isinstance(value, str) and re.fullmatch(r"[A-Za-z0-9][\w.-]*", value):
        return value
    raise Wrong(value, "the name of a GPU type as `sinfo -o %G` shows it, such as a100")


def _nice(value: object) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) <= NICE_MOST:
        return value
    raise Wrong(value, "a whole number; below 0 is for administrators")


def _comment(value: object) -> str:
    if isinstance(value, str) and value.isprintable():
        return value
    raise Wrong(value, "text of one line")


def _setup(value: object) -> tuple[str, ...]:
    lines = texts(value, of_what="one command of the shell each")
    for index, line in enumerate(lines):
        if "\0" in line:
            raise Wrong(line, "text without the character 0", str(index))
    return lines


def _environment(value: object) -> Mapping[str, str]:
    given = mapping(value, "a mapping of variables to text")
    for variable, setting in given.items():
        # A name with a dot in it would be taken for a longer path.
        if not VARIABLE.fullmatch(str(variable)):
            raise Wrong(variable, "as a variable's name letters, digits and _, no digit first")
        if SET_FOR_EACH_WORKER.fullmatch(variable):
            raise Wrong(setting, "none: it is set for each worker", variable)
        if not isinstance(setting, str) or "\0" in setting:
            raise Wrong(setting, "text, so put it in quotes", variable)
    return given


def _env(value: object) -> EnvironmentFile:
    given = mapping(value, "{uv: requirements file} or {conda: environment file}")
    if len(given) != 1 or not set(given) <= set(ENVIRONMENT_TOOLS):
        raise Wrong(value, "{uv: requirements file} or {conda: environment file}")
    if "uv" in given:
        return EnvironmentFile("uv", shared_path(given["uv"], "uv"))
    return EnvironmentFile("conda", shared_path(given["conda"], "conda"))


def shared_path(value: object, *path: str) -> str:
    if isinstance(value, str) and value.startswith(("/", "~/")) and value.isprintable():
        return value
    raise Wrong(value, "the absolute path of a file that compute nodes see; ~/ is the home folder", *path)


def _container(value: object) -> Container:
    given = mapping(value, "a mapping with runtime, image and args")
    for key in given:
        if key not in {"runtime", "image", "args"}:
            raise Wrong(given[key], "no such key; known are runtime, image, args", str(key))
    runtime = given.get("runtime", RUNTIMES[0])
    if runtime not in RUNTIMES:
        raise Wrong(runtime, " or ".join(RUNTIMES), "runtime")
    image = given.get("image")
    if not isinstance(image, str) or not image or image.startswith("-") or not image.isprintable():
        raise Wrong(image, "the path or address of an image, such as /shared/ray.sif", "image")
    try:
        args = texts(given.get("args", []), of_what=f"one argument of `{runtime} exec` each")
    except Wrong as error:
        raise Wrong(error.found, error.allowed, "args", *error.path) from None
    return Container(runtime, image, args)


def _network(value: object) -> tuple[str, ...]:
    allowed = "an interface (ib0), a network (10.1.0.0/16), or a list of them"
    listed = value if isinstance(value, list | tuple) else [value]
    if not listed:
        raise Wrong(value, allowed)
    for index, one in enumerate(listed):
        if not isinstance(one, str) or not (_is_network(one) or INTERFACE.fullmatch(one)):
            raise Wrong(one, allowed, *([str(index)] if listed is value else []))
    return tuple(listed)


def _is_network(value: str) -> bool:
    try:
        ipaddress.ip_network(value, strict=False)
    except ValueError:
        return False
    return "/" in value


def _port_range(value: object) -> tuple[int, int]:
    if isinstance(value, list | tuple) and len(value) == 2:
        low, high = value
        if isinstance(low, int) and isinstance(high, int) and 1024 <= low < high <= 65535:
            return low, high
    raise Wrong(value, "[lowest, highest] port, within 1024 and 65535")


def _seconds(*, least: float, most: float = 86400) -> Callable[[object], float]:
    def parse(value: object) -> float:
        if is_seconds(value) and least <= float(str(value)) <= most:
            return float(str(value))
        raise Wrong(value, f"a number of seconds, {least:g} to {most:g}")

    return parse


def _sbatch(value: object) -> tuple[str, ...]:
    given = texts(value, of_what="one option of sbatch each, such as --mail-type=FAIL")
    for index, option in enumerate(given):
        if reason := passthrough.refusal(option):
            raise Wrong(option, reason, str(index))
    return given


def _ssh(value: object) -> Ssh:
    allowed = "a host such as login.example.org, or a mapping with host, user, port and options"
    given = {"host": value} if isinstance(value, str) else mapping(value, allowed)
    for key in given:
        if key not in {"host", "user", "port", "options"}:
            raise Wrong(given[key], "no such key; known are host, user, port, options", str(key))
    host, user, port = given.get("host"), given.get("user"), given.get("port")
    if isinstance(host, str) and host.count("@") == 1 and user is None:
        user, _, host = host.partition("@")
    if not isinstance(host, str) or not HOST.fullmatch(host):
        raise Wrong(value, allowed)
    if user is not None and not (isinstance(user, str) and HOST.fullmatch(user)):
        raise Wrong(user, "a user's name", "user")
    if port is not None and not (isinstance(port, int) and not isinstance(port, bool) and 0 < port < 65536):
        raise Wrong(port, "a port, 1 to 65535", "port")
    try:
        options = texts(given.get("options", []), of_what="one argument of ssh each")
    except Wrong as error:
        raise Wrong(error.found, error.allowed, "options", *error.path) from None
    return Ssh(host, user, port, options)


FIELDS = {"time_limit": "time_limit_s", "time_min": "time_min_s", "memory": "memory_bytes"}
"""Keys whose field says its unit."""

JOB_PARSERS: Mapping[str, Callable[[object], Any]] = {
    "account": name,
    "partition": names,
    "qos": name,
    "reservation": name,
    "constraint": text,
    "licenses": text,
    "time_limit": time_s,
    "time_min": time_s,
    "exclusive": _exclusive,
    "gpu_request": _one_of(GPU_REQUESTS),
    "gpu_type": _gpu_type,
    "memory_request": truth,
    "memory": size,
    "cpus_per_task": count,
    "nice": _nice,
    "comment": _comment,
    "sbatch": _sbatch,
    "setup": _setup,
    "environment": _environment,
    "env": _env,
    "container": _container,
    "python": text,
    "network": _network,
    "temp_root": absolute_path,
    "port_range": _port_range,
    "drain_notice_s": _seconds(least=0, most=65535),
    "log_monitor": truth,
    "ray_args": lambda value: texts(value, of_what="one option of `ray start` each"),
}
"""Keys of the section and of a `node_config` alike."""

SITE_PARSERS: Mapping[str, Callable[[object], Any]] = {
    "ssh": _ssh,
    "work_dir": absolute_path,
    "command_deadline_s": _seconds(least=1, most=600),
    "user": name,
}
"""Keys of the section alone."""

PARSERS = {**JOB_PARSERS, **SITE_PARSERS}
SECTION_KEYS = tuple(sorted(PARSERS))
OPTION_KEYS = tuple(sorted(JOB_PARSERS))
