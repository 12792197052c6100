"""What each key of the section and of a `node_config` may hold, and what it becomes. Pure.

Each key has one parser, in `JOB_PARSERS` or `SITE_PARSERS`; a parser raises `Wrong`, without the key's name.
"""

from __future__ import annotations

import ipaddress
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from heliostat.providers.slurm import passthrough
from heliostat.providers.slurm.values import (
    Wrong,
    absolute_path,
    count,
    is_seconds,
    mapping,
    name,
    names,
    size,
    text,
    texts,
    truth,
)

GPU_REQUESTS = ("gres", "gpus", "gpus-per-node", "gpus-per-task", "none")
RUNTIMES = ("apptainer", "singularity")
ENVIRONMENT_TOOLS = ("uv", "conda")
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
