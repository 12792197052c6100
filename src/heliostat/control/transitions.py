"""Events for what changed between two rounds. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from heliostat.model.history import Breaker, Failure, History
from heliostat.model.host_time import jump_text
from heliostat.model.instance import Instance, InstanceState, Intent, NodeStatus
from heliostat.model.node_type import Policy
from heliostat.model.resources import SCALE
from heliostat.model.snapshot import Snapshot
from heliostat.planner.breaker import breaker_text
from heliostat.ports.journal import Event

TOLD_ELSEWHERE = frozenset({InstanceState.REQUESTED, InstanceState.RUNNING})


def changed_since(before: History, instances: Iterable[Instance]) -> list[Instance]:
    """Return the instances whose state differs from the last round's; who joins or ends is among them."""
    states = before.states
    return [one for one in instances if states.get(one.intent.instance_id) is not one.state]


def round_events(
    before: History,
    after: History,
    changed: Sequence[Instance],
    *,
    policy: Policy,
    snapshot: Snapshot,
) -> list[Event]:
    """Return what a round has seen: a clock that jumped, breakers and states that changed, nodes that have
    less than promised, failures."""
    now_s, failures = snapshot.now_s, new_failures(before, after)
    jump = jump_text(before.host, after.host)
    return [
        *([] if jump is None else [Event(now_s, "clock", jump)]),
        *breaker_events(before, after, now_s),
        *(_state_event(before.states.get(one.instance_id), one, snapshot) for one in changed),
        *shortfalls(before, after, changed, policy=policy, now_s=now_s),
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


def _state_event(old: InstanceState | None, one: Instance, snapshot: Snapshot) -> Event:
    why = reason(one, snapshot)
    text = f"{one.display_name} is {one.state.value}"
    if old is not None:
        text += f", was {old.value}"
    # Why it came or was let go, an event of its own has said; a worker that runs says what it does.
    told = one.state in TOLD_ELSEWHERE or one.intent.intent is Intent.RELEASED
    if why and not told:
        text += f": {why}"
    data = {"state": one.state.value, "was": old.value if old else "", "why": why}
    return Event(snapshot.now_s, "state", text, one.instance_id, one.node_type, data)


def reason(one: Instance, snapshot: Snapshot) -> str:
    """Return why an instance is in its state: our own reason, the backend's words, or what Ray shows."""
    if one.intent.intent is Intent.RELEASED:
        return one.intent.release_reason or ""
    if one.state is InstanceState.REQUESTED:
        return one.intent.reason
    if one.state is InstanceState.RUNNING:
        return "Ray shows its node"
    if one.state is InstanceState.DRAINING:
        return "Ray drains its node"
    if one.state is InstanceState.UNKNOWN:
        return _silence(one, snapshot)
    dead = one.node is not None and one.node.status is NodeStatus.DEAD
    return (one.row.detail if one.row else "") or ("Ray calls its node dead" if dead else "")


def _silence(one: Instance, snapshot: Snapshot) -> str:
    view = snapshot.backends.get(one.intent.backend)
    if view is not None and view.fresh:
        return "the head does not answer"
    words = f": {view.error}" if view is not None and view.error else ""
    return f"{one.intent.backend} has not been listed since{words}"


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
