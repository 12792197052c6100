"""Who used how much for how long: one round's share of node time, as rows to add up. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime

from heliostat.model.instance import BackendState, Instance, InstanceState, NodeStatus
from heliostat.model.node_type import Policy
from heliostat.model.resources import SCALE
from heliostat.ports.journal import UsageRow

_PAID = {InstanceState.STARTING, InstanceState.RUNNING, InstanceState.DRAINING}
"""From the machine's start to its end: time in a queue costs nothing."""

_THERE = {BackendState.STARTING, BackendState.RUNNING, BackendState.STOPPING}
"""What was released runs until it ends, if its backend's last word was one of these."""

SECONDS_AT_MOST = 60.0
"""A longer gap between two rounds is an outage: nothing is charged for it."""


def usage(
    instances: Iterable[Instance],
    *,
    policy: Policy,
    prices: Mapping[str, float],
    seconds: float,
    wall_s: float,
) -> list[UsageRow]:
    """Return what ran in the `seconds` between two rounds, by the state seen at their end.

    It counts for the UTC day of `wall_s`, by the host's wall clock.
    `prices` are the last known ones, in $/h by node type; a type that is not among them is free of charge.
    """
    if not 0 < seconds <= SECONDS_AT_MOST:
        return []
    day = datetime.fromtimestamp(wall_s, UTC).strftime("%Y-%m-%d")
    return [_row(one, policy, prices, day=day, seconds=seconds) for one in instances if _is_paid(one)]


def _is_paid(one: Instance) -> bool:
    """Say whether a machine runs. What was refused, or released in a queue, is stopping without one."""
    if one.state is not InstanceState.STOPPING:
        return one.state in _PAID
    lives = one.node is not None and one.node.status is not NodeStatus.DEAD
    return lives or (one.row is not None and one.row.state in _THERE)


def _row(
    instance: Instance, policy: Policy, prices: Mapping[str, float], *, day: str, seconds: float
) -> UsageRow:
    node_type = policy.node_type(instance.node_type)
    cpus = node_type.resources.get("CPU") / SCALE if node_type else 0.0
    gpus = node_type.resources.get("GPU") / SCALE if node_type else 0.0
    price = prices.get(instance.node_type, 0.0)
    idle = instance.node is not None and instance.node.status is NodeStatus.IDLE
    return UsageRow(
        day=day,
        node_type=instance.node_type,
        node_s=seconds,
        idle_s=seconds if idle else 0.0,
        core_s=seconds * cpus,
        gpu_s=seconds * gpus,
        cost_usd=seconds / 3600 * price,
    )
