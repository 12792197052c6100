"""Where Ray puts work. Pure: nodes in, a choice out.

Tasks and actors follow Ray's hybrid policy (`hybrid_scheduling_policy.h`), placement groups its bundle
policies (`bundle_scheduling_policy.cc`): not to the last score, but in what runs and what must wait,
which `tests/integration/sim` compares with a real Ray.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from heliostat.model.demand import Bundle, GangStrategy, LabelSelector
from heliostat.model.resources import Resources
from heliostat.sim.dice import Stream
from heliostat.sim.world.ray.node import GPU, SimNode

SPREAD_FROM = 0.5
"""Nodes that are used less than this are alike to the hybrid policy (`scheduler_spread_threshold`)."""


def place_for(bundle: Bundle, nodes: Iterable[SimNode], chance: Stream) -> SimNode | None:
    """Return the node that takes the work now; None: it has to wait. Preferred labels come first."""
    open_nodes = [one for one in nodes if one.is_open and one.fits(bundle.resources)]
    for selector in bundle.selectors or ((),):
        fitting = [one for one in open_nodes if _holds(selector, one)]
        if fitting:
            return _hybrid(bundle, fitting, chance)
    return None


def places_of(
    strategy: GangStrategy,
    missing: Mapping[int, Bundle],
    nodes: Sequence[SimNode],
    *,
    others: frozenset[str] = frozenset(),
) -> dict[int, SimNode] | None:
    """Return a node for each missing bundle of a placement group, or None: all or none.

    `others` are the ids of nodes that hold other bundles of the group.
    """
    if strategy is GangStrategy.STRICT_PACK:
        return _all_on_one(missing, nodes)
    room = [_Room(one) for one in nodes if one.is_open]
    apart = strategy is GangStrategy.STRICT_SPREAD
    used = set(others)
    found: dict[int, SimNode] = {}
    for index, bundle in sorted(missing.items(), key=lambda item: _rarest_first(*item)):
        fitting = [one for one in room if one.fits(bundle) and not (apart and one.node.node_id in used)]
        if not fitting:
            return None
        # PACK goes where the group is already; the others go where it is not.
        wanted = strategy is GangStrategy.PACK
        best = min(fitting, key=lambda one: ((one.node.node_id in used) is not wanted, one.node.node_id))
        best.take(bundle)
        used.add(best.node.node_id)
        found[index] = best.node
    return found


class _Room:
    """What is left of a node while a group is tried."""

    def __init__(self, node: SimNode) -> None:
        self.node = node
        self.taken: list[Resources] = []

    def fits(self, bundle: Bundle) -> bool:
        if not bundle.allows(self.node.labels):
            return False
        return fits_all(self.node, [*self.taken, bundle.resources])

    def take(self, bundle: Bundle) -> None:
        self.taken.append(bundle.resources)


def fits_all(node: SimNode, asked: Sequence[Resources]) -> bool:
    """Say whether all of it fits on the node at once, GPUs one by one."""
    if len(asked) == 1:
        return node.fits(asked[0])
    held = []
    for one in asked:
        if not node.fits(one):
            break
        held.append((one, node.take(one)))
    for one, shares in held:
        node.give(one, shares)
    return len(held) == len(asked)


def _all_on_one(missing: Mapping[int, Bundle], nodes: Sequence[SimNode]) -> dict[int, SimNode] | None:
    bundles = list(missing.values())
    for node in sorted(nodes, key=lambda one: one.node_id):
        allowed = node.is_open and all(one.allows(node.labels) for one in bundles)
        if allowed and fits_all(node, [one.resources for one in bundles]):
            return dict.fromkeys(missing, node)
    return None


def _hybrid(bundle: Bundle, fitting: list[SimNode], chance: Stream) -> SimNode:
    """Return one of the best fifth: no GPUs where none is asked, little used, else the fullest last."""
    if len(fitting) == 1:
        return fitting[0]
    if not bundle.resources.get(GPU):
        fitting = [one for one in fitting if not one.gpus] or fitting
    ranked = sorted(fitting, key=lambda one: (_used(one), one.node_id))
    return chance.choice(ranked[: max(1, len(ranked) // 5)])


def _used(node: SimNode) -> float:
    shares = [
        1 - node.free[name] / amount for name, amount in node.member.resources if name in ("CPU", "memory")
    ]
    used = max(shares, default=0.0)
    return 0.0 if used < SPREAD_FROM else used


def _holds(selector: LabelSelector, node: SimNode) -> bool:
    return all(one.holds(node.labels) for one in selector)


def _rarest_first(index: int, bundle: Bundle) -> tuple[int, int, int]:
    return (-bundle.resources.get(GPU), -bundle.resources.get("CPU"), index)
