"""A round → Ray's `AutoscalingState`, which `ray status` and the dashboard show. Pure.

Deferred demand is not infeasible: it stays in Ray's own list of pending demands, and drivers are
told what holds it back (`driver_lines.py`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import Any

from ray.core.generated import autoscaler_pb2

from heliostat.model.demand import Demand, Gang
from heliostat.model.history import Failure
from heliostat.model.instance import ON_THE_WAY, Instance, InstanceState
from heliostat.ports.cluster import RoundReport
from heliostat.raylink.convert_out import constraint_message, gang_message, request_message

pb: Any = autoscaler_pb2

FAILURES_SHOWN_S = 3600.0
FAILURES_SHOWN = 20


def autoscaling_state(
    report: RoundReport, *, version: int, seen_version: int, now_s: float, ahead_s: float = 0.0
) -> Any:
    """Return the message; `version` must be larger than any before it, or Ray drops it in silence.

    `now_s` is of the report's clock, and the times in the message of one that is `ahead_s` ahead of it.
    """
    gangs = [one for one in wanted(report) if isinstance(one, Gang)]
    demands = [one for one in wanted(report) if isinstance(one, Demand)]
    constrained = [
        one.wanted for one in report.plan.infeasible if one.from_constraint and isinstance(one.wanted, Demand)
    ]
    return pb.AutoscalingState(
        last_seen_cluster_resource_state_version=seen_version,
        autoscaler_state_version=version,
        pending_instance_requests=pending_requests(report.instances, ahead_s),
        pending_instances=pending_instances(report.instances, now_s=now_s),
        failed_instance_requests=failed_requests(report.failures, now_s=now_s, ahead_s=ahead_s),
        infeasible_resource_requests=[request_message(one.bundle) for one in demands],
        infeasible_gang_resource_requests=[gang_message(one) for one in gangs],
        infeasible_cluster_resource_constraints=[constraint_message(constrained)] if constrained else [],
    )


def wanted(report: RoundReport) -> tuple[Demand | Gang, ...]:
    """Return what no node type can hold, each once, without what `request_resources()` asked."""
    constrained = {one.wanted for one in report.plan.infeasible if one.from_constraint}
    said = (one.wanted for one in report.plan.infeasible if not one.from_constraint)
    more = (one for one in report.infeasible if one not in constrained)
    return tuple(dict.fromkeys((*said, *more)))


def pending_requests(instances: Iterable[Instance], ahead_s: float = 0.0) -> list[Any]:
    """Return what was asked for and not listed yet, one entry per launch («2 launching»)."""
    asked = sorted(
        (one for one in instances if one.state is InstanceState.REQUESTED), key=lambda one: one.instance_id
    )
    launches = [list(members) for _, members in groupby(asked, key=lambda one: one.intent.launch_id)]
    return [
        pb.PendingInstanceRequest(
            instance_type_name=members[0].node_type,
            ray_node_type_name=members[0].node_type,
            count=len(members),
            request_ts=int(members[0].intent.requested_at_s + ahead_s),
        )
        for members in launches
    ]


def pending_instances(instances: Iterable[Instance], *, now_s: float) -> list[Any]:
    """Return what the backend has accepted, with the reason why it is not there yet."""
    waiting = [
        one for one in instances if one.state in ON_THE_WAY and one.state is not InstanceState.REQUESTED
    ]
    return [
        pb.PendingInstance(
            instance_type_name=one.node_type,
            ray_node_type_name=one.node_type,
            instance_id=one.display_name,
            ip_address=(one.row.host if one.row else None) or "",
            details=details(one, now_s=now_s),
        )
        for one in sorted(waiting, key=lambda one: one.instance_id)
    ]


def details(instance: Instance, *, now_s: float) -> str:
    """Return the state, the backend's words on it (a queue's reason, its end), and what it is for."""
    row = instance.row
    words = row.detail if row else None
    if row is not None and row.expected_start_s is not None and instance.state is InstanceState.QUEUED:
        expected = f"expected in {max(0.0, row.expected_start_s - now_s) / 60:.0f} min"
        words = f"{words}, {expected}" if words else expected
    state = f"{instance.state.value} ({words})" if words else instance.state.value
    # What follows says why it is of this type and no other.
    return f"{state}: {instance.intent.reason.partition(';')[0]}"


def failed_requests(failures: Sequence[Failure], *, now_s: float, ahead_s: float = 0.0) -> list[Any]:
    """Return the last failures that are not too old to matter, newest first."""
    recent = [one for one in failures if now_s - one.at_s <= FAILURES_SHOWN_S][-FAILURES_SHOWN:]
    return [
        pb.FailedInstanceRequest(
            instance_type_name=one.node_type,
            ray_node_type_name=one.node_type,
            count=1,
            reason=one.error,
            start_ts=int(one.at_s + ahead_s),
            failed_ts=int(one.at_s + ahead_s),
        )
        for one in reversed(recent)
    ]
