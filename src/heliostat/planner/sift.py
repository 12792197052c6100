"""What can never be placed, whatever is launched: it costs nothing and stands in nobody's way."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from heliostat.model.demand import Bundle
from heliostat.planner.pool import holds_empty, preference
from heliostat.planner.scene import Scene
from heliostat.planner.supply import Shape, living
from heliostat.planner.wants import GangWant, Want, Wants

Types = frozenset[str] | None
"""Node types that count beside nodes of no type of the file; None: all."""


@dataclass(frozen=True)
class Never:
    """What no node could ever hold. Of a gang: the bundle in the way, and the types within which it is so."""

    demands: tuple[Want, ...]
    constraint: tuple[Want, ...]
    gangs: tuple[tuple[GangWant, Want, Types], ...]


def backends_of(scene: Scene, shapes: Sequence[Shape]) -> Sequence[Types]:
    """Return the sets of types within which a gang is placed: each backend's, or (None) any."""
    backends = dict.fromkeys(shape.node_type.backend for shape in shapes)
    if len(backends) <= 1 or scene.policy.gangs_across_backends:
        return [None]
    return [frozenset(one.name for one in shapes if one.node_type.backend == backend) for backend in backends]


def sifted(scene: Scene, wants: Wants, shapes: Sequence[Shape]) -> tuple[Wants, Never]:
    """Return what may be placed, on what is there or could be launched, and what never can be."""
    sieve = _Sieve(scene, wants, shapes)
    bad = {gang.gang.gang_id: found for gang in wants.gangs if (found := sieve.in_the_way(gang))}
    possible = replace(
        wants,
        gangs=tuple(one for one in wants.gangs if one.gang.gang_id not in bad),
        demands=sieve.split(wants.demands)[0],
        endings=sieve.split(wants.endings)[0],
        constraint=sieve.split(wants.constraint)[0],
    )
    gangs = tuple((one, *bad[one.gang.gang_id]) for one in wants.gangs if one.gang.gang_id in bad)
    return possible, Never(sieve.split(wants.demands)[1], sieve.split(wants.constraint)[1], gangs)


class _Sieve:
    def __init__(self, scene: Scene, wants: Wants, shapes: Sequence[Shape]) -> None:
        self._scene = scene
        self._lens = wants.lens
        self._shapes = shapes
        self._verdicts: dict[tuple[Bundle, Types], bool] = {}

    def split(self, wants: Sequence[Want]) -> tuple[tuple[Want, ...], tuple[Want, ...]]:
        good = [want for want in wants if self._possible(want, None)]
        return tuple(good), tuple(want for want in wants if not self._possible(want, None))

    def in_the_way(self, gang: GangWant) -> tuple[Want, Types] | None:
        """Return the first bundle for which there is no place where most of the gang has one."""
        tried = []
        for types in (None, *backends_of(self._scene, self._shapes)):
            bad = [want for want in gang.wants if not self._possible(want, types)]
            if bad and types is None:
                return bad[0], None
            tried.append((sum(want.count for want in bad), bad, types))
        _, bad, types = min(tried[1:], key=lambda one: one[0])
        return (bad[0], types) if bad else None

    def _possible(self, want: Want, types: Types) -> bool:
        key = (want.bundle, types)
        if key not in self._verdicts:
            shapes = (shape for shape in self._shapes if types is None or shape.name in types)
            self._verdicts[key] = any(shape.holds(want.bundle) for shape in shapes) or self._fits_a_node(*key)
        return self._verdicts[key]

    def _fits_a_node(self, bundle: Bundle, types: Types) -> bool:
        """Say whether a node that is there could hold the bundle when empty; so it may only wait."""
        return any(
            holds_empty(bundle, node.total.by_name)
            and preference(bundle, self._lens.labels(node.labels)) is not None
            for _, node in living(self._scene)
            if types is None or node.node_type in types or node.node_type not in self._lens.types
        )
