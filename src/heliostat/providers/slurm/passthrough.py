"""Options of sbatch that a cluster file may pass through as they are, and those that would break us. Pure."""

from __future__ import annotations

import re

LONG = re.compile(r"--([a-z][a-z0-9-]*)(?:=.*)?", re.DOTALL)

OWN_KEYS = {
    "account": "account", "partition": "partition", "qos": "qos", "reservation": "reservation",
    "constraint": "constraint", "licenses": "licenses", "time": "time_limit", "time-min": "time_min",
    "exclusive": "exclusive", "mem": "memory", "cpus-per-task": "cpus_per_task", "nice": "nice",
    "gres": "gpu_request and gpu_type", "gpus": "gpu_request and gpu_type",
    "gpus-per-node": "gpu_request and gpu_type", "gpus-per-task": "gpu_request and gpu_type",
}  # fmt: skip
"""sbatch's option → our key, which has to know of it."""

COUNTED = "the number of nodes and tasks follows from the node type"
OUTPUT = "the log's place is fixed, so that `heliostat` finds it"
ALONE = "it would print something else than the job's id"
REASONS = {
    "array": "instances of a type are one job array already",
    "job-name": "jobs are known by it", "comment": "jobs are known by it; the key comment adds yours",
    "output": OUTPUT, "error": OUTPUT, "open-mode": OUTPUT,
    "requeue": "an instance never starts twice", "no-requeue": "it is always given",
    "signal": "the end of a lease is announced by it; see drain_notice_s",
    "nodes": COUNTED, "ntasks": COUNTED, "ntasks-per-node": COUNTED, "tasks-per-node": COUNTED,
    "ntasks-per-core": COUNTED, "ntasks-per-socket": COUNTED, "ntasks-per-gpu": COUNTED,
    "wrap": "the job's script is ours", "parsable": "it is always given", "test-only": "nothing would start",
    "export": "the job has the login environment; use environment or setup",
    "export-file": "the job has the login environment; use environment or setup",
    "wait": "sbatch would not return", "hold": "such a job never starts by itself",
    "chdir": "the job's folder is the work folder", "quiet": ALONE, "help": ALONE, "usage": ALONE,
    "version": ALONE, "clusters": "jobs on another cluster would not be found again",
    "cluster": "jobs on another cluster would not be found again",
    "uid": "the job must be this user's", "gid": "the job must be this user's",
}  # fmt: skip
"""sbatch's option → why it is not passed through."""

REFUSED = sorted({*OWN_KEYS, *REASONS})
# Options of their own that begin like a refused one is spelled, so they are no abbreviations of it.
WHOLE = frozenset({"mem-per-cpu", "mem-per-gpu", "mem-bind"})


def refusal(option: str) -> str | None:
    """Return what is allowed instead of this option; None where it may pass through."""
    found = LONG.fullmatch(option)
    if found is None or not option.isprintable():
        return "one long option such as --mail-type=FAIL, its value behind ="
    # sbatch takes an abbreviation for the option, as long as no other begins so.
    meant = [one for one in REFUSED if one == found[1] or (one.startswith(found[1]) and len(found[1]) > 1)]
    if not meant or found[1] in WHOLE:
        return None
    exact = found[1] if found[1] in meant else meant[0]
    if exact in OWN_KEYS:
        return f"other options than --{exact}: use the key {OWN_KEYS[exact]}"
    return f"other options than --{exact}: {REASONS[exact]}"
