"""What is over: instances that failed, died, were drained, never started, or are nowhere to be found.

These releases need no demand and no packing, and only what is surely known.
"""

from __future__ import annotations

from itertools import chain

from heliostat.model.history import History
from heliostat.model.instance import Instance, InstanceState, Intent
from heliostat.model.node_type import Policy
from heliostat.model.plan import Reason, Release, Why
from heliostat.model.snapshot import Snapshot
from heliostat.planner.leases import is_over
from heliostat.planner.limits import LOST_AFTER_S, OUTLIVED_S, START_TIMEOUT_S

_MAYBE_OVER = (
    InstanceState.REQUESTED,
    InstanceState.STARTING,
    InstanceState.STOPPING,
    InstanceState.GONE,
    InstanceState.FAILED,
)

_OVER = (InstanceState.STOPPING, InstanceState.GONE, InstanceState.FAILED)


def endings(snapshot: Snapshot, history: History, policy: Policy) -> tuple[Release, ...]:
    """Return a release for every wanted instance that is over; nothing of a backend that is unknown."""
    found = []
    maybe = chain.from_iterable(snapshot.by_state[state] for state in _MAYBE_OVER)
    for one in sorted(maybe, key=lambda one: one.instance_id):
        view = snapshot.backends.get(one.intent.backend)
        if one.intent.intent is Intent.WANTED and view is not None and view.fresh:
            reason = ending(one, snapshot, history, policy)
            if reason is not None:
                found.append(Release(one.instance_id, reason))
    return tuple(found)


def ending(one: Instance, snapshot: Snapshot, history: History, policy: Policy) -> Reason | None:
    """Return why the instance is over, None if it is not. Its backend has answered.

    Who lives is Ray's word: while it is silent, nothing is over.
    """
    if snapshot.ray is None:
        return None
    if one.state in _OVER and is_over(one, history, snapshot.now_s):
        return _reason(one, Why.LEASE_ENDS, "left at the end of its lease")
    if outlived(one, snapshot, history):
        return None
    if one.state is InstanceState.FAILED:
        return _reason(one, Why.FAILED, f"failed: {said(one)}")
    if one.state in {InstanceState.GONE, InstanceState.STOPPING}:
        return _left(one, history)
    if one.state is InstanceState.STARTING and start_overdue(one, snapshot, history, policy):
        return _not_started(one, history, policy)
    if one.state is InstanceState.REQUESTED and lost(one, snapshot, history):
        text = f"has been in no listing of {one.intent.backend} for {LOST_AFTER_S:.0f} s"
        return _reason(one, Why.LOST, text)
    return None


def _left(one: Instance, history: History) -> Reason:
    if one.instance_id in history.drained:
        return _reason(one, Why.DRAINED, "left after its drain")
    if one.instance_id in history.joined_at or one.node is not None:
        return _reason(one, Why.NODE_DIED, f"died: {said(one)}")
    return _reason(one, Why.FAILED, f"ended before it joined: {said(one)}")


def _not_started(one: Instance, history: History, policy: Policy) -> Reason:
    if one.instance_id in history.joined_at:
        return _reason(one, Why.NODE_DIED, "is no longer known to Ray")
    limit_s = start_timeout_s(one, policy)
    text = f"did not join within {limit_s:.0f} s (start_timeout_s): {said(one)}"
    return _reason(one, Why.START_TIMEOUT, text)


def start_timeout_s(one: Instance, policy: Policy) -> float:
    node_type = policy.node_type(one.node_type)
    return node_type.start_timeout_s if node_type else START_TIMEOUT_S


def start_overdue(one: Instance, snapshot: Snapshot, history: History, policy: Policy) -> bool:
    """Say whether an instance has been starting for longer than its type allows. Queueing does not count."""
    began_s = start_began_s(one, history, now_s=snapshot.now_s)
    return snapshot.now_s - began_s > start_timeout_s(one, policy)


def start_began_s(one: Instance, history: History, *, now_s: float) -> float:
    """Return since when an instance starts; now where it was not seen to.

    Of the start that its backend tells and the time at which it was first seen starting the later one
    counts: a start that was stamped before the backend's clock was set lies in another time.
    """
    began_s = history.starting_since.get(one.instance_id, now_s)
    if one.row is not None and one.row.started_at_s is not None:
        began_s = max(began_s, one.row.started_at_s)
    return began_s


def lost(one: Instance, snapshot: Snapshot, history: History) -> bool:
    """Say whether listings that are far enough apart both lack the instance."""
    since_s = history.absent_since.get(one.instance_id)
    listed_at_s = snapshot.backends[one.intent.backend].listed_at_s
    return since_s is not None and listed_at_s - since_s > LOST_AFTER_S


def outlived(one: Instance, snapshot: Snapshot, history: History) -> bool:
    """Say whether Ray last showed the node of what is listed as ending alive, and listings do not insist."""
    view, since_s = snapshot.backends.get(one.intent.backend), history.outlived_since.get(one.instance_id)
    if one.state is not InstanceState.STOPPING or view is None or since_s is None:
        return False
    due_s = snapshot.operator.removals.get(one.instance_id)
    return view.listed_at_s - since_s <= OUTLIVED_S and (due_s is None or snapshot.now_s < due_s)


def outliving(snapshot: Snapshot, history: History) -> dict[str, Reason]:
    """Return for each instance that is kept because its node lives what its backend says of it."""
    return {
        one.instance_id: Reason(
            Why.NODE_DIED,
            f"{one.intent.backend} says that it ends or is over ({said(one)}), and Ray that its node lives; "
            f"believed if listings say so for {OUTLIVED_S:.0f} s",
            {"state": one.state.value},
        )
        for one in snapshot.by_state[InstanceState.STOPPING]
        if one.intent.intent is Intent.WANTED and outlived(one, snapshot, history)
    }


def said(one: Instance) -> str:
    """Return the backend's own words."""
    return one.row.detail if one.row and one.row.detail else "no word from the backend"


def _reason(one: Instance, why: Why, text: str) -> Reason:
    return Reason(why, f"{one.display_name} {text}", {"state": one.state.value})
