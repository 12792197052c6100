"""When waiting is worth more than money: which node types come too late for what waits.

`patience_s` of a node type says how long work may wait for it. Beyond that, types that are there in
time go first, whatever they cost; what queues already is kept beside them, and given back
when the work has found its place (hedging). Without `patience_s` waiting costs nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from statistics import median

from heliostat.model.instance import InstanceState
from heliostat.model.node_type import NodeType
from heliostat.planner.ledger import Ledger
from heliostat.planner.pool import holds_empty, preference
from heliostat.planner.scene import Scene
from heliostat.planner.supply import Shape
from heliostat.planner.wants import Want

_WAITING = (InstanceState.REQUESTED, InstanceState.QUEUED)


class Patience:
    """What is late for whom, in one round."""

    def __init__(self, scene: Scene, shapes: Sequence[Shape]) -> None:
        self._scene = scene
        self._shapes = shapes

    @cached_property
    def _queued(self) -> dict[str, float]:
        """Return per type with patience when the first of what queues there is expected."""
        found: dict[str, float] = {}
        for one in self._scene.in_states(*_WAITING):
            node_type = self._scene.types.get(one.node_type)
            if node_type is not None and node_type.patience_s > 0:
                expected_s = one.row.expected_start_s if one.row else None
                at_s = self._scene.now_s if expected_s is None else expected_s
                found[one.node_type] = min(found.get(one.node_type, at_s), at_s)
        return found

    def late_if_asked(self, node_type: NodeType, want: Want) -> bool:
        """Say whether an instance that is asked for now would come later than the user will wait."""
        return node_type.patience_s > 0 and self._late(node_type, want, self._if_asked_s(node_type))

    def _if_asked_s(self, node_type: NodeType) -> float:
        offer = self._scene.offers.get(node_type.name)
        at_s = offer.ready_at_s if offer else None
        if at_s is None:
            at_s = self._scene.now_s + median(self._scene.history.start_s.get(node_type.name, (0.0,)))
        # Whatever is promised: what is asked for now does not overtake what queues already.
        return max(at_s, self._queued.get(node_type.name, at_s))

    def _late(self, node_type: NodeType, want: Want, at_s: float) -> bool:
        return max(at_s, self._scene.now_s) - want.since_s > node_type.patience_s

    def started(self, wants: Sequence[Want]) -> frozenset[str]:
        """Return the types of which something starts, where another that is asked for now would be late.

        Its wait is over, so it is used before what would be asked for instead.
        """
        names = {one.node_type for one in self._scene.in_states(InstanceState.STARTING)}
        types = [one for one in self._scene.policy.node_types if one.patience_s > 0 and one.name in names]
        return frozenset(one.name for one in types if any(self.late_if_asked(one, want) for want in wants))

    def hedged(self, wants: Iterable[Want], ledger: Ledger) -> list[Want]:
        """Return the wants, each with the types whose queued instances it does not count on (`avoids`).

        These are late for it, and a type of no lower priority, that suits its labels as well, could be
        there in time.
        """
        if not self._queued:
            return list(wants)
        ranked = ((want, *self._ranks(want, ledger)) for want in wants)
        return [
            replace(want, late=frozenset(late), avoids=_avoided(late, in_time))
            for want, late, in_time in ranked
        ]

    def _ranks(self, want: Want, ledger: Ledger) -> tuple[dict[str, tuple[int, int]], list[tuple[int, int]]]:
        """Return how well types suit the want that queue too long for it, and those that will be in time."""
        late, in_time = dict[str, tuple[int, int]](), list[tuple[int, int]]()
        for shape in self._shapes:
            liked = preference(want.bundle, shape.spot.labels)
            if liked is None or not holds_empty(want.bundle, shape.node_type.resources.by_name):
                continue
            rank = (liked, -shape.node_type.priority)
            queued_s = self._queued.get(shape.name)
            if queued_s is not None and self._late(shape.node_type, want, queued_s):
                late[shape.name] = rank
            elif not self.late_if_asked(shape.node_type, want) and self._to_be_had(shape, ledger):
                in_time.append(rank)
        return late, in_time

    def _to_be_had(self, shape: Shape, ledger: Ledger) -> bool:
        comes = any(one.node_type == shape.name for one in self._scene.staying_coming)
        return comes or ledger.added[shape.name] > 0 or ledger.room(shape.node_type).count > 0


def _avoided(late: Mapping[str, tuple[int, int]], in_time: Sequence[tuple[int, int]]) -> frozenset[str]:
    best = min(in_time, default=None)
    return frozenset(name for name, rank in late.items() if best is not None and best <= rank)
