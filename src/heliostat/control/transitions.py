"""Events for what changed between two rounds. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from heliostat.model.history import Breaker, Failure, History
from heliostat.model.instance import Instance, InstanceState
from heliostat.model.node_type import Policy
from heliostat.model.resources import SCALE
from heliostat.planner.breaker import breaker_text
from heliostat.ports.journal import Event


def round_events(
    before: History, after: History, instances: Sequence[Instance], *, policy: Policy, now_s: float
) -> list[Event]:
    """Return what a round has seen: breakers and states that changed, nodes that have less than promised,
    failures."""
    failures = new_failures(before, after)
    return [
        *breaker_events(before, after, now_s),
        *state_events(before, instances, now_s),
        *shortfalls(before, after, instances, policy=policy, now_s=now_s),
        *(Event(now_s, "failure", one.error, one.instance_id, one.node_type) for one in failures),
    ]


def shortfalls(
    before: History, after: History, instances: Sequence[Instance], *, policy: Policy, now_s: float
) -> list[Event]:
    """Return an event for each node that has just joined with less than its type promises."""
    found = []
    for one in instances:
        node_type, new = policy.node_type(one.node_type), one.instance_id not in before.joined_at
        if node_type is None or one.node is None or not new or one.instance_id not in after.joined_at:
            continue
        if one.intent.shape_id != node_type.shape_id:
            continue
        total = one.node.total
        lacking = {name: amount for name, amount in node_type.resources if total.get(name) < amount}
        if lacking:
            there = {name: (total.get(name) / SCALE, amount / SCALE) for name, amount in lacking.items()}
            words = ", ".join(f"{has:g} of {promised:g} {name}" for name, (has, promised) in there.items())
            text = f"{one.display_name} has less than {node_type.name} promises: {words}"
            data = {name: {"there": has, "promised": promised} for name, (has, promised) in there.items()}
            found.append(Event(now_s, "less", text, one.instance_id, one.node_type, data))
    return found


def breaker_events(before: History, after: History, now_s: float) -> list[Event]:
    """Return an event for each breaker that has opened, stays open after a try, or has closed."""
    names = sorted(before.breakers.keys() | after.breakers.keys())
    pairs = [(one, before.breakers.get(one), after.breakers.get(one)) for one in names]
    return [
        Event(now_s, "breaker", _breaker_sentence(name, old, new, now_s=now_s), data={"backend": name})
        for name, old, new in pairs
        if (old.opened_at_s if old else None) != (new.opened_at_s if new else None)
    ]


def _breaker_sentence(backend: str, old: Breaker | None, new: Breaker | None, *, now_s: float) -> str:
    if new is None:
        return f"the breaker of {backend} closes: a launch was accepted"
    if new.opened_at_s is None:
        return f"the breaker of {backend} closes: it was not asked again, or refuses one type only"
    verb = "opens again" if old is not None and old.opened_at_s is not None else "opens"
    return f"the breaker of {backend} {verb}: {breaker_text(backend, new, now_s)}"


def state_events(before: History, instances: Sequence[Instance], now_s: float) -> list[Event]:
    """Return one event for each instance whose state differs from the last round's."""
    return [
        Event(
            at_s=now_s,
            kind="state",
            text=_sentence(before.states.get(one.instance_id), one),
            instance_id=one.instance_id,
            node_type=one.node_type,
            data={"state": one.state.value},
        )
        for one in instances
        if before.states.get(one.instance_id) is not one.state
    ]


def new_failures(before: History, after: History) -> Sequence[Failure]:
    """Return the failures that `after` has and `before` had not."""
    known = {(one.instance_id, one.at_s) for one in before.failures}
    return [one for one in after.failures if (one.instance_id, one.at_s) not in known]


def start_times(before: History, after: History, requested_at_s: Mapping[str, float]) -> list[float]:
    """Return, for each instance that joined in this round, the seconds from asked to joined."""
    return [
        at_s - requested_at_s[instance_id]
        for instance_id, at_s in after.joined_at.items()
        if instance_id not in before.joined_at and instance_id in requested_at_s
    ]


def _sentence(old: InstanceState | None, instance: Instance) -> str:
    text = f"{instance.display_name} is {instance.state.value}"
    if old is not None:
        text += f", was {old.value}"
    # A worker that runs says for itself what it does; the backend's words are of its start.
    if instance.state is not InstanceState.RUNNING and instance.row is not None and instance.row.detail:
        text += f": {instance.row.detail}"
    return text
