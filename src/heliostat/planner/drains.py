"""Which nodes are told to go, which are released at the deadline they were told, and why the others stay."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping

from heliostat.model.instance import DrainReason, Instance, InstanceState, NodeStatus, RayNode
from heliostat.model.plan import Drain, Limiter, Reason, Release, Why
from heliostat.planner.disruption import Disruption
from heliostat.planner.limits import IDLE_REPORTS
from heliostat.planner.replacing import ending_work
from heliostat.planner.scene import Scene
from heliostat.planner.settle import Settlement

ASK_AGAIN = 3
"""A node that a person wants gone is asked to drain in every third idle report: Ray may have refused."""

_FULL = frozenset({Limiter.BUDGET, Limiter.CAPACITY, Limiter.MAX_WORKERS, Limiter.TYPE_MAX_WORKERS})
"""What may hold back a replacement until the node that it replaces has gone."""


def drift_data(scene: Scene, one: Instance) -> dict[str, object]:
    """Return the shape that the instance has, and the file's: None where the file no longer has the type."""
    node_type = scene.types.get(one.node_type)
    return {"shape": one.intent.shape_id, "shape_now": node_type.shape_id if node_type else None}


def excess_data(excess: Mapping[str, int], one: Instance) -> dict[str, object]:
    """Return how many there are above the type's maximum and above the cluster's; see `Scene.excess`."""
    return {"excess": excess.get(one.node_type, 0), "cluster_excess": excess[""]}


class Drains:
    """Goes through nodes, the dearest and longest idle first; `going` counts what leaves the target."""

    def __init__(self, scene: Scene, settlement: Settlement, surplus: tuple[Instance, ...]) -> None:
        self.scene = scene
        self.settlement = settlement
        self.releases: list[Release] = []
        self.drains: list[Drain] = []
        self.kept: dict[str, Reason] = {}
        self.going: Counter[str] = Counter()
        self.spare = dict(scene.spare)
        for one in (*surplus, *scene.unseen_coming):
            self.spare[one.node_type] -= 1
        withdrawn = Counter(one.node_type for one in scene.coming if scene.withdrawal(one) == "over")
        self.excess = {name: count - withdrawn[name] for name, count in scene.excess.items()}
        self.excess[""] = scene.excess[""] - withdrawn.total()
        self.disruption = Disruption(scene)
        self.rolling = _Rolling(scene, settlement)
        self.endings = {one.key: one for one in ending_work(scene)}
        self.gangs = {one.gang.gang_id: one.gang for one in settlement.wants.gangs}

    def run(self) -> None:
        for one in sorted(self._in_question(), key=self._dearest):
            node = one.node
            assert node is not None, "what runs or drains is a node of Ray's"
            if self._at_its_end(one, node):
                continue
            if self.scene.removed(one):
                self._removed(one, node)
            elif one.state is InstanceState.RUNNING and node.status is NodeStatus.IDLE:
                self._idle(one, node)
            elif one.state is InstanceState.RUNNING and node.available == node.total:
                words = ", ".join(node.activity) or "Ray does not say with what"
                self.kept[one.instance_id] = Reason(
                    Why.BUSY, f"busy: {words}", {"activity": list(node.activity)}
                )

    def _in_question(self) -> Iterator[Instance]:
        """Return running and draining nodes but for those that plainly work on: most do."""
        yield from self.scene.in_states(InstanceState.DRAINING)
        removals, leases = self.scene.operator.removals, self.scene.leases
        for one in self.scene.running:
            node = one.node
            assert node is not None, "the table says so"
            working = node.status is NodeStatus.RUNNING and node.available.amounts != node.total.amounts
            if not working or one.intent.instance_id in removals or one.intent.instance_id in leases:
                yield one

    def _dearest(self, one: Instance) -> tuple[bool, float, float, str]:
        # One that Ray keeps must not take the turn of those that would go (`max_draining`).
        kept = one.instance_id in self.scene.snapshot.refused
        return (kept, -self.scene.price(one.node_type), -self._idle_s(one.node), one.instance_id)

    def _idle_s(self, node: RayNode | None) -> float:
        since_s = self.scene.history.idle_since.get(node.node_id) if node else None
        return self.scene.now_s - since_s if since_s is not None else 0.0

    # -- what ends whether we want it or not ------------------------------------

    def _at_its_end(self, one: Instance, node: RayNode) -> bool:
        """Tell work that its node's lease ends, and release the node at the deadline that was told.

        Nothing happens at a deadline by itself. It is ours to keep, and this is no work killed
        to save money: the backend would take the machine a moment later. A protected node is told
        like any other, and left to the backend. Say whether this was all there is to do.
        """
        lease, now_s = self.scene.leases.get(one.instance_id), self.scene.now_s
        if lease is None or now_s < lease.notice_at_s:
            return False
        left_s = lease.expires_at_s - now_s
        if one.state is InstanceState.DRAINING:
            over = now_s >= lease.deadline_s and not self.scene.protected(one) and self.scene.known(one)
            if over:
                text = f"the lease of {one.display_name} ends in {left_s:.0f} s, its deadline is over"
                data = {"left_s": left_s, "deadline_s": lease.deadline_s}
                self.releases.append(Release(one.instance_id, Reason(Why.LEASE_ENDS, text, data)))
            return over
        if node.status is not NodeStatus.RUNNING:
            return False
        reason = Reason(
            Why.LEASE_ENDS,
            f"{one.display_name} works and its lease ends in {left_s:.0f} s",
            {"left_s": left_s},
        )
        removal_s = self.scene.operator.removals.get(one.instance_id) if self.scene.removed(one) else None
        deadline_s = lease.deadline_s if removal_s is None else min(lease.deadline_s, removal_s)
        self._tell(one, node, reason, max(now_s, deadline_s))
        return True

    def _tell(self, one: Instance, node: RayNode, reason: Reason, deadline_s: float) -> None:
        # A notice is not held back by max_draining: the end comes all the same.
        self.drains.append(Drain(one.instance_id, node.node_id, DrainReason.PREEMPTION, reason, deadline_s))

    def _removed(self, one: Instance, node: RayNode) -> None:
        """Let a person's word count: by the deadline where there is one, else as soon as the node is idle."""
        deadline_s = self.scene.operator.removals[one.instance_id]
        if deadline_s is None:
            kept = self._removed_when_idle(one, node)
        else:
            kept = self._removed_by(deadline_s, one, node)
        if kept is not None:
            self.kept[one.instance_id] = kept

    def _removed_by(self, deadline_s: float, one: Instance, node: RayNode) -> Reason | None:
        left_s = deadline_s - self.scene.now_s
        data = {"deadline_s": deadline_s, "left_s": left_s}
        if left_s <= 0:
            text = "removed by hand and its deadline is over"
            if not self.scene.known(one):
                text = f"{text}; it is released when {one.intent.backend} answers"
                return Reason(Why.REMOVED_BY_HAND, text, data)
            reason = Reason(Why.REMOVED_BY_HAND, f"{one.display_name} was {text}", data)
            self.releases.append(Release(one.instance_id, reason))
            return None
        text = f"removed by hand, to be gone in {left_s:.0f} s"
        if one.state is InstanceState.DRAINING:
            return Reason(Why.REMOVED_BY_HAND, f"{text}; it drains", data)
        reason = Reason(Why.REMOVED_BY_HAND, f"{one.display_name} was {text}", data)
        self._tell(one, node, reason, deadline_s)
        return None

    def _removed_when_idle(self, one: Instance, node: RayNode) -> Reason | None:
        reports = self.scene.history.reports.get(node.node_id, 0)
        data = {"idle_s": self._idle_s(node)}
        if one.state is InstanceState.DRAINING:
            return Reason(Why.REMOVED_BY_HAND, "removed by hand, and drains", data)
        if node.status is not NodeStatus.IDLE:
            return Reason(Why.REMOVED_BY_HAND, "removed by hand; it works, and goes when it is idle", data)
        if reports < IDLE_REPORTS:
            return Reason(Why.REMOVED_BY_HAND, "removed by hand, idle just now", data)
        if (reports - IDLE_REPORTS) % ASK_AGAIN:
            text = f"removed by hand and idle; Ray is asked to drain it in every {ASK_AGAIN}rd report"
            return Reason(Why.REMOVED_BY_HAND, text, data)
        text = f"{one.display_name} was removed by hand and is idle"
        return self._drain(one, node, Reason(Why.REMOVED_BY_HAND, text, data))

    # -- idle nodes ---------------------------------------------------------------

    def _idle(self, one: Instance, node: RayNode) -> None:
        kept = self._needed(one, node)
        if kept is None:
            forced = self._forced(one)
            if forced is not None:
                kept = self._drain(one, node, forced)
            elif self.scene.drifted(one):
                text = "has a shape that the file no longer has; goes when a new one is up"
                kept = Reason(Why.DRIFT, text, drift_data(self.scene, one))
            else:
                kept = self._timed(one, node)
        if kept is not None:
            self.kept[one.instance_id] = kept

    def _needed(self, one: Instance, node: RayNode) -> Reason | None:
        """Return what keeps the node whatever else holds."""
        if self.scene.protected(one):
            how = "added" if one.instance_id in self.scene.operator.added else "protected"
            return Reason(Why.PROTECTED, f"{how} by hand", {"protected": True})
        uses = self.settlement.uses.get(one.instance_id)
        if uses:
            return self._used_by(uses[0].want.key)
        if one.instance_id in self.settlement.held_for and not self.scene.held_enough(one):
            gang, stop = self.settlement.held_for[one.instance_id]
            text = f"{gang.gang} would lie here, and waits for the rest of it: {stop.text}"
            return Reason(Why.GANG, text, {"wanted": str(gang.gang), "limiter": stop.limiter.value})
        reports = self.scene.history.reports.get(node.node_id, 0)
        if reports < IDLE_REPORTS:
            data = {"reports": reports, "reports_wanted": IDLE_REPORTS}
            return Reason(Why.IDLE_TIMEOUT, "idle just now; Ray says so in one report only", data)
        return None

    def _used_by(self, key: str) -> Reason:
        if key in self.endings:
            nodes = [one.instance_id for one in self.endings[key].nodes]
            return Reason(Why.REPLACEMENT, f"{key} fits here, and has to leave there", {"replaces": nodes})
        why, wanted = (Why.GANG, str(self.gangs[key])) if key in self.gangs else (Why.DEMAND, key)
        return Reason(why, f"{wanted} waits and fits here", {"wanted": wanted})

    def _forced(self, one: Instance) -> Reason | None:
        """Return why the node goes as soon as it is idle, whatever its timeout is."""
        if self.scene.drifted(one) and not self.rolling.stays(one):
            text = f"{one.display_name} is idle and has a shape that the file no longer has"
            return Reason(Why.DRIFT, text, drift_data(self.scene, one))
        ends = self._idle_at_its_end(one)
        if ends is not None:
            return ends
        if max(self.excess.get(one.node_type, 0), self.excess[""]) > 0 and not self._is_of_the_floor(one):
            text = f"{one.display_name} is idle, and there are more workers than max_workers allows"
            return Reason(Why.OVER_MAX, text, excess_data(self.excess, one))
        return None

    def _idle_at_its_end(self, one: Instance) -> Reason | None:
        lease = self.scene.leases.get(one.instance_id)
        if lease is None or self.scene.now_s < lease.notice_at_s:
            return None
        left_s = lease.expires_at_s - self.scene.now_s
        text = f"{one.display_name} is idle and its lease ends in {left_s:.0f} s"
        return Reason(Why.LEASE_ENDS, text, {"left_s": left_s})

    def _is_of_the_floor(self, one: Instance) -> bool:
        """Say whether the node is one of the file's `min_workers`, which no maximum of the file forbids."""
        node_type = self.scene.types.get(one.node_type)
        if node_type is None or self.scene.leaving(one) or one.instance_id in self.scene.retiring:
            return False
        counted = self.spare[one.node_type] + self.scene.floor(node_type)
        return counted <= node_type.min_workers

    def _timed(self, one: Instance, node: RayNode) -> Reason | None:
        """Drain the node if its idle time is over and nothing holds it; return what keeps it otherwise."""
        if one.instance_id in self.settlement.constraint_uses:
            wanted = self.settlement.constraint_uses[one.instance_id][0].want.key
            return Reason(Why.CONSTRAINT, "request_resources asks to keep it", {"wanted": wanted})
        node_type = self.scene.types[one.node_type]
        if not self.scene.leaving(one) and self.spare[one.node_type] <= 0:
            return self._floor_reason(one)
        idle_s, timeout_s = self._idle_s(node), self.scene.policy.idle_timeout_of(node_type)
        if idle_s < timeout_s:
            left_s = timeout_s - idle_s
            text = f"idle for {idle_s:.0f} s of {timeout_s:.0f} s (idle timeout), {left_s:.0f} s left"
            data = {"idle_s": idle_s, "timeout_s": timeout_s, "left_s": left_s}
            return Reason(Why.IDLE_TIMEOUT, text, data)
        if self.scene.leaving(one) and self.rolling.awaited(one):
            left_s = self.scene.leases[one.instance_id].expires_at_s - self.scene.now_s
            text = "its lease ends soon; it stays until its replacement is up"
            return Reason(Why.LEASE_ENDS, text, {"left_s": left_s})
        if self.scene.just_ended and not self.scene.leaving(one):
            text = "a node's time has just ended; what worked there may come here"
            return Reason(Why.REPLACEMENT, text, {"ended": list(self.scene.just_ended)})
        text = f"{one.display_name} has been idle for {idle_s:.0f} s, its timeout is {timeout_s:.0f} s"
        return self._drain(one, node, Reason(Why.IDLE, text, {"idle_s": idle_s, "timeout_s": timeout_s}))

    def _floor_reason(self, one: Instance) -> Reason:
        node_type = self.scene.types[one.node_type]
        floor = self.scene.floor(node_type)
        data = {"floor": floor, "count": floor + self.spare[one.node_type]}
        if floor > node_type.min_workers:
            return Reason(Why.ADDED_BY_HAND, f"{floor} of {node_type.name} were asked for by hand", data)
        return Reason(Why.MIN_WORKERS, f"min_workers of {node_type.name} is {floor}", data)

    def _drain(self, one: Instance, node: RayNode, reason: Reason) -> Reason | None:
        held = self.disruption.held(one.node_type, reason)
        if held is not None:
            return held
        self.disruption.goes(reason)
        self.drains.append(Drain(one.instance_id, node.node_id, DrainReason.IDLE, reason))
        if not self.scene.leaving(one) and one.instance_id not in self.scene.retiring:
            self.going[one.node_type] += 1
            self.spare[one.node_type] -= 1
        self.rolling.went(one)
        self.excess[""] -= 1
        self.excess[one.node_type] = self.excess.get(one.node_type, 0) - 1
        return None


class _Rolling:
    """How many of each type are up, so that old nodes go no faster than new ones come.

    With `max_surge` the new one comes first. Without it an old one goes first, and then the next
    only when the new one is up: a new shape that does not come up costs one node and not all.
    """

    def __init__(self, scene: Scene, settlement: Settlement) -> None:
        self.scene = scene
        self.settlement = settlement
        self.up = Counter(scene.snapshot.counts[InstanceState.RUNNING])
        self.up.subtract(one.node_type for one in scene.running if one.instance_id in scene.gone_soon)
        self.counted = Counter(self.up)
        self.counted.subtract(one.node_type for one in scene.running if one.instance_id in scene.retiring)
        self.ahead = scene.drifted_going
        coming = (one.instance_id in settlement.constraint_uses for one in scene.staying_coming)
        self.kept_comes = any(coming) or any(one.kept for one in settlement.new)
        self.full = {short.shape.name for short in settlement.short if short.room.limiter in _FULL}
        limiters = {unmet.rooms[0].limiter for unmet in settlement.constraint_unmet if unmet.rooms}
        self.kept_is_full = bool(limiters & _FULL)
        stops = (room for unmet in settlement.constraint_unmet for room in unmet.rooms)
        self.kept_waits = any(room.passing for room in stops)

    def _counts(self, one: Instance) -> bool:
        """Say whether floors and `request_resources` count the node as one that stays."""
        return one.instance_id not in self.scene.retiring and not self.scene.leaving(one)

    def awaited(self, one: Instance) -> bool:
        """Say whether a floor or `request_resources` would lack the node: what replaces it is not up."""
        counts = self._counts(one)
        if one.instance_id in self.settlement.constraint_uses:
            return True
        if not counts and (self.kept_comes or self.settlement.constraint_unmet):
            return True
        return self.counted[one.node_type] - counts < self.scene.floor_of(one.node_type)

    def stays(self, one: Instance) -> bool:
        """Say whether an old node has to wait for a new one."""
        if not self.awaited(one):
            return False
        name = one.node_type
        if self._failing(name) or self.kept_comes or self.ahead[name]:
            return True
        kept = one.instance_id in self.settlement.constraint_uses
        if self.up[name] < self.scene.floor_of(name) or (kept and self.kept_waits):
            return True
        return self.scene.policy.max_surge > 0 and name not in self.full and not self.kept_is_full

    def _failing(self, name: str) -> bool:
        """Say whether none of a type can be asked for now, wherever the file wants it from."""
        scene, history = self.scene, self.scene.history
        backoff, node_type = history.backoff.get(name), scene.types.get(name)
        if backoff is not None and backoff.waits(scene.now_s):
            return True
        if node_type is None:
            return False
        breaker = history.breakers.get(node_type.backend)
        is_open = breaker is not None and breaker.is_open(scene.now_s)
        return is_open or not scene.view(node_type.backend).fresh

    def went(self, one: Instance) -> None:
        self.ahead[one.node_type] += 1
        self.up[one.node_type] -= 1
        self.counted[one.node_type] -= self._counts(one)
