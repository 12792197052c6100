"""Jobs' logs: where they are, their last lines, and when they go; read here or through ssh."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Collection, Mapping, Sequence

from heliostat.ports.errors import ProviderError
from heliostat.providers.slurm.runner import Runner
from heliostat.providers.slurm.tags import Tag

LOOK_BACK_BYTES = 64 * 1024
LOOK_BACK_LINES = 60
READ_DEADLINE_S = 15.0
LOGS_PER_COMMAND = 100
BOOTSTRAP_MARK = "bootstrap:"
SLURM_MARK = re.compile(r"(slurmstepd|srun|slurmd)(-\S+)?: (error|\*\*\*)|\[\d{4}-[\d-]+T[\d:.]+\] error: ")
"""Slurm's own line: `slurmstepd-n1: error: …`, and from 26.05 on `[2026-11-21T17:06:29.537] error: …`."""
MEMORY = re.compile(r"exceeded .*memory limit|oom.kill|out of memory", re.IGNORECASE)
"""Slurm's word that it killed for memory: squeue may show no more than a failure."""
KEPT_S = 7 * 86_400.0
KEPT_AT_MOST = 2000
"""A log goes when its last line is a week older than now and than the newest log's, or when there are so many
newer ones; never while its job lives."""
NAME = re.compile(r"([0-9a-z]+)\.(?:\d+\.|\d+\+\d+\.)?slurm\.log")
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


async def tidy(log_dir: str, runner: Runner, *, living: Collection[str], now_s: float) -> int:
    """Remove the logs that are too old or too many, but none of the launches `living`; return how many.

    Raises Unavailable where no command can be run; a folder that is not there holds none.
    """
    listing = await runner.run(list_command(log_dir), deadline_s=READ_DEADLINE_S)
    names = superfluous(listing.stdout, living=living, now_s=now_s)
    for start in range(0, len(names), LOGS_PER_COMMAND):
        paths = [f"{log_dir}/{name}" for name in names[start : start + LOGS_PER_COMMAND]]
        await runner.run(("rm", "-f", "--", *paths), deadline_s=READ_DEADLINE_S)
    return len(names)


def list_command(log_dir: str) -> tuple[str, ...]:
    return ("find", log_dir, "-maxdepth", "1", "-type", "f", "-name", "*.slurm.log", "-printf", "%T@ %f\\n")


def superfluous(listing: str, *, living: Collection[str], now_s: float) -> list[str]:
    """Return the names of logs to remove, of what `list_command` has printed; other files are left alone.

    The times are the file server's, and `now_s` may be far off: the newest of them bounds it.
    """
    found = []
    for line in listing.splitlines():
        written, _, name = line.partition(" ")
        log = NAME.fullmatch(name)
        if log is not None and log[1] not in living:
            found.append((float(written), name))
    newest_first = sorted(found, reverse=True)
    now_s = min(now_s, max((written_s for written_s, _ in found), default=now_s))
    return [
        name
        for place, (written_s, name) in enumerate(newest_first)
        if place >= KEPT_AT_MOST or now_s - written_s > KEPT_S
    ]


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
