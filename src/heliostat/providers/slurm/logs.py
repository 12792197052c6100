"""Jobs' logs: where they are, and their last lines, read here or through ssh."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Mapping, Sequence

from heliostat.ports.errors import ProviderError
from heliostat.providers.slurm.runner import Runner
from heliostat.providers.slurm.tags import Tag

LOOK_BACK_BYTES = 64 * 1024
LOOK_BACK_LINES = 60
READ_DEADLINE_S = 15.0
LOGS_PER_COMMAND = 50
BOOTSTRAP_MARK = "bootstrap:"
SLURM_MARK = re.compile(r"(slurmstepd|srun|slurmd)(-\S+)?: (error|\*\*\*)")
MEMORY = re.compile(r"exceeded .*memory limit|oom.kill|out of memory", re.IGNORECASE)
"""Slurm's word that it killed for memory: squeue may show no more than a failure."""
HEADER = re.compile(r"==> (.*) <==")


def log_path(log_dir: str, tag: Tag, index: int) -> str:
    """Return the log of a member: an array's task, or a gang's step."""
    name = f"{tag.launch_id}.{index}" if tag.together else f"{tag.launch_id}.{tag.first}+{index}"
    return f"{log_dir}/{name}.slurm.log"


def log_paths(log_dir: str, tag: Tag, index: int) -> tuple[str, ...]:
    """Return where a member's words may be: its own log, then that of a gang's job, ahead of its steps."""
    own = log_path(log_dir, tag, index)
    return (own, f"{log_dir}/{tag.launch_id}.slurm.log") if tag.together else (own,)


async def tails(
    paths: Sequence[str], lines: int, *, runner: Runner | None = None
) -> Mapping[str, Sequence[str]]:
    """Return the last lines of each log that is there, empty ones left out.

    With a `runner` they are read by `tail` where it runs commands; a failure there is no news.
    """
    wanted = list(dict.fromkeys(paths))
    if lines <= 0 or not wanted:
        return {}
    if runner is None:
        return await asyncio.to_thread(lambda: {path: _last(path, lines) for path in wanted})
    found: dict[str, list[str]] = {}
    for start in range(0, len(wanted), LOGS_PER_COMMAND):
        command = ("tail", "-v", "-n", str(lines), "--", *wanted[start : start + LOGS_PER_COMMAND])
        try:
            found |= parse_tail((await runner.run(command, deadline_s=READ_DEADLINE_S)).stdout)
        except ProviderError:
            return found
    return found


def parse_tail(text: str) -> dict[str, list[str]]:
    """Read what `tail -v` prints of several files."""
    found: dict[str, list[str]] = {}
    path = ""
    for line in text.splitlines():
        header = HEADER.fullmatch(line)
        if header is not None:
            path = header[1]
            found[path] = []
        elif line.strip() and path:
            found[path].append(line)
    return found


def telling(lines: Sequence[str]) -> str:
    """Return the line that says most: Slurm's of memory, the bootstrap's own last one, Slurm's, the last."""
    recent = [line.strip() for line in lines[-LOOK_BACK_LINES:] if line.strip()]
    own = [line for line in recent if line.startswith(BOOTSTRAP_MARK)]
    slurms = [line for line in recent if SLURM_MARK.match(line)]
    memory = [line for line in slurms if MEMORY.search(line)]
    return (memory[:1] or own or slurms or recent or [""])[-1]


def _last(path: str, lines: int) -> list[str]:
    try:
        with open(path, "rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - LOOK_BACK_BYTES))
            text = file.read().decode(errors="replace")
    except OSError:
        return []
    return [line for line in text.splitlines() if line.strip()][-lines:]
