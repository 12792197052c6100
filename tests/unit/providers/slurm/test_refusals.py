"""Slurm's words into typed errors; the texts are those of 22.05.8 unless said otherwise."""

from __future__ import annotations

import pytest

from heliostat.ports.errors import (
    AuthenticationFailed,
    InsufficientCapacity,
    InvalidRequest,
    ProviderError,
    QuotaExceeded,
    Unavailable,
)
from heliostat.providers.slurm.refusals import WORDS_MOST_CHARS, cancel_failures, refusal, spoken, trouble

FAILED = "sbatch: error: Batch job submission failed: "
MUNGE_DOWN = """\
sbatch: error: If munged is up, restart with --num-threads=10
sbatch: error: Munge encode failed: Failed to access "/run/munge/munge.socket.2": No such file or directory \
(Did you start munged?)
sbatch: error: slurm_send_node_msg: auth_g_create: REQUEST_SUBMIT_BATCH_JOB has authentication error
sbatch: error: Batch job submission failed: Protocol authentication error
"""
NO_SLURM = """\
squeue: error: resolve_ctls_from_dns_srv: res_nsearch error: Unknown host
squeue: error: fetch_config: DNS SRV lookup failed
squeue: error: _establish_config_source: failed to fetch config
squeue: fatal: Could not establish a configuration source
"""
NO_HOST = """\
squeue: error: get_addr_info: getaddrinfo() fAiled: Name or service not known
squeue: error: slurm_set_addr: Unable to resolve "nosuch.invalid"
squeue: error: Unable to establish control machine address
slurm_load_jobs error: Inappropriate ioctl for device
"""
POLICY = "Job violates accounting/QOS policy (job submit limit, user's size and/or time limits)"

INVALID = [
    "sbatch: error: invalid partition specified: nope\n" + FAILED + "Invalid partition name specified",
    "sbatch: error: Memory specification can not be satisfied\n"
    + FAILED
    + "Requested node configuration is not available",
    FAILED + "Requested node configuration is not available",
    "sbatch: error: Invalid generic resource (gres) specification",
    FAILED + "Invalid feature specification",
    FAILED + "Invalid job array specification",
    FAILED + "Requested reservation is invalid",
    FAILED + "Invalid node name specified",
    FAILED + "Invalid license specification",
    FAILED + "Job dependency problem",
    FAILED + "Pathname of a file, directory or other parameter too long",
    FAILED + "Invalid time-min specification (exceeds job's time or other limits)",
    FAILED + "Invalid account or account/partition combination specified",
    FAILED + "Invalid qos specification",
    FAILED + "User's group not permitted to use this partition",
    FAILED + "Requested time limit is invalid (missing or exceeds some limit)",
    FAILED + "More processors requested than permitted",
    FAILED + "Node count specification invalid",
    FAILED + "Invalid --nice value",
    FAILED + "Unspecified error",
    f"sbatch: error: QOSMaxCpuPerJobLimit\n{FAILED}{POLICY}",
    f"sbatch: error: QOSMinCpuNotSatisfied\n{FAILED}{POLICY}",
    f"sbatch: error: QOSMaxWallDurationPerJobLimit\n{FAILED}{POLICY}",
    f"sbatch: error: QOSMaxCpuPerUserLimit\n{FAILED}{POLICY}",
    f"sbatch: error: QOSGrpCpuLimit\n{FAILED}{POLICY}",
    "sbatch: error: Invalid --time specification",
    "sbatch: error: Invalid --signal specification",
    "Invalid time specification (pos=0): yesterdayish\nsbatch: error: Invalid --begin specification",
    "sbatch: unrecognized option '--frobnicate'\nTry \"sbatch --help\" for more information",
    "sbatch: error: --uid only permitted by root user",
    "sbatch: error: Batch script is empty!",
    FAILED + "Invalid or unknown association",
    FAILED + "Invalid QOS specification, relative QOS can only be used in a single partition per cluster.",
]
QUOTA = [
    f"sbatch: error: AssocMaxSubmitJobLimit\n{FAILED}{POLICY}",
    f"sbatch: error: QOSMaxSubmitJobPerUserLimit\n{FAILED}{POLICY}",
    f"sbatch: error: AssocGrpSubmitJobsLimit\n{FAILED}{POLICY}",
    f"sbatch: error: MaxSubmitJobsPerAccount\n{FAILED}{POLICY}",
    FAILED + POLICY,
    "sbatch: error: Slurm temporarily unable to accept job, sleeping and retrying",
    FAILED + "MaxJobCount limit reached",
    FAILED + "Licenses currently unavailable",
]
NO_ROOM = [
    FAILED + "Required partition not available (inactive or drain)",
    FAILED + "Requested nodes are busy",
    FAILED + "Required node not available (down, drained or reserved)",
    FAILED + "Requested partition configuration not available now",
    FAILED + "Max powered up nodes reached",
]
UNREACHABLE = [
    FAILED + "Unable to contact slurm controller (connect failure)",
    "slurm_load_jobs error: Unable to contact slurm controller (connect failure)",
    FAILED + "Socket timed out on send/recv operation",
    FAILED + "Zero Bytes were transmitted or received",
    MUNGE_DOWN,
    "sbatch: error: Munge decode failed: Invalid credential\n" + FAILED + "Invalid authentication credential",
    NO_SLURM,
    NO_HOST,
    "squeue: error: s_p_parse_file: cannot stat file /etc/slurm/slurm.conf: No such file or directory,"
    " retrying in 1sec up to 60sec",
    "slurm_load_jobs error: Something that nobody has seen yet",
    FAILED + "Authentication credential expired",
    FAILED + "Connection forced closed by quiesce timeout",
]
NOT_ALLOWED = [
    FAILED + "Access/permission denied",
    FAILED + "Invalid user id",
    FAILED + "Rejecting authentication of user nobody or group nobody",
]


@pytest.mark.parametrize(
    ("error", "stderr"),
    [
        (error, stderr)
        for error, texts in (
            (InvalidRequest, INVALID),
            (QuotaExceeded, QUOTA),
            (InsufficientCapacity, NO_ROOM),
            (Unavailable, UNREACHABLE),
            (AuthenticationFailed, NOT_ALLOWED),
        )
        for stderr in texts
    ],
)
def test_what_words_mean(error: type[ProviderError], stderr: str) -> None:
    found = refusal(("sbatch", "--parsable"), 1, stderr)
    assert type(found) is error
    assert str(found).startswith("sbatch: ")
    assert "\n" not in str(found)


def test_slurms_own_words_stay_and_a_hint_follows() -> None:
    found = str(refusal(("/usr/bin/sbatch",), 1, INVALID[0] + "\n"))
    assert found == (
        "sbatch: invalid partition specified: nope; Invalid partition name specified"
        " (`sinfo` lists partitions)"
    )
    site = "sbatch: error: Please ask for a GPU on this partition!\n" + FAILED + "Unspecified error\n"
    assert str(refusal(("sbatch",), 1, site)) == (
        "sbatch: Please ask for a GPU on this partition!; Unspecified error"
    )
    assert "Did you start munged?" in str(refusal(("sbatch",), 1, MUNGE_DOWN))
    assert str(refusal(("sbatch",), 3, "")) == "sbatch: exit code 3, and no word why"


def test_a_limit_of_the_queue_is_tried_again_later() -> None:
    assert refusal(("sbatch",), 1, QUOTA[0]).retry_after_s == 60.0
    assert refusal(("sbatch",), 1, UNREACHABLE[0]).retry_after_s is None


def test_long_words_are_cut_and_repeated_ones_said_once() -> None:
    lines = "".join(f"squeue: error: getaddrinfo() failed, attempt {number}\n" for number in range(99))
    assert len(spoken(lines)) == WORDS_MOST_CHARS
    assert spoken("sbatch: error: again\nsbatch: error: again\n\n") == "again"


# What a command was for.


def test_a_command_that_ended_well_is_no_trouble() -> None:
    assert trouble(("sbatch",), 0, "sbatch: Welcome to Big!\n") is None
    assert trouble(("squeue",), 0, "") is None


@pytest.mark.parametrize(
    ("code", "stderr"),
    [
        (0, "squeue: error: Invalid user: ada\n"),
        (0, "slurm_load_jobs error: Unable to contact slurm controller (connect failure)\n"),
        (1, ""),
    ],
)
def test_an_empty_listing_with_an_error_is_not_empty(code: int, stderr: str) -> None:
    assert isinstance(trouble(("squeue", "--me"), code, stderr), Unavailable)


KILL = "scancel: error: Kill job error on job id "


@pytest.mark.parametrize(
    ("code", "stderr"),
    [
        (1, KILL + "59_0: Invalid job id specified\n"),
        (229, KILL + "59_0: Job/step already completing or completed\n"),
        (1, KILL + "50.1: No running or pending steps in the job\n"),
        # Seen for several tasks in one word of which one had ended.
        (229, ""),
    ],
)
def test_ending_what_has_gone_is_done(code: int, stderr: str) -> None:
    assert trouble(("scancel", "59_0"), code, stderr) is None
    assert cancel_failures(stderr) == {}


def test_what_could_not_be_ended_is_told_by_its_id() -> None:
    stderr = (
        f"{KILL}1_0: Invalid job id specified\n"
        f"{KILL}3: Access/permission denied\n"
        f"{KILL}59_1: Unable to contact slurm controller (connect failure)\n"
        f"{KILL}60_2: Job can not be altered now, try again later\n"
    )
    failed = cancel_failures(stderr)
    assert {key: type(error) for key, error in failed.items()} == {
        "3": AuthenticationFailed,
        "59_1": Unavailable,
        "60_2": Unavailable,
    }
    found = trouble(("scancel", "1_0", "3", "59_1", "60_2"), 1, stderr)
    assert found is not None
    assert "job id 1_0" not in str(found)
    assert isinstance(trouble(("scancel", "abc"), 1, "scancel: error: Invalid job id abc\n"), ProviderError)


def test_a_throttle_that_some_tasks_no_longer_need_is_set() -> None:
    command = ("scontrol", "update", "JobId=1", "ArrayTaskThrottle=3")
    assert trouble(command, 1, "1_0: Job has already finished\n1_1-7: No error\n") is None
    assert trouble(command, 1, "Invalid job id specified for job 1\n") is None
    assert isinstance(trouble(command, 1, "Access/permission denied for job 1\n"), AuthenticationFailed)
    shown = ("scontrol", "show", "job", "1")
    assert isinstance(trouble(shown, 1, "slurm_load_jobs error: Invalid job id specified\n"), ProviderError)
