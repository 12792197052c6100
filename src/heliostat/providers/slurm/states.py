"""What a row of squeue means: the backend's state and words for people. Pure, two tables.

A job in the queue waits for as long as the queue takes; that is no failure. Some reasons,
though, never pass by themselves: Slurm takes such a job (EnforcePartLimits=NO) and lets it
wait for ever. Those are failures at once, with the reason. The words are Slurm's own
(squeue(1), «Job state codes»; job_reason_codes.html), followed by ours.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from heliostat.model.instance import BackendState as B
from heliostat.providers.slurm.jobs import Job

STATES: Mapping[str, tuple[B, str | None]] = {
    # PENDING is for `_pending`: its reason decides.
    "CONFIGURING": (B.STARTING, "its nodes are being made ready (they may have to boot)"),
    "POWER_UP_NODE": (B.STARTING, "its nodes are being switched on"),
    "RUNNING": (B.RUNNING, None),
    "RESIZING": (B.RUNNING, "its size is being changed"),
    "SIGNALING": (B.RUNNING, None),
    "SUSPENDED": (B.RUNNING, "suspended by Slurm: its processes are stopped for now"),
    "STOPPED": (B.RUNNING, "stopped by a signal: its processes keep their CPUs and do nothing"),
    "EXPEDITING": (B.QUEUED, "requeued, and goes first"),
    "REQUEUED": (B.QUEUED, "requeued"),
    "REQUEUE_FED": (B.QUEUED, "requeued by the federation"),
    "COMPLETING": (B.STOPPING, None),
    "STAGE_OUT": (B.STOPPING, "its files are being copied out"),
    "UPDATE_DB": (B.STOPPING, "its end is being written to the accounting"),
    "COMPLETED": (B.ENDED, "ended by itself"),
    "CANCELLED": (B.ENDED, "by scancel"),
    "PREEMPTED": (B.ENDED, "preempted: Slurm gave its place to another job"),
    "TIMEOUT": (B.ENDED, "its time limit was reached"),
    "BOOT_FAIL": (B.FAILED, "its node could not be booted"),
    "DEADLINE": (B.FAILED, "its --deadline came before it could end"),
    "FAILED": (B.FAILED, None),
    "LAUNCH_FAILED": (B.FAILED, "its nodes could not launch it"),
    "NODE_FAIL": (B.FAILED, "one of its nodes failed"),
    "OUT_OF_MEMORY": (B.FAILED, "killed, since it used more memory than it had asked for"),
    "RECONFIG_FAIL": (B.FAILED, "its node could not be configured"),
    "REQUEUE_HOLD": (B.FAILED, "requeued and held: it starts only if someone releases it"),
    "RESV_DEL_HOLD": (B.FAILED, "held, since its reservation was deleted"),
    "SPECIAL_EXIT": (B.FAILED, "requeued and held after a special exit code"),
    # It lives on elsewhere, where this listing does not look: nothing may be concluded.
    "REVOKED": (B.UNKNOWN, "another cluster of the federation took it"),
}
"""State -> what it is to us, and words for it."""


@dataclass(frozen=True)
class Reason:
    """Why a job waits. `pattern` matches the whole first word of Slurm's reason, or all of it.

    `passes` False: it never starts by itself. `of_partition`: it holds for one partition
    only, so a job that named several may still start in another.
    """

    pattern: str
    words: str
    passes: bool = True
    of_partition: bool = False


REASONS: tuple[Reason, ...] = (
    Reason("None", "the scheduler has not looked at it yet"),
    Reason("SchedDefer", "the scheduler looks at new jobs only now and then"),
    Reason("Priority", "jobs with a higher priority go first"),
    Reason("Resources", "the next in line: it waits for nodes to become free"),
    Reason("JobArrayTaskLimit", "the array's own throttle: its other tasks have to come up first"),
    Reason("BeginTime", "its earliest time to start has not come"),
    Reason("Dependency", "it waits for another job"),
    Reason("Licenses", "it waits for a license"),
    Reason("Reservation", "it waits for its reservation to begin"),
    Reason("Prolog", "the site's prolog is running"),
    Reason("MpiPortsBusy|NvidiaImexChannels", "it waits for ports or channels of its network"),
    Reason("MaxPoweredUpNodes", "the site has switched on as many nodes as it may"),
    Reason("Constraints|ReservationInvalid", "nothing fits its constraint or reservation now"),
    Reason("Cleaning", "its earlier run is being cleaned up"),
    Reason("PartitionDown|PartitionInactive", "the site has stopped this partition"),
    Reason("ReqNodeNotAvail|NodeDown|FrontEndDown", "nodes that it needs are down, drained or reserved"),
    Reason("Nodes required for job are .*", "no node that could take it is up and free of reservations"),
    Reason("PowerNotAvail|PowerReserved", "it waits for electrical power"),
    Reason("BurstBuffer.*", "it waits for the burst buffer"),
    Reason(".*held state|.*requeued held", "it starts only if someone releases it (scontrol release)", False),
    Reason("JobHeldUser", "held by the user: it starts only after `scontrol release`", False),
    Reason("JobHeldAdmin", "held by an administrator of the site", False),
    Reason("JobHoldMaxRequeue", "held, since it was requeued too often", False),
    Reason("DependencyNeverSatisfied", "the job it waits for did not end as it should", False),
    Reason("DeadLine", "it can't end before its --deadline", False),
    Reason("ReservationDeleted", "its reservation was deleted", False),
    Reason("BadConstraints", "no node can ever have what it asks for", False),
    Reason("InvalidAccount", "the account is not valid, or not for this partition", False),
    Reason("InvalidQOS", "the qos is not valid", False),
    Reason("AccountNotAllowed", "the partition does not allow this account", False, True),
    Reason("QOSNotAllowed", "the account or the partition does not allow this qos", False, True),
    Reason("PartitionTimeLimit", "time_limit is above the partition's", False, True),
    Reason("PartitionNodeLimit", "it asks for more or fewer nodes than the partition allows", False, True),
    Reason(
        "PartitionConfig",
        "no node of the partition is as large as it asks, or a limit forbids it",
        False,
        True,
    ),
    Reason("MaxMemPerLimit", "it asks for more memory than the partition allows", False, True),
    Reason("(Assoc|QOS)Max.*Per(Job|Node)(Limit)?", "it asks for more than one job may have", False, True),
    Reason("QOSMin.*", "it asks for less than the qos wants of a job", False, True),
    Reason("(Assoc|QOS)Grp.*Minutes.*", "the account's or the qos's hours are used up"),
    Reason("(Assoc|QOS)Grp.*", "the account or the qos has reached its limit"),
    Reason("(Assoc|QOS)Max.*|Max.*Per(Account|User)", "the user or the account has reached a limit"),
    Reason("QOSUsageThreshold|Association.*Limit|QOS.*Limit|AccountingPolicy", "a limit has been reached"),
)
"""The first that matches counts. A reason that is not here is taken for a queue."""

FAILURES: Mapping[str, str] = {
    "NonZeroExitCode": "exit code other than 0",
    "JobLaunchFailure": "could not be launched (its log can't be written?), or its script was killed",
    "BadConstraints": "refused: no node can ever have what it asks for",
    "RaisedSignal": "its script was killed by a signal",
    "OutOfMemory": "killed, since it used more memory than it had asked for",
    "SystemFailure": "Slurm, a file system or the network failed",
    "InactiveLimit": "the site ends jobs that do nothing",
}
"""Reasons of state FAILED."""


def backend_state(job: Job) -> tuple[B, str | None]:
    """Return a row's state and words for people; the words may be None while all is well."""
    if job.state == "PENDING":
        return _pending(job)
    if job.state == "FAILED":
        # Since 23.11 a reason may be followed by more: `RaisedSignal:9(Killed)`.
        said = FAILURES.get(job.reason.partition(":")[0])
        return B.FAILED, f"{job.reason}: {said}" if said else f"failed: {job.reason}"
    if job.state == "RUNNING" and job.reason == "Prolog":
        return B.STARTING, "Prolog: the site's prolog is running"
    if job.state not in STATES:
        return B.UNKNOWN, f"Slurm says {job.state}, which Heliostat does not know"
    state, words = STATES[job.state]
    return state, f"{job.state}: {words}" if words else None


def reason_of(text: str) -> Reason | None:
    """Return what is known of a pending reason, `ReqNodeNotAvail, UnavailableNodes:n4` included."""
    head = re.split(r"[,(: ]", text, maxsplit=1)[0]
    for reason in REASONS:
        if re.fullmatch(reason.pattern, head) or re.fullmatch(reason.pattern, text):
            return reason
    return None


def _pending(job: Job) -> tuple[B, str]:
    reason = reason_of(job.reason)
    if reason is None:
        return B.QUEUED, job.reason
    several = "," in job.partition
    never = not reason.passes and not (reason.of_partition and several)
    # «None» is a word of Slurm's for no reason yet, and tells people nothing.
    words = reason.words if job.reason == "None" else f"{job.reason}: {reason.words}"
    return B.FAILED if never else B.QUEUED, words
