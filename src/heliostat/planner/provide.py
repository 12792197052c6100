"""What is planned where Ray's own autoscaler decides: it says how many, all else is kept as always.

Limits, failures, leases and what is over stay ours. Nothing is launched for demand, and no node is
drained because it is idle.
"""

from __future__ import annotations

from collections import Counter

from heliostat.model.demand import Bundle, Demand
from heliostat.model.instance import Instance, InstanceState, NodeStatus, RayNode
from heliostat.model.plan import Deferred, Launch, Limiter, Plan, Reason, Release, Why
from heliostat.planner.drains import Drains
from heliostat.planner.ledger import Ledger
from heliostat.planner.over import outliving
from heliostat.planner.scale_down import withdrawn
from heliostat.planner.scene import Scene
from heliostat.planner.settle import New, Settlement
from heliostat.planner.supply import Shape, shapes
from heliostat.planner.throttle import throttle
from heliostat.planner.wants import wants_of


def provide(scene: Scene) -> Plan:
    """Return this round's steps for what Ray's autoscaler has asked for and given back.

    Of an ask as much is launched as every limit allows; `deferred` says of the rest what holds it back.
    """
    settlement, refused = _admitted(scene)
    parts = throttle(scene, settlement)
    refused += [
        _deferred(one.new.shape, one.new.count, limiter=one.stop.limiter, text=one.stop.text)
        for one in parts.withheld
    ]
    launches = tuple(_launch(one) for one in parts.launched)
    nodes = _Provided(scene, settlement, ())
    nodes.run()
    return Plan(
        target=_target(scene, launches, nodes.going),
        actions=(*scene.endings, *_withdrawals(scene), *nodes.releases, *nodes.drains, *launches),
        deferred=tuple(refused),
        kept=dict(sorted((nodes.kept | outliving(scene.snapshot, scene.history)).items())),
    )


def _admitted(scene: Scene) -> tuple[Settlement, list[Deferred]]:
    """Return what the hard limits let through of what is asked for, and what they hold back."""
    wants = wants_of(scene)
    kinds = shapes(scene, wants.lens)
    ledger = Ledger(scene)
    new: list[New] = []
    refused: list[Deferred] = []
    for shape in kinds:
        asked = scene.snapshot.asked.get(shape.name, 0)
        count = min(asked, ledger.room(shape.node_type).count)
        if count:
            new.append(New(tuple(f"{shape.name}+{index}" for index in range(count)), shape, Why.RAY_ASKS))
            ledger.add(shape.name, count)
        if count < asked:
            # With what comes now counted, so that the words say by how much the limit is reached.
            room = ledger.room(shape.node_type)
            refused.append(_deferred(shape, asked - count, limiter=room.limiter, text=room.text))
    return Settlement(wants, kinds, tuple(new)), refused


def _deferred(shape: Shape, count: int, *, limiter: Limiter, text: str) -> Deferred:
    wanted = Demand(Bundle(shape.node_type.resources), count)
    return Deferred(wanted, limiter, text, Why.RAY_ASKS, nearest=shape.name)


def _launch(new: New) -> Launch:
    name, count = new.shape.name, new.count
    data = {"type": name, "count": count, "demands": [], "rivals": []}
    return Launch(name, count, Reason(Why.RAY_ASKS, f"Ray's autoscaler asks for {count} of {name}", data))


def _target(scene: Scene, launches: tuple[Launch, ...], going: Counter[str]) -> dict[str, int]:
    launched: Counter[str] = Counter()
    for one in launches:
        launched[one.node_type] += one.count
    names = dict.fromkeys([*(one.name for one in scene.policy.node_types), *sorted(scene.alive)])
    staying = scene.staying_counts
    return {name: staying[name] - going[name] + launched[name] for name in names}


def _withdrawals(scene: Scene) -> list[Release]:
    """Return what is not up yet and was given back, or can't come to be any more."""
    kinds = ((one, scene.withdrawal(one)) for one in scene.coming)
    return [
        Release(one.instance_id, _not_wanted(scene, one, kind))
        for one, kind in kinds
        if kind is not None and scene.known(one)
    ]


def _not_wanted(scene: Scene, one: Instance, kind: str) -> Reason:
    if kind != "removed":
        return withdrawn(scene, one, kind)
    text = f"Ray's autoscaler gives {one.display_name} back before it came up"
    return Reason(Why.RAY_RELEASES, text, {"state": one.state.value})


class _Provided(Drains):
    """Drains what was given back and what is idle at its lease's end; tells work of that end as always."""

    def run(self) -> None:
        for one in sorted(self._in_question(), key=self._dearest):
            node = one.node
            assert node is not None, "what runs or drains is a node of Ray's"
            if self._at_its_end(one, node):
                continue
            idle = one.state is InstanceState.RUNNING and node.status is NodeStatus.IDLE
            kept = self._given_back(one, node) if self.scene.removed(one) else None
            if not self.scene.removed(one) and idle:
                kept = self._left_to_ray(one, node)
            if kept is not None:
                self.kept[one.instance_id] = kept

    def _given_back(self, one: Instance, node: RayNode) -> Reason | None:
        """Drain what Ray's autoscaler gives back. It has done so itself as a rule; Ray's refusal stands."""
        if one.state is InstanceState.DRAINING:
            return Reason(Why.RAY_RELEASES, "given back by Ray's autoscaler, and drains")
        if node.status is not NodeStatus.IDLE:
            text = "given back by Ray's autoscaler; it works, and goes when it is idle"
            return Reason(Why.RAY_RELEASES, text)
        text = f"Ray's autoscaler gives {one.display_name} back, and it is idle"
        return self._drain(one, node, Reason(Why.RAY_RELEASES, text))

    def _left_to_ray(self, one: Instance, node: RayNode) -> Reason | None:
        ends = self._idle_at_its_end(one)
        if ends is not None:
            return self._drain(one, node, ends)
        text = f"idle for {self._idle_s(node):.0f} s; Ray's autoscaler decides when it goes"
        return Reason(Why.RAY_DECIDES, text)
