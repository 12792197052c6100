"""`fold`: take one observation into the history. Nothing else remembers anything."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import inf
from typing import TypeVar

from heliostat.model.demand import Demand, Gang
from heliostat.model.history import STARTS_KEPT, Held, History
from heliostat.model.host_time import noted
from heliostat.model.instance import MEMBER, Instance, InstanceState, Intent, NodeStatus
from heliostat.model.node_type import Policy
from heliostat.model.snapshot import RayState, Snapshot
from heliostat.planner.breaker import breakers
from heliostat.planner.failures import failures, forgiven
from heliostat.planner.limits import HELD_FOR_GANG_S, IDLE_REPORTS, RAY_GAP_S, WAITING_KEPT
from heliostat.planner.scale_down import needless
from heliostat.planner.scene import Scene, look
from heliostat.planner.settle import Settlement, settle
from heliostat.planner.shares import shares_of
from heliostat.planner.wants import key_of

T = TypeVar("T")


def fold(history: History, snapshot: Snapshot, policy: Policy) -> History:
    """Return the history with this observation in it; call once a round, before `plan`.

    Where Ray did not answer, what only Ray can tell stays as it was. Nothing is kept of
    instances that are no longer among the intents, nor of node types no longer in the policy.
    """
    instances = snapshot.instances
    known = _pruned(history, instances, policy)
    known = _listings(known, snapshot, instances)
    if snapshot.ray is not None:
        known = _nodes(known, snapshot)
        known = _demand(known, snapshot)
        known = replace(known, shares=shares_of(known, snapshot.ray))
        known = _joins(known, instances, now_s=snapshot.now_s)
        known = _proofs(known, snapshot, policy)
        known = _outlived(known, snapshot)
    known = replace(known, host=noted(known.host, snapshot.host))
    known = failures(history, forgiven(known, snapshot), snapshot, policy)
    known = _states(known, snapshot, instances)
    known = replace(known, breakers=breakers(known, snapshot, policy))
    return _settled(known, snapshot, policy)


def _pruned(history: History, instances: Sequence[Instance], policy: Policy) -> History:
    ids = {one.intent.instance_id for one in instances}
    shapes = {one.name: one.shape_id for one in policy.node_types}
    names = shapes.keys()
    priced = set(names)
    if not history.prices.keys() <= names:
        priced = names | {one.intent.node_type for one in instances}

    def of_ids(known: Mapping[str, T]) -> dict[str, T]:
        # As a rule nothing has gone, and then nothing needs to be copied.
        if known.keys() <= ids:
            return dict(known)
        return {key: value for key, value in known.items() if key in ids}

    return replace(
        history,
        first_listed=of_ids(history.first_listed),
        absent_since=of_ids(history.absent_since),
        joined_at=of_ids(history.joined_at),
        starting_since=of_ids(history.starting_since),
        unneeded_since=of_ids(history.unneeded_since),
        outlived_since=of_ids(history.outlived_since),
        held=of_ids(history.held),
        drained=history.drained & ids,
        fallen=history.fallen & ids,
        states=of_ids(history.states),
        backoff={
            name: one
            for name, one in history.backoff.items()
            if name in names and one.shape_id in ("", shapes[name])
        },
        proven={name: one for name, one in history.proven.items() if one == shapes.get(name)},
        start_s={name: one for name, one in history.start_s.items() if name in names},
        prices={name: price for name, price in history.prices.items() if name in priced},
    )


def _listings(history: History, snapshot: Snapshot, instances: Sequence[Instance]) -> History:
    """Note what fresh listings have and lack.

    One from before the ask says nothing, nor do those from before its answer: a backend may take longer to
    answer than what it does not list is waited for, and the next listing began while it still did.
    """
    first, absent = dict(history.first_listed), dict(history.absent_since)
    for one in instances:
        intent, row = one.intent, one.row
        if row is not None and intent.instance_id in first and intent.instance_id not in absent:
            continue
        view = snapshot.backends.get(intent.backend)
        if view is None or not view.fresh:
            continue
        if row is not None:
            first.setdefault(intent.instance_id, view.listed_at_s)
            absent.pop(intent.instance_id, None)
        elif intent.instance_id in view.asking:
            absent.pop(intent.instance_id, None)
        elif absent.get(intent.instance_id, float("-inf")) <= intent.requested_at_s < view.listed_at_s:
            # What is asked for again counts from then on.
            absent[intent.instance_id] = view.listed_at_s
    return replace(history, first_listed=first, absent_since=absent)


def _nodes(history: History, snapshot: Snapshot) -> History:
    """Count for how long each node has been idle, by our own observation or Ray's, the longer one.

    After a silence of Ray's our own count is void: the node may have worked meanwhile. Where Ray says that it
    was idle all the while, it did not: else nothing would ever go where each round takes so long.
    """
    assert snapshot.ray is not None
    now_s, last_s = snapshot.now_s, history.rounds_at_s
    gap_s = inf if last_s is None or now_s < last_s else now_s - last_s
    idle = [node for node in snapshot.ray.nodes if node.status is NodeStatus.IDLE]
    since, reports = history.idle_since, history.reports
    if gap_s > RAY_GAP_S:
        on = {node.node_id for node in idle if node.idle_s >= gap_s}
        since = {key: at_s for key, at_s in since.items() if key in on}
        reports = {key: count for key, count in reports.items() if key in on}
    return replace(
        history,
        idle_since={node.node_id: min(since.get(node.node_id, now_s), now_s - node.idle_s) for node in idle},
        reports={node.node_id: reports.get(node.node_id, 0) + 1 for node in idle},
        rounds_at_s=now_s,
    )


def _demand(history: History, snapshot: Snapshot) -> History:
    """Note since when everything waits.

    What `request_resources` asks waits too, until `_settled` sees that living nodes hold it.
    """
    assert snapshot.ray is not None
    ray = snapshot.ray
    waiting: list[Demand | Gang] = [*ray.demands, *ray.gangs, *_constraint(ray)]
    keys = sorted({key_of(one) for one in waiting})
    # Without intents a controller's clock begins anew, perhaps before its predecessor's.
    since = {key: min(history.waiting_since.get(key, snapshot.now_s), snapshot.now_s) for key in keys}
    oldest = sorted(since.items(), key=lambda one: (one[1], one[0]))[:WAITING_KEPT]
    return replace(history, waiting_since=dict(oldest))


def _constraint(ray: RayState) -> tuple[Demand, ...]:
    return ray.constraint.demands if ray.constraint else ()


def _joins(history: History, instances: Sequence[Instance], *, now_s: float) -> History:
    """Note first appearances in Ray: the shape works, so what failed on its way up is forgiven."""
    joined, starts = dict(history.joined_at), dict(history.start_s)
    backoff = dict(history.backoff)
    for one in instances:
        if one.intent.instance_id in joined or one.node is None or one.node.status not in MEMBER:
            continue
        joined[one.instance_id] = now_s
        known = backoff.get(one.node_type)
        if known is not None and not known.refused and known.shape_id in ("", one.intent.shape_id):
            del backoff[one.node_type]
        # Without earlier rounds we do not know when it joined, only that it did.
        if history.rounds_at_s is not None and not one.intent.adopted:
            took_s = now_s - one.intent.requested_at_s
            starts[one.node_type] = (*starts.get(one.node_type, ()), took_s)[-STARTS_KEPT:]
    return replace(
        history,
        joined_at=joined,
        start_s=starts,
        backoff=backoff,
        drained=_drained(history, instances),
    )


def _proofs(history: History, snapshot: Snapshot, policy: Policy) -> History:
    """Note which types have a node of their present shape. A journal that was lost tells it anew."""
    shapes = {one.name: one.shape_id for one in policy.node_types}
    unproven = shapes.keys() - history.proven.keys()
    if not unproven:
        return history
    up = {
        one.intent.node_type
        for state in (InstanceState.RUNNING, InstanceState.DRAINING)
        for one in snapshot.by_state[state]
        if one.intent.node_type in unproven and one.intent.shape_id == shapes[one.intent.node_type]
    }
    return replace(history, proven={**history.proven, **{name: shapes[name] for name in sorted(up)}})


def _outlived(history: History, snapshot: Snapshot) -> History:
    """Note since which fresh listing a backend calls over what Ray shows alive.

    A listing that is not fresh neither begins it nor ends it.
    """
    since = {}
    for one in snapshot.instances:
        if one.intent.intent is not Intent.WANTED or one.node is None or one.node.status not in MEMBER:
            continue
        view, known_s = snapshot.backends.get(one.intent.backend), history.outlived_since.get(one.instance_id)
        if view is not None and view.fresh:
            known_s = view.listed_at_s if known_s is None else known_s
            known_s = known_s if one.state is InstanceState.STOPPING else None
        if known_s is not None:
            since[one.instance_id] = known_s
    return replace(history, outlived_since=since)


def _drained(history: History, instances: Sequence[Instance]) -> frozenset[str]:
    """Return who was draining or idle when last seen alive: Ray does not say why a node is dead."""
    drained = set(history.drained)
    for one in instances:
        node, instance_id = one.node, one.intent.instance_id
        if node is None:
            continue
        if node.status is NodeStatus.RUNNING:
            drained.discard(instance_id)
        elif node.status is NodeStatus.DRAINING:
            drained.add(instance_id)
        elif node.status is NodeStatus.IDLE:
            quiet = history.reports.get(node.node_id, 0) >= IDLE_REPORTS
            (drained.add if quiet else drained.discard)(instance_id)
    return frozenset(drained)


def _states(history: History, snapshot: Snapshot, instances: Sequence[Instance]) -> History:
    starting = [one.instance_id for one in snapshot.by_state[InstanceState.STARTING]]
    # A source that is silent, or a listing that lacks it once, does not start the clock anew.
    unseen = {
        one.instance_id
        for state in (InstanceState.UNKNOWN, InstanceState.REQUESTED)
        for one in snapshot.by_state[state]
    }
    since = {key: at_s for key, at_s in history.starting_since.items() if key in unseen}
    since |= {key: history.starting_since.get(key, snapshot.now_s) for key in starting}
    return replace(
        history,
        states={one.intent.instance_id: one.state for one in instances},
        starting_since=since,
    )


def _settled(history: History, snapshot: Snapshot, policy: Policy) -> History:
    """Note what things cost, since when nothing needs what is on its way, and what waits for nothing.

    Without Ray nobody can tell.
    """
    scene = look(snapshot, history, policy)
    if scene is None:
        return replace(history, unneeded_since={})
    prices = {name: price for name, price in {**history.prices, **scene.prices}.items() if price > 0}
    if not scene.coming and not _constraint(scene.ray) and not _may_stop(scene):
        return replace(history, prices=prices, unneeded_since={}, held=_staying(scene))
    settlement = settle(scene)
    known, held = history.unneeded_since, _held(scene, settlement)
    return replace(
        history,
        prices=prices,
        unneeded_since={
            one.instance_id: known.get(one.instance_id, snapshot.now_s) for one in needless(scene, settlement)
        },
        waiting_since={key: since_s for key, since_s in history.waiting_since.items() if key not in held},
        held=_staying(scene, settlement),
    )


def _may_stop(scene: Scene) -> bool:
    """Say whether a gang waits and something may not be launched just now."""
    silent = any(not scene.view(one.backend).fresh for one in scene.policy.node_types)
    return bool(scene.ray.gangs) and bool(silent or scene.history.breakers or scene.history.backoff)


def _staying(scene: Scene, settlement: Settlement | None = None) -> dict[str, Held]:
    """Return what stays for what a gang lacks that is not launched just now, or did so lately."""
    now_s = scene.now_s
    found = {key: one for key, one in scene.history.held.items() if 0 <= now_s - one.last_s < HELD_FOR_GANG_S}
    for instance_id in settlement.held_for if settlement else ():
        since_s = found[instance_id].since_s if instance_id in found else now_s
        found[instance_id] = Held(since_s, now_s)
    return found


def _held(scene: Scene, settlement: Settlement) -> set[str]:
    """Return the keys of what `request_resources` asks and living nodes hold, where nothing else asks it."""
    coming = {one.instance_id for one in scene.coming}
    lacking: Counter[str] = Counter()
    for want in settlement.wants.constraint:
        lacking[want.key] += want.count
    for member, uses in settlement.constraint_uses.items():
        for use in uses if member not in coming else ():
            lacking[use.want.key] -= use.copies
    waits = {key_of(one) for one in scene.ray.demands}
    return {key for key, count in lacking.items() if count <= 0 and key not in waits}
