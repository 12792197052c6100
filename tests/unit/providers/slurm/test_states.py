"""What states and reasons mean: a queue is no failure, and what never starts is no queue."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from heliostat.model.instance import BackendState as B
from heliostat.providers.slurm.jobs import Job
from heliostat.providers.slurm.states import REASONS, STATES, backend_state, reason_of
from heliostat.providers.slurm.tags import Tag

JOB = Job(
    array_id=1,
    job_id=1,
    tasks=(0,),
    throttle=None,
    state="PENDING",
    reason="Priority",
    partition="main",
    start_s=None,
    end_s=None,
    time_limit_s=None,
    submitted_s=None,
    nodes="",
    name="hel",
    tag=Tag("demo", "uid", "ada", "l1", "cpu", "s1", 1),
)


def state_of(state: str, reason: str = "None", partition: str = "main") -> B:
    return backend_state(replace(JOB, state=state, reason=reason, partition=partition))[0]


@pytest.mark.parametrize(
    ("state", "reason", "expected"),
    [
        ("CONFIGURING", "None", B.STARTING),
        ("RUNNING", "Prolog", B.STARTING),
        ("RUNNING", "None", B.RUNNING),
        ("SUSPENDED", "None", B.RUNNING),
        ("COMPLETING", "None", B.STOPPING),
        ("COMPLETED", "None", B.ENDED),
        ("CANCELLED", "Priority", B.ENDED),
        ("TIMEOUT", "TimeLimit", B.ENDED),
        ("PREEMPTED", "None", B.ENDED),
        ("FAILED", "NonZeroExitCode", B.FAILED),
        ("NODE_FAIL", "NodeDown", B.FAILED),
        ("OUT_OF_MEMORY", "OutOfMemory", B.FAILED),
        ("BOOT_FAIL", "None", B.FAILED),
        ("REQUEUED", "None", B.QUEUED),
        ("REQUEUE_HOLD", "None", B.FAILED),
        ("REVOKED", "None", B.UNKNOWN),
        ("SOMETHING_NEW", "None", B.UNKNOWN),
    ],
)
def test_states(state: str, reason: str, expected: B) -> None:
    assert state_of(state, reason) is expected


def test_every_state_that_squeue_documents_is_known() -> None:
    documented = """BOOT_FAIL CANCELLED COMPLETED CONFIGURING COMPLETING DEADLINE FAILED NODE_FAIL
        OUT_OF_MEMORY PREEMPTED RESV_DEL_HOLD REQUEUE_FED REQUEUE_HOLD REQUEUED RESIZING REVOKED RUNNING
        SIGNALING SPECIAL_EXIT STAGE_OUT STOPPED SUSPENDED TIMEOUT
        EXPEDITING LAUNCH_FAILED POWER_UP_NODE RECONFIG_FAIL UPDATE_DB"""
    assert set(documented.split()) == set(STATES)


@pytest.mark.parametrize(
    "reason",
    [
        "None",
        "Priority",
        "Resources",
        "JobArrayTaskLimit",
        "BeginTime",
        "Dependency",
        "Licenses",
        "Reservation",
        "Cleaning",
        "PartitionDown",
        "ReqNodeNotAvail",
        "ReqNodeNotAvail, UnavailableNodes:n[1-4]",
        "ReqNodeNotAvail(Unavailable:n1)",
        "Nodes required for job are DOWN, DRAINED or reserved for jobs in higher priority partitions",
        "AssocGrpCpuLimit",
        "AssocGrpCPUMinutesLimit",
        "AssocMaxJobsLimit",
        "QOSMaxJobsPerUserLimit",
        "QOSMaxCpuPerUserLimit",
        "QOSMaxGRESPerUser",
        "QOSGrpNodeLimit",
        "MaxCpuPerAccount",
        "QOSResourceLimit",
        "AssociationJobLimit",
        "BurstBufferStageIn",
        "SomethingNew",
    ],
)
def test_a_queue_is_no_failure(reason: str) -> None:
    state, words = backend_state(replace(JOB, reason=reason))
    assert state is B.QUEUED
    assert words is not None
    assert words.startswith("the scheduler has not" if reason == "None" else reason)


@pytest.mark.parametrize(
    "reason",
    [
        "PartitionConfig",
        "PartitionNodeLimit",
        "PartitionTimeLimit",
        "InvalidAccount",
        "InvalidQOS",
        "BadConstraints",
        "AccountNotAllowed",
        "QOSNotAllowed",
        "JobHeldUser",
        "JobHeldAdmin",
        "JobHoldMaxRequeue",
        "launch failed requeued held",
        "job requeued in held state",
        "DependencyNeverSatisfied",
        "ReservationDeleted",
        "DeadLine",
        "MaxMemPerLimit",
        "AssocMaxCpuPerJobLimit",
        "AssocMaxWallDurationPerJobLimit",
        "AssocMaxCpuMinutesPerJobLimit",
        "AssocMaxGRESPerJob",
        "QOSMaxCpuPerJobLimit",
        "QOSMaxNodePerJobLimit",
        "QOSMaxMemoryPerNode",
        "QOSMinCpuNotSatisfied",
        "QOSMinGRES",
    ],
)
def test_what_never_starts_by_itself_is_a_failure_with_its_reason(reason: str) -> None:
    state, words = backend_state(replace(JOB, reason=reason))
    assert state is B.FAILED
    assert words is not None
    assert words.startswith(f"{reason}: ")


def test_one_partition_of_several_does_not_decide() -> None:
    assert state_of("PENDING", "PartitionTimeLimit", "short,main") is B.QUEUED
    assert state_of("PENDING", "AccountNotAllowed", "short,main") is B.QUEUED
    assert state_of("PENDING", "InvalidAccount", "short,main") is B.FAILED


def test_words_keep_slurms_own_first() -> None:
    assert backend_state(JOB)[1] == "Priority: jobs with a higher priority go first"
    # The reason of a cancelled job is the one for which it once waited.
    cancelled = replace(JOB, state="CANCELLED", reason="Resources")
    assert backend_state(cancelled)[1] == "CANCELLED: by scancel"
    failed = replace(JOB, state="FAILED")
    assert (
        backend_state(replace(failed, reason="NonZeroExitCode"))[1]
        == "NonZeroExitCode: exit code other than 0"
    )
    assert backend_state(replace(failed, reason="Unheard"))[1] == "failed: Unheard"
    killed = replace(failed, reason="RaisedSignal:9(Killed)")
    assert backend_state(killed)[1] == "RaisedSignal:9(Killed): its script was killed by a signal"
    assert backend_state(replace(JOB, state="RUNNING", reason="None"))[1] is None


def test_the_table_has_no_reason_that_an_earlier_one_hides() -> None:
    plain = [one for one in REASONS if re.fullmatch(r"\w+(\|\w+)*", one.pattern)]
    for reason in plain:
        for name in reason.pattern.split("|"):
            assert reason_of(name) is reason
