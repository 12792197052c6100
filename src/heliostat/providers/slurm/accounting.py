"""How jobs ended that squeue no longer lists: one `sacct` for many, where a site has it. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from heliostat.model.instance import BackendState
from heliostat.providers.slurm.states import FAILURES, STATES

FIELDS = ("JobID", "State", "ExitCode", "Start", "End", "NodeList", "Reason")
NO_ACCOUNTING = "accounting storage is disabled"
STATE = re.compile(r"([A-Z_]+)(?: by (\d+)|\+)?")
EXIT_CODE = re.compile(r"(\d+):(\d+)")
MOST_IDS = 500
"""A command line must not grow without end; more are asked for in several."""
CANT_OPEN_LOG = 53
"""Slurm's own «signal» for a job whose output file can't be opened (seen)."""
SIGNAL_NAMES: Mapping[int, str] = {
    1: "HUP",
    2: "INT",
    6: "ABRT",
    9: "KILL",
    11: "SEGV",
    12: "USR2",
    15: "TERM",
}


@dataclass(frozen=True)
class End:
    """How one job, array task or step ended, or that it has not. Times are Unix seconds.

    `exit_code` and `signal` are the batch script's; `detail` says it in words for people.
    """

    state: BackendState
    detail: str
    exit_code: int
    signal: int
    started_s: float | None
    ended_s: float | None
    nodes: str


def sacct_command(native_ids: Sequence[str]) -> tuple[str, ...]:
    """Return the command that asks for these `<array>_<task>` and `<job>.<rank>`. It needs `ENVIRONMENT`.

    A step is known only if it started, so its job is asked for, too: see `end_of`.
    """
    assert 0 < len(native_ids) <= MOST_IDS, "the caller asks in pieces"
    ids = dict.fromkeys(part for one in native_ids for part in (_job_of(one), one))
    return ("sacct", "--parsable2", "--noheader", f"--format={','.join(FIELDS)}", f"--jobs={','.join(ids)}")


def parse_sacct(text: str) -> dict[str, End] | None:
    """Return the ends by Slurm's id; None where the site has no accounting.

    `text` is what sacct printed; where it failed, its standard error, too. A job that was
    requeued may have several lines, of which the last counts. ValueError for a line that
    can't be read.
    """
    if NO_ACCOUNTING in text:
        return None
    ends: dict[str, End] = {}
    for line in filter(None, text.splitlines()):
        fields = line.split("|", len(FIELDS) - 1)
        if len(fields) != len(FIELDS):
            raise ValueError(f"sacct's line {line[:200]!r} has {len(fields)} fields, not {len(FIELDS)}")
        ends[fields[0]] = _end(fields)
    return ends


def end_of(ends: Mapping[str, End], native_id: str) -> End | None:
    """Return how an instance ended: its step's end if Slurm has one, else its job's."""
    return ends.get(native_id) or ends.get(_job_of(native_id))


def _job_of(native_id: str) -> str:
    return native_id.partition(".")[0]


def _end(fields: Sequence[str]) -> End:
    _, said, codes, start, end, nodes, reason = fields
    state, exits = STATE.fullmatch(said), EXIT_CODE.fullmatch(codes)
    if state is None or exits is None:
        raise ValueError(f"sacct's line {'|'.join(fields)!r} can't be read")
    code, number = int(exits[1]), int(exits[2])
    return End(
        state=_state(state[1]),
        detail=_detail(state[1], state[2], reason, code=code, number=number),
        exit_code=code,
        signal=number,
        started_s=_time(start),
        ended_s=_time(end),
        nodes="" if nodes == "None assigned" else nodes,
    )


def _state(name: str) -> BackendState:
    if name == "PENDING":
        return BackendState.QUEUED
    return STATES.get(name, (BackendState.UNKNOWN, None))[0]


def _detail(state: str, canceller: str | None, reason: str, *, code: int, number: int) -> str:
    words = STATES.get(state, (None, None))[1]
    if canceller is not None:
        words = f"cancelled by user id {canceller}"
    elif state == "FAILED":
        words = ", ".join(filter(None, (_exit_words(code, number), FAILURES.get(reason))))
    return f"{state}: {words}" if words else state


def _exit_words(code: int, number: int) -> str:
    if number == CANT_OPEN_LOG:
        return "its log could not be opened on the node"
    if number:
        return (
            f"killed by SIG{SIGNAL_NAMES[number]}" if number in SIGNAL_NAMES else f"killed by signal {number}"
        )
    return f"exit code {code}" if code else ""


def _time(text: str) -> float | None:
    return float(text) if re.fullmatch(r"[0-9]+", text) else None
