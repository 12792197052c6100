"""One launch as Slurm sees it: the command, and the job script that sbatch reads. Pure.

A job is one array whose tasks are instances, or a gang: one allocation in which each member is a
step, started by srun. The script carries all that is needed, and its tasks end in `exec`, so that
the batch process is the bootstrap. Exit codes of the script: 20 it was requeued, 21 a setup line
failed, 22 the environment or the interpreter is not there; on_node.py and the bootstrap have others.
"""

from __future__ import annotations

import json
import math
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from heliostat.ports.errors import InvalidRequest
from heliostat.providers.slurm.arguments import Ask, arguments, cpus, notice_s, percent
from heliostat.providers.slurm.environments import ENV_FAILED, environment_lines, path_word
from heliostat.providers.slurm.options import JobOptions

REQUEUED, SETUP_FAILED = 20, 21
KILL_MARGIN_S = 8.0
"""The bootstrap's own work after the grace time of tasks: it must be done when Slurm kills."""

LINGER_S = 8
"""A task that fails at once keeps its place so long in an array that lets a few run at a time: else all the
others would fail, one after another, before anybody has seen the first."""

ASK_LEASE_S = 5
SIGNAL_LINE = 9
"""The descriptor on which a gang's member hears its signals."""

SETUP_SHOWN_CHARS = 120


@dataclass(frozen=True)
class Submission:
    """A command, and the job script for its standard input."""

    argv: tuple[str, ...]
    script: str


def submission(job: JobOptions, ask: Ask) -> Submission:
    """Return the submission of one job; InvalidRequest where Slurm can't be asked for such a thing."""
    script = _gang_script if ask.together else _array_script
    return Submission(arguments(job, ask), script(job, ask))


FUNCTIONS = """\
heliostat_say() { printf 'bootstrap: %s\\n' "$*"; }
heliostat_end() {
    trap - EXIT
    heliostat_say "ended with $1: $2"
    sleep "${heliostat_linger:-0}"
    exit "$1"
}
heliostat_left() {
    local code=$?
    heliostat_say "ended with $code: $heliostat_step ended the job script"
    sleep "${heliostat_linger:-0}"
}
heliostat_step='the job script'
trap heliostat_left EXIT"""

REQUEUE = f"""\
if [ "${{SLURM_RESTART_COUNT:-0}}" -gt 0 ]; then
    heliostat_end {REQUEUED} "Slurm has requeued this job; an instance starts only once"
fi"""

# For a head's job, which tells its end. The variables for it came with Slurm 23.02. The last task of an
# array has the array's own id as job id.
LEASE = f"""\
if [ -z "${{SLURM_JOB_END_TIME:-}}" ]; then
    heliostat_job=${{SLURM_ARRAY_JOB_ID:+${{SLURM_ARRAY_JOB_ID}}_$SLURM_ARRAY_TASK_ID}}
    read -r SLURM_JOB_START_TIME SLURM_JOB_END_TIME <<<"$(SLURM_TIME_FORMAT=%s timeout {ASK_LEASE_S} \\
        squeue --noheader --jobs="${{heliostat_job:-$SLURM_JOB_ID}}" --format='%S %e' 2>/dev/null)"
    export SLURM_JOB_START_TIME SLURM_JOB_END_TIME
fi"""

PYTHON = f"""\
heliostat_step="starting $heliostat_python"
command -v "$heliostat_python" >/dev/null \\
    || heliostat_end {ENV_FAILED} "no $heliostat_python on this node; set python, env or container\""""

# The end of the job's time is told by USR1, and by it alone: it follows every change of the time limit. Until
# the bootstrap listens it is noted; on_node.py raises it again.
HEAR_LATER = """\
heliostat_on_usr1='export HELIOSTAT_LEAVE_SOON=1'
trap "$heliostat_on_usr1" USR1"""

# `scancel --signal` to a step would reach every process in it, Ray's and the tasks' too. So members get
# their signals as words on their standard input, behind their script. They are noted from the first line on:
# a member that begins later is told of them as well.
GANG_SIGNALS = """\
heliostat_told=() heliostat_lines=() heliostat_steps=()
heliostat_tell() {
    (printf '%s\\n' "${@:2}" >&"$1") 2>/dev/null
}
heliostat_signal() {
    local line
    heliostat_told+=("$1")
    for line in "${heliostat_lines[@]}"; do
        heliostat_tell "$line" "$1"
    done
}
trap 'heliostat_signal USR1' USR1
trap 'heliostat_signal TERM' TERM"""

GANG = """\
for heliostat_node in $(scontrol show hostnames "$SLURM_JOB_NODELIST"); do
    # Of a gang that ends no more members are started.
    case " ${heliostat_told[*]} " in *' TERM '*) heliostat_say 'TERM: no more members start'; break ;; esac
    exec {heliostat_line}> >(heliostat_member "$heliostat_node")
    heliostat_steps+=("$!")
    heliostat_lines+=("$heliostat_line")
    # What comes between these two lines is told twice, which does no harm.
    [ ${#heliostat_told[@]} -eq 0 ] || heliostat_tell "$heliostat_line" "${heliostat_told[@]}"
done
heliostat_worst=0
for heliostat_one in "${heliostat_steps[@]}"; do
    # A signal ends `wait` early; the step goes on.
    while kill -0 "$heliostat_one" 2>/dev/null; do
        wait "$heliostat_one"
    done
    wait "$heliostat_one"
    heliostat_code=$?
    [ "$heliostat_worst" -ne 0 ] || heliostat_worst=$heliostat_code
done
trap - EXIT
exit "$heliostat_worst\""""


def _array_script(job: JobOptions, ask: Ask) -> str:
    linger = f"heliostat_linger={LINGER_S}" if ask.at_once is not None and ask.at_once < ask.count else ""
    parts = [_title(ask), HEAR_LATER, FUNCTIONS, REQUEUE, linger, _member(job, ask)]
    return "\n".join(parts) + "\n"


def _gang_script(job: JobOptions, ask: Ask) -> str:
    body = "\n".join(["trap '' USR1", FUNCTIONS, _member(job, ask)])
    word = _delimiter(body, "HELIOSTAT_MEMBER")
    script = f"IFS= read -r -d '' heliostat_script <<'{word}'\n{body}\n{word}"
    step = f'{shlex.join(_srun(job, ask))} --nodelist="$1" /bin/bash -s'
    # Words that come while the script is still on its way wait behind it.
    source = """3<&0 < <(printf '%s' "$heliostat_script"; exec cat <&3) 3<&-"""
    member = f"heliostat_member() {{ {step} {source}; }}"
    # Else steps would get what sbatch was told to export: nothing.
    steps = "export SLURM_EXPORT_ENV=ALL"
    return "\n".join([_title(ask), GANG_SIGNALS, FUNCTIONS, REQUEUE, steps, script, member, GANG]) + "\n"


def _srun(job: JobOptions, ask: Ask) -> list[str]:
    """Return the start of a member's step; its number is its rank, whichever comes first."""
    gpus = math.ceil(ask.resources.get("GPU", 0)) if job.gpu_request != "none" else 0
    return [
        "srun",
        "--overlap",
        "--nodes=1",
        "--ntasks=1",
        f"--cpus-per-task={cpus(job, ask)}",
        "--mem=0",
        *([f"--gres=gpu:{job.gpu_type + ':' if job.gpu_type else ''}{gpus}"] if gpus else []),
        "--mpi=none",
        "--open-mode=append",
        f"--output={percent(ask.log_dir)}/{ask.tag.launch_id}.%s.slurm.log",
    ]


def _title(ask: Ask) -> str:
    # Names come from outside; none may end the comment's line.
    what = f"launch {ask.tag.launch_id}, node type {ask.tag.node_type}, cluster {ask.tag.cluster_name}"
    shown = "".join(one if one.isprintable() else "?" for one in what)
    return f"#!/bin/bash\n# Ray workers, started by Heliostat: {shown}"


def _member(job: JobOptions, ask: Ask) -> str:
    """Return what is done for one instance, once it has its place."""
    outside, inside = _parted(job, ask)
    steps = [_outside_step(str(key), str(text)) for key, text in outside]
    return "\n".join([surroundings(job, ask), *steps, _start(job, inside)])


def _parted(job: JobOptions, ask: Ask) -> tuple[Sequence[Sequence[object]], Ask]:
    """Return the commands that run ahead of the container, and the rest, which is the bootstrap's."""
    setup = ask.start.get("setup")
    if job.container is None or not isinstance(setup, Mapping):
        return (), ask
    rest = {**setup, "initialization": []}
    return setup["initialization"], replace(ask, start={**ask.start, "setup": rest})


def _outside_step(key: str, text: str) -> str:
    """Return a command as the bootstrap would run it: in a shell of its own, in the home folder."""
    run = f"(cd; exec bash -c {shlex.quote(text)}) </dev/null"
    return f'{run} || heliostat_end {SETUP_FAILED} {shlex.quote(key)}" failed with exit code $?"'


def surroundings(job: JobOptions, ask: Ask) -> str:
    """Return the lines ahead of the start: variables, setup lines, the environment.

    Afterwards `heliostat_python` is the interpreter, and is there, unless the job has a container.
    They need `FUNCTIONS` before them.
    """
    settings = {**job.environment, **ask.environment}
    lines = [f"export {name}={shlex.quote(value)}" for name, value in sorted(settings.items())]
    lines += [_setup_step(index, line) for index, line in enumerate(job.setup, start=1)]
    # What a setup line has set must not change what follows.
    lines += ["set +eu +o pipefail", 'trap "${heliostat_on_usr1-}" USR1', "unset IFS"] if job.setup else []
    return "\n".join([*lines, _interpreter(job, ask)])


def _setup_step(number: int, line: str) -> str:
    """Return a setup line as it is run; one that fails ends the script, and is named."""
    flat = " ".join(line.split())
    shown = flat if len(flat) <= SETUP_SHOWN_CHARS else flat[: SETUP_SHOWN_CHARS - 1] + "…"
    step = shlex.quote(f"setup line {number} ({shown})")
    failed = f'heliostat_end {SETUP_FAILED} "$heliostat_step failed with code $?"'
    return f"heliostat_step={step}\neval {shlex.quote(line)} </dev/null || {failed}"


def _interpreter(job: JobOptions, ask: Ask) -> str:
    """Return the lines that find, or make, what runs the worker."""
    if job.env is not None:
        root = f"{ask.work_dir or ask.log_dir}/envs"
        return f"{environment_lines(job.env, root=root, start=ask.start)}\n{PYTHON}"
    if job.container is not None:
        runtime = job.container.runtime
        missing = f"container: there is no {runtime} on this node; a setup line may load it"
        return f"command -v {runtime} >/dev/null || heliostat_end {ENV_FAILED} {shlex.quote(missing)}"
    return f"heliostat_python={path_word(job.python or sys.executable)}\n{PYTHON}"


def _start(job: JobOptions, ask: Ask) -> str:
    code, payload = _on_node(), f"{_payload(job, ask)}\n{ask.bootstrap}"
    inner, outer = _delimiter(code, "HELIOSTAT_ON_NODE"), _delimiter(payload, "HELIOSTAT_START")
    line = f" {SIGNAL_LINE} {SIGNAL_LINE}<&0" if ask.together else ""
    command = f'exec {_command(job, ask)} -I -c "$heliostat_on_node"{line}'
    return "\n".join(
        [
            f"IFS= read -r -d '' heliostat_on_node <<'{inner}'\n{code.rstrip()}\n{inner}",
            "heliostat_step='the start of the worker'",
            "trap '' USR1",
            f"{command} <<'{outer}'\n{payload.rstrip()}\n{outer}",
        ]
    )


def _command(job: JobOptions, ask: Ask) -> str:
    if job.container is None:
        return '"$heliostat_python"'
    one = job.container
    shows_gpus = not ask.resources.get("GPU") or {"--nv", "--nvccli", "--rocm"} & set(one.args)
    args = [*one.args, *([] if shows_gpus else ["--nv"])]
    image = path_word(one.image)
    return f"{shlex.join([one.runtime, 'exec', *args])} {image} {shlex.quote(job.python or 'python3')}"


def _payload(job: JobOptions, ask: Ask) -> str:
    """Return the values that on_node.py reads, as one line."""
    start = {
        **ask.start,
        "resources": dict(ask.resources),
        "node_type": ask.tag.node_type,
        "log_monitor": job.log_monitor,
        "ray_args": list(job.ray_args),
        "port_range": list(job.port_range),
        "lease_warning_s": notice_s(job, ask),
        "drain_grace_s": max(1.0, ask.kill_wait_s - KILL_MARGIN_S),
    }
    payload = {
        "start": start,
        "launch_id": ask.tag.launch_id,
        "first": ask.first,
        "count": ask.count,
        "together": ask.together,
        "network": list(job.network),
        "temp_root": job.temp_root,
        "gpus_asked": job.gpu_request != "none",
    }
    try:
        return json.dumps(payload, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise InvalidRequest(f"the start document can't be written as JSON: {error}") from error


@cache
def _on_node() -> str:
    return Path(__file__).with_name("on_node.py").read_text(encoding="utf-8")


def _delimiter(text: str, word: str) -> str:
    """Return a word that ends a quoted document: no line of the document is like it."""
    lines = set(text.splitlines())
    while word in lines:
        word += "_"
    return word
