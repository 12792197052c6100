"""`#SBATCH` lines, as job scripts and older Ray-on-Slurm providers have them, into this backend's keys. Pure.

What has a key becomes that key, what Heliostat sets itself is told, all else goes into `sbatch` as it is.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from heliostat.providers.slurm.passthrough import REASONS, refusal

SHORT = {
    "A": "account", "a": "array", "b": "begin", "B": "extra-node-info", "C": "constraint",
    "c": "cpus-per-task", "d": "dependency", "D": "chdir", "e": "error", "F": "nodefile", "G": "gpus",
    "H": "hold", "i": "input", "J": "job-name", "k": "no-kill", "L": "licenses", "M": "clusters",
    "m": "distribution", "n": "ntasks", "N": "nodes", "o": "output", "O": "overcommit", "p": "partition",
    "q": "qos", "Q": "quiet", "s": "oversubscribe", "S": "core-spec", "t": "time", "v": "verbose",
    "w": "nodelist", "W": "wait", "x": "exclude",
}  # fmt: skip
"""sbatch(1)'s short options."""

BARE = frozenset(
    {"contiguous", "exclusive", "hold", "no-kill", "no-requeue", "overcommit", "oversubscribe", "quiet"}
    | {"requeue", "spread-job", "use-min-nodes", "verbose", "wait", "get-user-env", "reboot"}
)
"""Options whose value, if they have any, stands behind `=`."""

SAME = frozenset({"account", "qos", "reservation", "constraint", "licenses", "comment", "partition"})
GPU_STYLES = frozenset({"gpus", "gpus-per-node", "gpus-per-task"})
UNITS = {"": "MiB", "K": "KiB", "M": "MiB", "G": "GiB", "T": "TiB"}
LINE = re.compile(r"#SBATCH(\s+(?P<options>.*))?")
# One `#` more switches such a line off, and a word after it makes it a comment.
OTHER_COMMENT = re.compile(r"#(?!SBATCH\b).*")

Finding = tuple[int, str]


@dataclass
class Read:
    """What was read so far. `notes` and `wrong` carry the index of their line."""

    options: dict[str, Any] = field(default_factory=dict)
    notes: list[Finding] = field(default_factory=list)
    wrong: list[Finding] = field(default_factory=list)


def read_old_lines(lines: Sequence[str]) -> tuple[dict[str, Any], list[Finding], list[Finding]]:
    """Return keys of a `node_config`, what is not needed any more, and what is wrong, each by its line.

    The keys have `GPU` besides: how many the lines ask for, which is for the type's `resources`.
    """
    read = Read()
    for index, line in enumerate(lines):
        try:
            for name, value in _options(line.strip()):
                _take(read, index, name, value)
        except ValueError as error:
            read.wrong.append((index, str(error)))
    return read.options, read.notes, read.wrong


def _options(line: str) -> Iterator[tuple[str, str | None]]:
    """Return the long name and the value of each option; ValueError where it is no such line."""
    if not line or OTHER_COMMENT.fullmatch(line):
        return
    found = LINE.fullmatch(line)
    if found is None:
        raise ValueError("allowed is a line that begins with #SBATCH")
    words = shlex.split(found["options"] or "", comments=True)
    while words:
        word = words.pop(0)
        if word.startswith("--"):
            name, equals, value = word[2:].partition("=")
            bare = name in BARE or equals
        elif word.startswith("-") and len(word) > 1 and word[1] in SHORT:
            name, value = SHORT[word[1]], word[2:].removeprefix("=")
            equals, bare = value, name in BARE or value
        else:
            raise ValueError(f"{word} is no option of sbatch")
        if not bare and words and not words[0].startswith("-"):
            equals, value = "=", words.pop(0)
        yield name, value if equals else None


def _take(read: Read, index: int, name: str, value: str | None) -> None:
    if name in SAME and value:
        read.options[name] = value
    elif name in TAKEN:
        read.options |= TAKEN[name](value or "")
    elif name in GPU_STYLES and value:
        read.options |= {**_gpus(value), "gpu_request": name}
    elif name in REASONS:
        read.notes.append((index, f"--{name} is not passed on: {REASONS[name]}"))
    else:
        option = f"--{name}" if value is None else f"--{name}={value}"
        if reason := refusal(option):
            raise ValueError(f"{option}: allowed are {reason}")
        read.options["sbatch"] = [*read.options.get("sbatch", []), option]


def _exclusive(value: str) -> Mapping[str, Any]:
    if value not in ("", "user"):
        raise ValueError(f"--exclusive={value}; allowed is --exclusive or --exclusive=user")
    return {"exclusive": value or True}


def _memory(value: str) -> Mapping[str, Any]:
    found = re.fullmatch(r"(\d+)([KMGT]?)B?", value.upper())
    if found is None:
        raise ValueError(f"--mem={value}; allowed is a number with K, M, G or T")
    # 0 is Slurm's «all of the node's», which it gives by itself where no memory is asked for.
    return {"memory": found[1] + UNITS[found[2]]} if int(found[1]) else {"memory_request": False}


def _gres(value: str) -> Mapping[str, Any]:
    kind, _, rest = value.partition(":")
    if kind != "gpu" or "," in value:
        raise ValueError(
            f"--gres={value}; of generic resources only GPUs have a place here (gpu:<type>:<count>)"
        )
    return {**_gpus(rest or "1"), "gpu_request": "gres"}


def _gpus(value: str) -> dict[str, Any]:
    kind, _, count = value.rpartition(":")
    if not count.isdecimal():
        kind, count = value, "1"
    return {"GPU": int(count), **({"gpu_type": kind} if kind else {})}


def _whole(key: str) -> Callable[[str], Mapping[str, Any]]:
    def take(value: str) -> Mapping[str, Any]:
        if not re.fullmatch(r"-?\d+", value):
            raise ValueError(f"--{key.replace('_', '-')}={value}; allowed is a whole number")
        return {key: int(value)}

    return take


TAKEN: Mapping[str, Callable[[str], Mapping[str, Any]]] = {
    "time": lambda value: {"time_limit": value},
    "time-min": lambda value: {"time_min": value},
    "exclusive": _exclusive,
    "mem": _memory,
    "gres": _gres,
    "cpus-per-task": _whole("cpus_per_task"),
    "nice": _whole("nice"),
}
"""sbatch's option → the keys that it becomes."""
