"""A plan → what Ray's monitor expects of its scheduler. Pure: time and ids come in."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ray.autoscaler.v2 import scheduler as ray_scheduler
from ray.core.generated import instance_manager_pb2

from heliostat.model.demand import Bundle, Demand, Gang
from heliostat.model.history import History
from heliostat.model.plan import Drain, Launch, Plan, Release, Why
from heliostat.raylink import convert
from heliostat.raylink.scheduling_request import Asked, Member

pb: Any = instance_manager_pb2
Cause: Any = pb.TerminationRequest.Cause

CANCELLABLE = frozenset({pb.Instance.QUEUED, pb.Instance.ALLOCATED, pb.Instance.RAY_INSTALLING})
"""What has not joined and can be given up. Ray knows no way back from REQUESTED."""


@dataclass(frozen=True)
class Answer:
    """One round: what was asked, and what was planned."""

    asked: Asked
    plan: Plan
    history: History
    new_id: Callable[[], str]

    @property
    def now_s(self) -> float:
        return self.asked.snapshot.now_s

    def reply(self) -> Any:
        """Return the `SchedulingReply`. Nothing is resized in place: `to_ippr` is empty."""
        terminated = self._terminated()
        launched = self._launched()
        return ray_scheduler.SchedulingReply(
            to_launch=[self._launch(name, count) for name, count in launched.items()],
            to_terminate=list(terminated.values()),
            cluster_resources=self._resources(terminated, launched),
            infeasible_resource_requests=self._infeasible_requests(),
            infeasible_gang_resource_requests=self._infeasible_gangs(),
            infeasible_cluster_resource_constraints=self._infeasible_constraints(),
        )

    def _launched(self) -> Counter[str]:
        counts: Counter[str] = Counter()
        for action in self.plan.actions:
            if isinstance(action, Launch):
                counts[action.node_type] += action.count
        return counts

    def _launch(self, name: str, count: int) -> Any:
        # The field says milliseconds; Ray fills it with microseconds.
        asked_at = int(self.now_s * 1_000_000)
        return pb.LaunchRequest(instance_type=name, count=count, id=self.new_id(), request_ts_ms=asked_at)

    def _terminated(self) -> dict[str, Any]:
        """Return by instance what goes: what the plan lets go, and what nothing has needed for too long."""
        limits = _Limits(self.asked)
        found: dict[str, Any] = {}
        for action in self.plan.actions:
            if isinstance(action, Drain | Release):
                member = self.asked.members[action.instance_id]
                cause = limits.cause(action.reason.why, member)
                if cause is not None and (isinstance(action, Drain) or _is_cancellable(member)):
                    found[action.instance_id] = self._termination(member, cause, action.reason.text)
        return self._unneeded() | found

    def _termination(self, member: Member, cause: int, text: str) -> Any:
        made = self._basic(member, cause, text)
        name = member.instance.instance_type
        if cause == Cause.IDLE:
            made.idle_duration_ms = member.node.idle_duration_ms if member.node else 0
        elif cause == Cause.MAX_NUM_NODE_PER_TYPE:
            made.max_num_nodes_per_type = self.asked.configs[name].max_worker_nodes
        elif cause == Cause.MAX_NUM_NODES:
            made.max_num_nodes = self.asked.request.max_num_nodes
        return made

    def _basic(self, member: Member, cause: int, text: str) -> Any:
        instance = member.instance
        return pb.TerminationRequest(
            id=self.new_id(),
            instance_id=instance.instance_id,
            ray_node_id=instance.node_id,
            instance_type=instance.instance_type,
            instance_status=instance.status,
            cause=cause,
            details=text,
        )

    def _unneeded(self) -> dict[str, Any]:
        # A field of Ray 2.60 and later.
        most_s = getattr(self.asked.request, "pending_idle_timeout_s", None)
        found: dict[str, Any] = {}
        for key, since_s in self.history.unneeded_since.items():
            member, needless_s = self.asked.members[key], self.now_s - since_s
            if most_s is not None and needless_s > most_s and _is_cancellable(member):
                text = f"pending and not needed for {needless_s:g} s > timeout={most_s:g} s"
                found[key] = self._basic(member, Cause.IDLE, text)
                found[key].idle_duration_ms = int(needless_s * 1000)
        return found

    def _infeasible_requests(self) -> list[Any]:
        """Return what finds no place this time, one message for each bundle: Ray's «infeasible»."""
        return [self.asked.requests[bundle] for bundle in _unmet(self.plan, Why.DEMAND).elements()]

    def _infeasible_gangs(self) -> list[Any]:
        every = [one.wanted for one in self.plan.deferred] + [one.wanted for one in self.plan.infeasible]
        ids = dict.fromkeys(one.gang_id for one in every if isinstance(one, Gang))
        return [self.asked.gangs[gang_id] for gang_id in ids]

    def _infeasible_constraints(self) -> list[Any]:
        lacking = _unmet(self.plan, Why.CONSTRAINT)
        asked = self.asked.request.cluster_resource_constraints
        return [one for one in asked if any(bundle in lacking for bundle in _bundles(one))]

    def _resources(self, terminated: Iterable[str], launched: Counter[str]) -> dict[str, float]:
        """Sum up the cluster as it will be: what stays, what comes, what is launched now."""
        gone = set(terminated)
        parts: list[tuple[Mapping[str, float], int]] = [(one.total_resources, 1) for one in self.asked.fixed]
        for key, member in self.asked.members.items():
            if key not in gone and not member.going:
                parts.append((self._amounts(member), 1))
        parts += [(self._type_amounts(name), count) for name, count in launched.items()]
        sums: dict[str, float] = {}
        for amounts, count in parts:
            for name, amount in amounts.items():
                sums[name] = sums.get(name, 0.0) + amount * count
        return sums

    def _amounts(self, member: Member) -> Mapping[str, float]:
        if member.node is not None:
            amounts: Mapping[str, float] = member.node.total_resources
            return amounts
        return self._type_amounts(member.instance.instance_type)

    def _type_amounts(self, name: str) -> Mapping[str, float]:
        config = self.asked.configs.get(name)
        return config.resources if config else {}


class _Limits:
    """Says for each thing that is too many which maximum it is over: its type's first, as in Ray."""

    def __init__(self, asked: Asked) -> None:
        self._most = {one.name: one.max_workers for one in asked.policy.node_types}
        self._counts = Counter(one.instance.instance_type for one in asked.members.values() if not one.going)

    def cause(self, why: Why, member: Member) -> int | None:
        """Return Ray's cause; None for what its instance manager or `pending_idle_timeout_s` sees to."""
        name = member.instance.instance_type
        if why is Why.OVER_MAX:
            over_type = self._counts[name] > self._most.get(name, 0)
            self._counts[name] -= 1
            return int(Cause.MAX_NUM_NODE_PER_TYPE if over_type else Cause.MAX_NUM_NODES)
        return {Why.IDLE: int(Cause.IDLE), Why.DRIFT: int(Cause.OUTDATED)}.get(why)


def _is_cancellable(member: Member) -> bool:
    return member.instance.status in CANCELLABLE


def _unmet(plan: Plan, why: Why) -> Counter[Bundle]:
    """Count what finds no place, of waiting work (DEMAND) or of `request_resources` (CONSTRAINT)."""
    deferred = [one.wanted for one in plan.deferred if one.why is why]
    from_constraint = why is Why.CONSTRAINT
    never = [one.wanted for one in plan.infeasible if one.from_constraint is from_constraint]
    counts: Counter[Bundle] = Counter()
    for one in (*deferred, *never):
        if isinstance(one, Demand):
            counts[one.bundle] += one.count
    return counts


def _bundles(constraint: Any) -> Iterable[Bundle]:
    return (convert.bundle(one.request) for one in constraint.resource_requests)
