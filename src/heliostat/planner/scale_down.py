"""What goes again: room on its way that nothing needs, and idle nodes. And why the others stay."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from heliostat.model.instance import DrainReason, Instance, InstanceState, NodeStatus, RayNode
from heliostat.model.plan import Drain, Reason, Release, Why
from heliostat.planner.ledger import price_of
from heliostat.planner.limits import IDLE_REPORTS, VANISHED_S
from heliostat.planner.scene import Scene, soonest
from heliostat.planner.settle import Settlement, staying

ASK_AGAIN = 3
"""A node that a person wants gone is asked to drain in every third idle report: Ray may have refused."""


@dataclass
class Shrinkage:
    """Releases, drains and what stays; `going` counts per type what is not part of the target."""

    releases: list[Release] = field(default_factory=list)
    drains: list[Drain] = field(default_factory=list)
    kept: dict[str, Reason] = field(default_factory=dict)
    going: Counter[str] = field(default_factory=Counter)


def shrink(scene: Scene, settlement: Settlement) -> Shrinkage:
    """Return what goes. Nothing does while the cluster is paused."""
    found = Shrinkage()
    surplus = needless(scene, settlement)
    _withdraw(scene, found)
    _give_back(scene, surplus, found)
    _Drains(scene, settlement, surplus, found=found).run()
    if scene.operator.paused:
        idle = [drain.instance_id for drain in found.drains]
        text = "the cluster is paused"
        paused = {one: Reason(Why.IDLE, text) for one in idle} | found.kept
        return Shrinkage(kept=paused)
    return found


def needless(scene: Scene, settlement: Settlement) -> tuple[Instance, ...]:
    """Return what is on its way and needed by nothing: demand, gang, constraint, floor or a person.

    Queued ones first, then starting ones, the latest asked for first.
    """
    found = []
    spare = {name: staying(scene, name) - _floor(scene, name) for name in scene.alive}
    for one in sorted(scene.staying_coming, key=soonest, reverse=True):
        unknown = one.state is InstanceState.UNKNOWN or not scene.known(one)
        if unknown or scene.protected(one) or settlement.used(one.instance_id):
            continue
        if spare[one.node_type] > 0:
            spare[one.node_type] -= 1
            found.append(one)
    return tuple(found)


def _floor(scene: Scene, name: str) -> int:
    node_type = scene.types.get(name)
    return scene.floor(node_type) if node_type else 0


_WITHDRAWN = {
    "removed": (Why.REMOVED_BY_HAND, "was removed by hand before it came up"),
    "drift": (Why.DRIFT, "has a shape that the file no longer has, and is not up yet"),
    "over": (Why.OVER_MAX, "is more than max_workers allows since the file changed, and is not up yet"),
}


def _withdraw(scene: Scene, found: Shrinkage) -> None:
    for one in scene.coming:
        kind = scene.withdrawal(one)
        if kind is not None and scene.known(one):
            why, text = _WITHDRAWN[kind]
            found.releases.append(Release(one.instance_id, Reason(why, f"{one.display_name} {text}")))


def _give_back(scene: Scene, surplus: tuple[Instance, ...], found: Shrinkage) -> None:
    for one in surplus:
        found.going[one.node_type] += 1
        since_s = scene.history.unneeded_since.get(one.instance_id, scene.now_s)
        needless_s = scene.now_s - since_s
        if needless_s >= VANISHED_S:
            text = f"nothing has needed {one.display_name} for {needless_s:.0f} s, and it is not up yet"
            found.releases.append(Release(one.instance_id, Reason(Why.NOT_NEEDED, text)))
        else:
            text = f"nothing needs it; given back in {VANISHED_S - needless_s:.0f} s if that stays so"
            found.kept[one.instance_id] = Reason(Why.NOT_NEEDED, text)


class _Drains:
    """Goes through running nodes, the dearest and longest idle first, and sorts them into `found`."""

    def __init__(
        self, scene: Scene, settlement: Settlement, surplus: tuple[Instance, ...], *, found: Shrinkage
    ) -> None:
        self.scene = scene
        self.settlement = settlement
        self.found = found
        self.spare = {name: staying(scene, name) - _floor(scene, name) for name in scene.alive}
        for one in surplus:
            self.spare[one.node_type] -= 1
        withdrawn = Counter(one.node_type for one in scene.coming if scene.withdrawal(one) == "over")
        self.excess = {name: count - withdrawn[name] for name, count in scene.excess.items()}
        self.excess[""] = scene.excess[""] - withdrawn.total()
        self.may_drain = scene.policy.max_draining - len(scene.snapshot.by_state[InstanceState.DRAINING])

    def run(self) -> None:
        for one in sorted(self._in_question(), key=self._dearest):
            node = one.node
            assert node is not None, "what runs or drains is a node of Ray's"
            if self.scene.removed(one):
                self._removed(one, node)
            elif one.state is InstanceState.RUNNING and node.status is NodeStatus.IDLE:
                self._idle(one, node)
            elif one.state is InstanceState.RUNNING and node.available == node.total:
                words = ", ".join(node.activity) or "Ray does not say with what"
                self.found.kept[one.instance_id] = Reason(Why.BUSY, f"busy: {words}")

    def _in_question(self) -> Iterator[Instance]:
        """Return running and draining nodes but for those that plainly work: most do."""
        yield from self.scene.in_states(InstanceState.DRAINING)
        removals = self.scene.operator.removals
        for one in self.scene.running:
            node = one.node
            assert node is not None, "the table says so"
            working = node.status is NodeStatus.RUNNING and node.available.amounts != node.total.amounts
            if not working or one.instance_id in removals:
                yield one

    def _dearest(self, one: Instance) -> tuple[float, float, str]:
        node_type = self.scene.types.get(one.node_type)
        price = price_of(self.scene, node_type) if node_type else 0.0
        return (-price, -self._idle_s(one.node), one.instance_id)

    def _idle_s(self, node: RayNode | None) -> float:
        since_s = self.scene.history.idle_since.get(node.node_id) if node else None
        return self.scene.now_s - since_s if since_s is not None else 0.0

    def _removed(self, one: Instance, node: RayNode) -> None:
        deadline_s = self.scene.operator.removals[one.instance_id]
        name = one.display_name
        if deadline_s is not None and self.scene.now_s >= deadline_s:
            if self.scene.known(one):
                reason = Reason(Why.REMOVED_BY_HAND, f"{name} was removed by hand and its deadline is over")
                self.found.releases.append(Release(one.instance_id, reason))
            return
        if one.state is InstanceState.DRAINING:
            return
        if deadline_s is not None:
            left_s = deadline_s - self.scene.now_s
            reason = Reason(Why.REMOVED_BY_HAND, f"{name} was removed by hand, to be gone in {left_s:.0f} s")
            self.found.drains.append(
                Drain(one.instance_id, node.node_id, DrainReason.PREEMPTION, reason, deadline_s)
            )
            return
        reports = self.scene.history.reports.get(node.node_id, 0)
        if node.status is NodeStatus.IDLE and reports >= IDLE_REPORTS:
            if (reports - IDLE_REPORTS) % ASK_AGAIN == 0:
                self._drain(one, node, Reason(Why.REMOVED_BY_HAND, f"{name} was removed by hand and is idle"))
        elif node.status is NodeStatus.IDLE:
            self.found.kept[one.instance_id] = Reason(Why.REMOVED_BY_HAND, "removed by hand, idle just now")

    def _idle(self, one: Instance, node: RayNode) -> None:
        kept = self._needed(one, node)
        if kept is None:
            forced = self._forced(one)
            kept = self._drain(one, node, forced) if forced else self._timed(one, node)
        if kept is not None:
            self.found.kept[one.instance_id] = kept

    def _needed(self, one: Instance, node: RayNode) -> Reason | None:
        """Return what keeps the node whatever else holds."""
        if self.scene.protected(one):
            return Reason(Why.PROTECTED, "protected by hand")
        uses = self.settlement.uses.get(one.instance_id)
        if uses:
            return Reason(Why.DEMAND, f"{uses[0].want.key} waits and fits here")
        if self.scene.history.reports.get(node.node_id, 0) < IDLE_REPORTS:
            return Reason(Why.IDLE_TIMEOUT, "idle just now; Ray says so in one report only")
        return None

    def _forced(self, one: Instance) -> Reason | None:
        """Return why the node goes as soon as it is idle, whatever timeout, floor and constraint say."""
        if self.scene.drifted(one):
            text = f"{one.display_name} is idle and has a shape that the file no longer has"
            return Reason(Why.DRIFT, text)
        if max(self.excess.get(one.node_type, 0), self.excess[""]) > 0:
            text = f"{one.display_name} is idle, and there are more workers than max_workers allows"
            return Reason(Why.OVER_MAX, text)
        return None

    def _timed(self, one: Instance, node: RayNode) -> Reason | None:
        """Drain the node if its idle time is over and nothing holds it; return what keeps it otherwise."""
        if one.instance_id in self.settlement.constraint_uses:
            return Reason(Why.CONSTRAINT, "request_resources asks to keep it")
        node_type = self.scene.types[one.node_type]
        staying_anyway = not self.scene.leaving(one)
        if staying_anyway and self.spare[one.node_type] <= 0:
            return self._floor_reason(one)
        idle_s, timeout_s = self._idle_s(node), self.scene.policy.idle_timeout_of(node_type)
        if idle_s < timeout_s:
            left_s = timeout_s - idle_s
            text = f"idle for {idle_s:.0f} s of {timeout_s:.0f} s (idle timeout), {left_s:.0f} s left"
            return Reason(Why.IDLE_TIMEOUT, text, {"idle_s": idle_s, "left_s": left_s})
        text = f"{one.display_name} has been idle for {idle_s:.0f} s, its timeout is {timeout_s:.0f} s"
        return self._drain(one, node, Reason(Why.IDLE, text, {"idle_s": idle_s}))

    def _floor_reason(self, one: Instance) -> Reason:
        node_type = self.scene.types[one.node_type]
        floor = self.scene.floor(node_type)
        if floor > node_type.min_workers:
            return Reason(Why.ADDED_BY_HAND, f"{floor} of {node_type.name} were asked for by hand")
        return Reason(Why.MIN_WORKERS, f"min_workers of {node_type.name} is {floor}")

    def _drain(self, one: Instance, node: RayNode, reason: Reason) -> Reason | None:
        if self.may_drain <= 0:
            most = self.scene.policy.max_draining
            return Reason(Why.IDLE, f"{reason.text}; {most} others drain first (max_draining)")
        self.may_drain -= 1
        self.found.drains.append(Drain(one.instance_id, node.node_id, DrainReason.IDLE, reason))
        if not self.scene.leaving(one):
            self.found.going[one.node_type] += 1
            self.spare[one.node_type] -= 1
        self.excess[""] -= 1
        self.excess[one.node_type] = self.excess.get(one.node_type, 0) - 1
        return None
