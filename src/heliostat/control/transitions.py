"""Events for what changed between two rounds. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from heliostat.model.history import Failure, History
from heliostat.model.instance import Instance, InstanceState
from heliostat.ports.journal import Event


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
