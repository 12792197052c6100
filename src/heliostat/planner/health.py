"""Which node types are not well: many of those that should be up are not, so nothing else of them ends.

When a rack, a network or an image fails, what is left is not idle because nobody needs it. The numbers are
those of Kubernetes' cluster-autoscaler (`--max-total-unready-percentage`, `--ok-total-unready-count`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace
from itertools import chain

from heliostat.model.history import Down, History
from heliostat.model.instance import Instance, InstanceState, Intent
from heliostat.model.node_type import Policy
from heliostat.model.snapshot import Snapshot
from heliostat.planner.leases import is_over
from heliostat.planner.limits import AILING_COUNT, AILING_PERCENT, DOWN_KEPT_S
from heliostat.planner.scene import Scene

_LEFT = (InstanceState.STOPPING, InstanceState.GONE, InstanceState.FAILED)
_MISSING = (InstanceState.REQUESTED, InstanceState.STARTING, InstanceState.UNKNOWN)
"""States of one that had joined and is not in Ray now. One that was requeued waits, as others do."""


def fallen(
    before: History, after: History, snapshot: Snapshot, policy: Policy, *, failed: Iterable[Instance]
) -> History:
    """Return `after` with how many of each type went down lately and were not replaced.

    `failed` are those whose start failed in this round, `before` and `after` the history ahead of it and
    with its joins. Each counts once. Each that joins stands for one that went down, and who comes back for
    itself; the last of them are forgotten after `DOWN_KEPT_S`.
    """
    new = [one for one in _fell(after, snapshot, failed) if one.instance_id not in before.fallen]
    back = {one.instance_id: one for one in snapshot.instances if _is_back(one, before)}
    up = _joined(before, after, snapshot) + Counter(one.node_type for one in back.values())
    fell = Counter(one.node_type for one in new)
    down = {}
    for name in (one.name for one in policy.node_types):
        known = before.down.get(name)
        if known is None or not known.at_s <= snapshot.now_s < known.at_s + DOWN_KEPT_S:
            known = Down(0, snapshot.now_s)
        count = max(0, known.count - up[name]) + fell[name]
        if count:
            down[name] = Down(count, snapshot.now_s if fell[name] else known.at_s)
    counted = after.fallen.union(one.instance_id for one in new).difference(back)
    return replace(after, down=down, fallen=counted)


def _joined(before: History, after: History, snapshot: Snapshot) -> Counter[str]:
    """Count per type who joined in this round. As a rule nothing is down, and then it is no matter."""
    if not before.down:
        return Counter()
    new = after.joined_at.keys() - before.joined_at.keys() - before.fallen
    return Counter(one.node_type for one in snapshot.instances if one.instance_id in new)


def _is_back(one: Instance, before: History) -> bool:
    """Say whether Ray was right about a node that its backend called over."""
    return one.instance_id in before.fallen and one.state in {InstanceState.RUNNING, InstanceState.DRAINING}


def _fell(history: History, snapshot: Snapshot, failed: Iterable[Instance]) -> list[Instance]:
    left = chain.from_iterable(snapshot.by_state[state] for state in _LEFT)
    died = (one for one in left if _has_died(one, history))
    candidates = {one.instance_id: one for one in chain(failed, died)}
    return [one for one in candidates.values() if _should_be_up(one, history, snapshot)]


def _has_died(one: Instance, history: History) -> bool:
    """Say whether a node of ours left Ray in this round."""
    was = history.states.get(one.instance_id)
    joined = one.instance_id in history.joined_at
    return one.intent.intent is Intent.WANTED and joined and was is not None and was not in _LEFT


def _should_be_up(one: Instance, history: History, snapshot: Snapshot) -> bool:
    """Say whether it had begun, and nobody wanted it to go."""
    begun = InstanceState.STARTING in {one.state, history.states.get(one.instance_id)}
    begun |= one.instance_id in history.joined_at or bool(one.row and one.row.started_at_s)
    asked = one.instance_id in snapshot.operator.removals or _drained(one, history, snapshot)
    return begun and not asked and not is_over(one, history, snapshot.now_s)


def _drained(one: Instance, history: History, snapshot: Snapshot) -> bool:
    """Say whether it went because it was drained. One that was idle, and not asked to go, died.

    A controller that has just begun does not know whom it asked before: those count as dead.
    """
    asked = one.instance_id in snapshot.drains
    was_draining = history.states.get(one.instance_id) is not InstanceState.RUNNING
    return one.instance_id in history.drained and (asked or was_draining)


def ailing(scene: Scene) -> Mapping[str, tuple[int, int]]:
    """Return the types that are not well: how many of them are down, of how many that should be up."""
    down = Counter({name: one.count for name, one in scene.history.down.items()})
    missing = (one for one in scene.in_states(*_MISSING) if one.intent.intent is Intent.WANTED)
    down.update(one.node_type for one in missing if one.instance_id in scene.history.joined_at)
    up = scene.snapshot.counts[InstanceState.RUNNING]
    return {
        name: (count, up[name] + count)
        for name, count in down.items()
        if count >= AILING_COUNT and count * 100 > AILING_PERCENT * (up[name] + count)
    }
