"""What a backend is asked beside the plan. Pure.

To end what it lists still, to let go what it holds back, and for what an earlier controller may never have
asked it for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from heliostat.control.memory import Memory
from heliostat.control.record import AGAIN, Recorded
from heliostat.model.instance import (
    BackendInstance,
    Change,
    InstanceIntent,
    InstanceState,
    Intent,
    LaunchRequest,
)
from heliostat.model.node_type import Policy
from heliostat.model.plan import Launch
from heliostat.model.snapshot import BackendView
from heliostat.ports.journal import Event


def follow_up(memory: Memory, view: BackendView, *, before_s: float) -> Change:
    """Return the released instances that are still listed, and the types whose shape has come up and of
    which some are still held back, each last asked for before `before_s`."""
    asked = memory.asked
    released = {one.instance_id for one in memory.intents.values() if one.intent is Intent.RELEASED}
    listed = [row.instance_id for row in view.rows if row.instance_id in released]
    held = sorted({row.node_type for row in view.rows if row.throttled and _has_come_up(memory, row)})
    return Change(
        terminate=tuple(one for one in listed if asked.get(one, float("-inf")) <= before_s),
        unthrottle=tuple(one for one in held if asked.get(letting_go(one), float("-inf")) <= before_s),
    )


def _has_come_up(memory: Memory, row: BackendInstance) -> bool:
    intent = memory.intents.get(row.instance_id)
    return intent is not None and memory.history.has_come_up(intent.node_type, intent.shape_id)


def letting_go(node_type: str) -> str:
    return f"unthrottle {node_type}"


def follow_ups(memory: Memory, views: Mapping[str, BackendView], *, before_s: float) -> dict[str, Change]:
    """Return the same for each backend."""
    return {name: follow_up(memory, view, before_s=before_s) for name, view in views.items()}


def asked_again(
    recorded: Recorded,
    memory: Memory,
    *,
    policy: Policy,
    request: Callable[[str, Launch], LaunchRequest],
    now_s: float,
) -> Recorded:
    """Return the round with what is to be asked for again: launches that nobody answered, and of which a
    fresh listing and Ray show nothing.

    They keep their ids. A backend that has one of them after all starts nothing again, or the second of
    two for one id does not join (the bootstrap's claim).
    """
    snapshot = memory.snapshot
    if not memory.unanswered or snapshot is None or snapshot.ray is None or snapshot.operator.paused:
        return recorded
    missing = _missing(memory, recorded)
    for launch_id, launch in memory.unanswered.items():
        node_type = policy.node_type(launch.node_type)
        members = [missing.get(f"{launch_id}.{index}") for index in range(launch.count)]
        intents = [replace(one, requested_at_s=now_s) for one in members if one is not None]
        # Where a part of it is there the backend has it, and would start nothing of the rest.
        if node_type is None or len(intents) < launch.count or intents[0].shape_id != node_type.shape_id:
            continue
        ask = request(launch_id, launch)
        recorded = recorded.with_again(intents, _again_event(ask, now_s), Change(launch=(ask,)))
    return recorded


def _missing(memory: Memory, recorded: Recorded) -> Mapping[str, InstanceIntent]:
    """Return the wanted instances that have never been seen, and that no fresh listing has now."""
    assert memory.snapshot is not None
    fresh = {name for name, view in memory.snapshot.backends.items() if view.fresh}
    decided = {one.instance_id for one in recorded.intents}
    return {
        one.instance_id: one.intent
        for one in memory.instances
        if one.state is InstanceState.REQUESTED
        and one.intent.backend in fresh
        and one.instance_id not in decided
        and one.instance_id not in memory.history.first_listed
        and one.instance_id not in memory.history.joined_at
    }


def _again_event(ask: LaunchRequest, now_s: float) -> Event:
    name = ask.node_type.name
    text = f"{ask.count} × {name}: asked for again, since no answer was heard before the controller ended"
    return Event(now_s, AGAIN, text, ask.instance_ids[0], name, {"launch_id": ask.launch_id})
