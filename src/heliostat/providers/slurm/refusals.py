"""Slurm's words into the port's errors: one table, first match first. Pure.

Slurm's own words stay in every message, with what a site's plug-in may have said before
them; what we add says what to do. Words as slurm_strerror(3) has them from 17.11 to 26.05.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from heliostat.ports.errors import (
    AuthenticationFailed,
    InsufficientCapacity,
    InvalidRequest,
    ProviderError,
    QuotaExceeded,
    Unavailable,
)

WORDS_MOST_CHARS = 400
LIMIT_RETRY_S = 60.0
"""A limit of jobs in the queue does not move faster than jobs end."""


@dataclass(frozen=True)
class Known:
    """What words mean: the error, what to do, and how soon it is worth another try."""

    pattern: str
    error: type[ProviderError]
    hint: str = ""
    retry_after_s: float | None = None


REFUSALS: tuple[Known, ...] = (
    # Slurm is not here, or can't be spoken to.
    Known(
        "Could not establish a configuration source|DNS SRV lookup failed|cannot stat file",
        Unavailable,
        "no Slurm is set up on this machine; run on a login node, set SLURM_CONF or give `ssh`",
    ),
    Known(
        "[Mm]unge|Invalid authentication credential|Failed to connect to authentication agent",
        Unavailable,
        "munge, by which Slurm knows its users, does not work on this machine",
    ),
    Known("Protocol authentication error|Authentication credential (invalid|expired)", Unavailable),
    Known("Unable to contact slurm controller", Unavailable, "slurmctld is down or can't be reached"),
    Known("Socket timed out|[Tt]imed out", Unavailable, "slurmctld is busy; it may have acted all the same"),
    Known(
        "Unable to resolve|getaddrinfo|Unable to establish control machine address",
        Unavailable,
        "the name of slurmctld's machine is not known here",
    ),
    Known(
        "Zero Bytes were transmitted|Message (send|receive) failure|Communication connection failure"
        "|Connection (rejected|forced closed)|(Read|Write) would block|Unable to query kernel for socket peer"
        "|Unexpected message received|Slurm backup controller in standby|Controller is in standby",
        Unavailable,
        "slurmctld did not answer; it may have acted all the same",
    ),
    Known("Incompatible versions of client and server", Unavailable, "Slurm is being upgraded"),
    Known("Invalid user: ", Unavailable, "this machine does not know the user just now"),
    # Limits that pass.
    Known(
        r"\b(Assoc|QOS)\w*Submit\w*|MaxSubmitJobsPerAccount",
        QuotaExceeded,
        "too many jobs are in the queue already",
        LIMIT_RETRY_S,
    ),
    Known(
        "temporarily unable to accept job|job queue full|Unable to create job record|Job.?s? limit"
        "|MaxJobCount limit",
        QuotaExceeded,
        "the site's queue is full (MaxJobCount)",
        LIMIT_RETRY_S,
    ),
    Known(
        r"\b(Assoc|QOS)(Grp|Max|Min)\w+|\bMax\w+PerAccount\b|\bMaxMemPerLimit\b",
        # Slurm refuses at once (DenyOnLimit) only what by itself is past the limit; the rest waits.
        InvalidRequest,
        "a limit that one job alone passes; change the node type, the account or the qos",
    ),
    Known("breached requested QOS usage threshold", QuotaExceeded, "", LIMIT_RETRY_S),
    Known(
        "violates accounting/QOS policy",
        QuotaExceeded,
        "`sacctmgr show assoc user=$USER` and `sacctmgr show qos` list the limits",
        LIMIT_RETRY_S,
    ),
    Known(
        "Burst Buffer resource limit|Licenses? .*(not available|unavailable)",
        QuotaExceeded,
        "",
        LIMIT_RETRY_S,
    ),
    Known("[Rr]ate limit|RPC limit|exceeded.*limit.*(RPC|request)", QuotaExceeded, "slurmctld slows us down"),
    # No room now.
    Known(
        "Requested nodes are busy|Job can not start immediately|Immediate execution impossible"
        "|Requested partition configuration not available|Required node not available"
        "|Requested reservation not usable now|Requested reservation is in use"
        "|due to maintenance reservation|Required ports are in use|Max powered up nodes reached",
        InsufficientCapacity,
    ),
    Known(
        "Required partition not available|Partition in DOWN state",
        InsufficientCapacity,
        "the site has stopped this partition",
    ),
    Known(
        "try again|not available right now|System submissions disabled|Slurm internal error"
        "|talking to (the )?database|connect to database|slurmdbd",
        Unavailable,
    ),
    # We are not known, or not allowed.
    Known("only permitted by root", InvalidRequest),
    Known("Access/permission denied|Access denied|[Pp]ermission denied", AuthenticationFailed),
    Known(
        "(?i)Invalid user id|User not found|Rejecting authentication of user",
        AuthenticationFailed,
        "slurmctld does not know this user, or the job is another's",
    ),
    Known(
        "Invalid account|Invalid or unknown association",
        InvalidRequest,
        "check `account`; `sacctmgr show assoc user=$USER` lists those allowed",
    ),
    Known(
        "(?i)invalid qos", InvalidRequest, "check `qos`; `sacctmgr show assoc user=$USER` lists those allowed"
    ),
    Known("User's group not permitted to use this partition", InvalidRequest, "choose another `partition`"),
    # What is wrong with the request.
    Known(
        "invalid partition|Invalid partition|No partition specified",
        InvalidRequest,
        "`sinfo` lists partitions",
    ),
    Known(
        "Memory specification can not be satisfied|Memory required by task",
        InvalidRequest,
        "no node has so much memory for jobs; `sinfo -o '%P %c %m'` shows what nodes have",
    ),
    Known(
        "Requested node configuration is not available",
        InvalidRequest,
        "no node of the partition has what one instance asks for; "
        "`sinfo -o '%P %c %m %G %f'` shows what they have",
    ),
    Known(
        r"generic resource|GRES|gres\b",
        InvalidRequest,
        "`sinfo -o '%P %G'` shows the site's GPUs; see `gpu_request` and `gpu_type`",
    ),
    Known(
        "Invalid feature|--constraints",
        InvalidRequest,
        "check `constraint`; `sinfo -o '%P %f'` lists features",
    ),
    Known("[Ii]nvalid license", InvalidRequest, "`scontrol show license` lists licenses"),
    Known("reservation", InvalidRequest, "check `reservation`; `scontrol show reservation` lists them"),
    Known(
        "time limit|--time |time-min|Time limit",
        InvalidRequest,
        "check `time_limit` and `time_min` against the partition's MaxTime (`sinfo -o '%P %l'`)",
    ),
    Known("job array", InvalidRequest, "larger than the site's MaxArraySize (`scontrol show config`)"),
    Known("parameter too long", InvalidRequest, "a name, a path or the comment is too long for Slurm"),
    Known("--comment|--job-name", InvalidRequest),
    Known(
        "Node count|[Pp]rocessors|CPU count|Task count",
        InvalidRequest,
        "the partition's limits forbid this size",
    ),
    Known(
        "unrecognized option|invalid option|Invalid --|Invalid numeric",
        InvalidRequest,
        "check `sbatch` options",
    ),
    Known("Batch job submission failed|allocation failure", InvalidRequest),
    Known("Batch script|batch script", InvalidRequest),
)
"""From what can't be reached over what passes to what is wrong; the first that matches counts."""

GONE = re.compile(
    "Invalid job id specified|already completing or completed|Job has already finished"
    "|Job is not running|Job is not pending nor running|No running or pending steps in the job"
)
"""A job that is not there needs no ending."""
NO_NEWS = re.compile(r"No error\b|If munged is up|s_p_parse_file: .*retrying")
LISTING_FAILED = re.compile(r"\b(error|fatal): |slurm_load_jobs error|Invalid user")
PREFIX = re.compile(
    r"^(\w+: )?((error|fatal): )?((Batch job submission failed|allocation failure|slurm_load_\w+ error): )?"
)


def trouble(argv: Sequence[str], code: int, stderr: str) -> ProviderError | None:
    """Return what went wrong, None if the command did what it was for.

    That is not its exit code alone: `scancel` of what has gone is done, `squeue` for a
    user whose name could not be looked up exits with 0 and an empty list.
    """
    name = _name(argv)
    if name == "squeue":
        failed = code != 0 or LISTING_FAILED.search(stderr)
        return refusal(argv, code, stderr) if failed else None
    if code == 0:
        return None
    if name == "scancel" or (name == "scontrol" and "update" in argv):
        left = [line for line in _lines(stderr) if not GONE.search(line) and "No error" not in line]
        # scancel of several tasks in one word fails in silence if one of them has just ended.
        return refusal(argv, code, "\n".join(left)) if left else None
    return refusal(argv, code, stderr)


def refusal(argv: Sequence[str], code: int, stderr: str) -> ProviderError:
    """Return the error for a command that failed."""
    words = spoken(stderr)
    message = f"{_name(argv)}: {words or f'exit code {code}, and no word why'}"
    for known in REFUSALS:
        if re.search(known.pattern, stderr):
            text = f"{message} ({known.hint})" if known.hint else message
            return known.error(text, retry_after_s=known.retry_after_s)
    return Unavailable(message)


def cancel_failures(stderr: str) -> dict[str, ProviderError]:
    """Return what `scancel` could not end, by the id that was given, less what had gone by itself."""
    found: dict[str, ProviderError] = {}
    for line in _lines(stderr):
        failed = re.search(r"Kill job error on job id (\S+): (.*)", line)
        if failed and not GONE.search(line):
            found[failed[1]] = refusal(("scancel",), 1, f"scancel: error: {failed[2]}")
    return found


def spoken(stderr: str) -> str:
    """Return what a command said, in one line, without its name and repeated phrases."""
    lines = [PREFIX.sub("", line).strip() for line in _lines(stderr) if not NO_NEWS.search(line)]
    text = "; ".join(dict.fromkeys(line for line in lines if line))
    return text if len(text) <= WORDS_MOST_CHARS else text[: WORDS_MOST_CHARS - 1] + "…"


def _lines(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.strip()]


def _name(argv: Sequence[str]) -> str:
    return argv[0].rpartition("/")[2]
