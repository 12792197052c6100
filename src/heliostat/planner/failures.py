"""What has failed in a round, what is forgiven, and what follows for its node type."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from heliostat.model.history import FAILURES_KEPT, Failure, History
from heliostat.model.instance import Instance, InstanceState, Intent
from heliostat.model.node_type import Policy
from heliostat.model.snapshot import Snapshot
from heliostat.planner.backoff import Attempt, after_failures, on_trial
from heliostat.planner.health import fallen
from heliostat.planner.leases import is_over
from heliostat.planner.over import lost, said, start_began_s, start_overdue, start_timeout_s


def forgiven(history: History, snapshot: Snapshot) -> History:
    """Forgive refusals of the types of which all that was asked for is accepted now."""
    answers = [one for view in snapshot.backends.values() for one in view.answers]
    if not answers:
        return history
    accepted = frozenset[str]().union(*(one.accepted for one in answers))
    accepted = accepted.difference(*(one.rejections for one in answers))
    left = {n: one for n, one in history.backoff.items() if not (one.refused and n in accepted)}
    return replace(history, backoff=left)


def tried_anew(history: History, policy: Policy, *, now_s: float) -> tuple[History, list[str]]:
    """Return the history without waits and breakers, and a sentence for each that held something back.

    `policy` is what counts from now on: of what it does not have, or has in another shape than failed,
    nothing is told.
    """
    shapes = {one.name: ("", one.shape_id) for one in policy.node_types}
    backends = {one.backend for one in policy.node_types}
    told = [
        f"{name} is asked for again now, last failure: {one.last_error}"
        for name, one in sorted(history.backoff.items())
        if one.shape_id in shapes.get(name, ()) and (one.waits(now_s) or on_trial(one, now_s))
    ]
    told += [
        f"{name} is asked again now, last refusal: {one.last_error}"
        for name, one in sorted(history.breakers.items())
        if name in backends and one.until_s is not None
    ]
    return replace(history, backoff={}, breakers={}), told


def failures(before: History, history: History, snapshot: Snapshot, policy: Policy) -> History:
    """Note what has failed in this round: its words, how long its type waits, what is down.

    `before` is the history that the last round left.
    """
    failed = _failed(history, snapshot, policy)
    backoff = dict(history.backoff)
    for kind in policy.node_types:
        # What fails in an old shape says nothing of the new one.
        mine = [each for each in failed.get(kind.name, ()) if each[0].intent.shape_id == kind.shape_id]
        if mine:
            attempt = _attempt(mine, history, now_s=snapshot.now_s, most_s=kind.start_timeout_s)
            backoff[kind.name] = after_failures(
                backoff.get(kind.name), attempt, shape_id=kind.shape_id, now_s=snapshot.now_s
            )
    new = [
        Failure(one.instance_id, one.node_type, snapshot.now_s, error, began=_began(one))
        for several in failed.values()
        for one, error in several
    ]
    history = fallen(
        before, history, snapshot, policy, failed=[one for several in failed.values() for one, _ in several]
    )
    kept = (*history.failures, *new)[-FAILURES_KEPT:]
    return replace(history, backoff=backoff, failures=kept)


def _failed(history: History, snapshot: Snapshot, policy: Policy) -> dict[str, list[tuple[Instance, str]]]:
    """Return per node type the instances that have failed and were not told of yet, with the words."""
    told = {one.instance_id for one in history.failures}
    failed: dict[str, list[tuple[Instance, str]]] = {}
    for one in snapshot.instances:
        if one.state is InstanceState.RUNNING:
            continue
        error = _error(one, history, snapshot, policy=policy)
        if error is not None and one.instance_id not in told:
            failed.setdefault(one.node_type, []).append((one, error))
    return failed


def _began(one: Instance) -> bool:
    return one.state is InstanceState.STARTING or bool(one.row and one.row.started_at_s)


def _attempt(
    failed: Sequence[tuple[Instance, str]], history: History, *, now_s: float, most_s: float
) -> Attempt:
    """Return instances of one shape that failed in this round as one attempt."""
    rejections = [one.row.rejection for one, _ in failed if one.row and one.row.rejection]
    last, error = failed[-1]
    return Attempt(
        requested_at_s=max(one.intent.requested_at_s for one, _ in failed),
        error=error,
        seed=last.instance_id,
        rejection=max(rejections, key=lambda one: (one.permanent, one.retry_after_s or 0.0), default=None),
        # Nobody may have looked for hours, which says nothing of the start.
        took_s=min(most_s, max(_took_s(one, history, now_s) for one, _ in failed)),
        proven=history.has_come_up(last.node_type, last.intent.shape_id),
    )


def _took_s(one: Instance, history: History, now_s: float) -> float:
    """Return for how long it was starting; 0 where it was not seen to. Queueing does not count."""
    if one.instance_id not in history.starting_since or one.instance_id in history.joined_at:
        return 0.0
    return max(0.0, now_s - start_began_s(one, history, now_s=now_s))


def _error(one: Instance, history: History, snapshot: Snapshot, *, policy: Policy) -> str | None:
    """Return the words of a failure that is new in this round, None if there is none."""
    if one.intent.intent is not Intent.WANTED:
        return None
    fresh_state = history.states.get(one.instance_id) is not one.state
    if one.state is InstanceState.FAILED:
        # A batch system calls the end of a job's time a failure.
        return said(one) if fresh_state and not is_over(one, history, snapshot.now_s) else None
    if snapshot.ray is None or one.instance_id in history.joined_at:
        return None
    if one.state in {InstanceState.GONE, InstanceState.STOPPING}:
        return f"ended before it joined: {said(one)}" if fresh_state else None
    view = snapshot.backends.get(one.intent.backend)
    if view is None or not view.fresh:
        return None
    if one.state is InstanceState.STARTING and start_overdue(one, snapshot, history, policy):
        return f"did not join within {start_timeout_s(one, policy):.0f} s (start_timeout_s)"
    if one.state is InstanceState.REQUESTED and lost(one, snapshot, history):
        was_listed = one.instance_id in history.first_listed
        text = "vanished from the listings" if was_listed else "was asked for and never seen in a listing"
        return f"{text} of {one.intent.backend}"
    return None
