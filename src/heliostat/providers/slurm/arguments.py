"""One job as sbatch's arguments: what is asked for, in Slurm's words and units. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from heliostat.providers.slurm.options import JobOptions
from heliostat.providers.slurm.tags import Tag, comment, job_name

MIB = 2**20
NOTICE_PART = 0.1
NOTICE_MOST_S = 65535
TIME_LEAST_MINUTES = 1


@dataclass(frozen=True)
class Ask:
    """What is to be submitted as one job.

    `first` is the index in the launch of this job's first instance, `count` how many it has.
    `at_once`: that many tasks run at a time, None all. `resources` are the node type's in
    Ray's names and units. `start` is the start document without what the node adds. Nothing
    in `environment` is secret. `log_dir` exists, here and on compute nodes. `work_dir`, if
    any, is where environments are made, else `log_dir`. `time_limit_s` caps the job's.
    """

    tag: Tag
    count: int
    first: int
    together: bool
    resources: Mapping[str, float]
    start: Mapping[str, object]
    environment: Mapping[str, str]
    log_dir: str
    bootstrap: str
    at_once: int | None = None
    kill_wait_s: float = 30.0
    time_limit_s: float | None = None
    work_dir: str | None = None


def time_limit_s(job: JobOptions, ask: Ask) -> float | None:
    """Return the limit to ask for, in whole minutes as Slurm counts; None for the partition's own."""
    limits = [one for one in (job.time_limit_s, ask.time_limit_s) if one is not None]
    if not limits:
        return None
    least = min(limits)
    return least if math.isinf(least) else max(TIME_LEAST_MINUTES, int(least // 60)) * 60.0


def notice_s(job: JobOptions, ask: Ask) -> int:
    """Return how long ahead of its end a lease is announced: a tenth at most of the shortest it may be."""
    limits = [one for one in (time_limit_s(job, ask), job.time_min_s) if one is not None]
    return int(min(job.drain_notice_s, NOTICE_MOST_S, *(NOTICE_PART * one for one in limits)))


def arguments(job: JobOptions, ask: Ask) -> tuple[str, ...]:
    """Return the command that submits one job; it reads the script from its standard input."""
    shape = _gang_shape(ask) if ask.together else _array_shape(ask)
    return (
        "sbatch",
        "--parsable",
        f"--job-name={job_name(ask.tag)}",
        f"--comment={comment(ask.tag, job.comment)}",
        *shape,
        *_wishes(job),
        *_resources(job, ask),
        *_times(job, ask),
        "--no-requeue",
        # The login environment of the compute node: nothing of ours gets into the job by chance.
        "--export=NONE",
        f"--chdir={ask.log_dir}",
        "--open-mode=append",
        *job.sbatch,
    )


def _array_shape(ask: Ask) -> list[str]:
    throttle = f"%{ask.at_once}" if ask.at_once is not None and ask.at_once < ask.count else ""
    # logs.py finds them again.
    log = f"{percent(ask.log_dir)}/{ask.tag.launch_id}.{ask.first}+%a.slurm.log"
    return [f"--array=0-{ask.count - 1}{throttle}", "--nodes=1", "--ntasks=1", f"--output={log}"]


def _gang_shape(ask: Ask) -> list[str]:
    log = f"{percent(ask.log_dir)}/{ask.tag.launch_id}.slurm.log"
    return [f"--nodes={ask.count}", f"--ntasks={ask.count}", "--ntasks-per-node=1", f"--output={log}"]


def percent(path: str) -> str:
    """Return a path as Slurm reads it back: its own patterns begin with %."""
    return path.replace("%", "%%")


def _wishes(job: JobOptions) -> list[str]:
    wishes = {
        "account": job.account,
        "partition": ",".join(job.partition),
        "qos": job.qos,
        "reservation": job.reservation,
        "constraint": job.constraint,
        "licenses": job.licenses,
        "nice": None if job.nice is None else str(job.nice),
    }
    exclusive = {False: [], True: ["--exclusive"], "user": ["--exclusive=user"]}[job.exclusive]
    return [f"--{key}={value}" for key, value in wishes.items() if value] + exclusive


def _resources(job: JobOptions, ask: Ask) -> list[str]:
    memory = memory_mib(job, ask)
    asked = [f"--cpus-per-task={cpus(job, ask)}"]
    asked += [] if memory is None else [f"--mem={memory}M"]
    return asked + _gpus(job, ask)


def cpus(job: JobOptions, ask: Ask) -> int:
    return job.cpus_per_task or max(1, math.ceil(ask.resources.get("CPU", 0)))


def memory_mib(job: JobOptions, ask: Ask) -> int | None:
    """Return the memory to ask for; None where none is asked, and the partition's default holds."""
    if not job.memory_request:
        return None
    own = ask.resources.get("memory", 0) + ask.resources.get("object_store_memory", 0)
    return math.ceil((job.memory_bytes or own) / MIB) or None


def _gpus(job: JobOptions, ask: Ask) -> list[str]:
    count = math.ceil(ask.resources.get("GPU", 0))
    if not count or job.gpu_request == "none":
        return []
    kind = f"{job.gpu_type}:" if job.gpu_type else ""
    if job.gpu_request == "gres":
        return [f"--gres=gpu:{kind}{count}"]
    # `--gpus` counts a whole job, and might divide a gang's unevenly.
    style = "gpus-per-node" if job.gpu_request == "gpus" and ask.together else job.gpu_request
    return [f"--{style}={kind}{count}"]


def _times(job: JobOptions, ask: Ask) -> list[str]:
    limit_s, notice = time_limit_s(job, ask), notice_s(job, ask)
    times = [] if limit_s is None else [f"--time={_minutes(limit_s)}"]
    if job.time_min_s is not None:
        least_s = job.time_min_s if limit_s is None else min(job.time_min_s, limit_s)
        times += [f"--time-min={_minutes(least_s)}"]
    # Slurm takes 0 for «at once».
    return times + ([f"--signal=B:USR1@{notice}"] if notice else [])


def _minutes(seconds: float) -> str:
    return "UNLIMITED" if math.isinf(seconds) else str(max(TIME_LEAST_MINUTES, int(seconds // 60)))
