"""What works on nodes that end soon, as something to be placed: so that its next node comes ahead."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

from heliostat.model.demand import Bundle, Demand, LabelConstraint, LabelOperator, LabelSelector
from heliostat.model.instance import Instance, InstanceState, NodeStatus, RayNode
from heliostat.model.resources import SCALE, Resources
from heliostat.planner.limits import NAMES_SHOWN, NODE_GROUP_LABEL, SCARCE
from heliostat.planner.scene import Scene

_LEAVING = (
    InstanceState.DRAINING,
    InstanceState.STOPPING,
    InstanceState.GONE,
    InstanceState.FAILED,
)
_ANYWHERE: LabelSelector = ()
_AT_WORK = frozenset({NodeStatus.RUNNING, NodeStatus.DRAINING})


@dataclass(frozen=True)
class Ending:
    """Work on nodes that end soon and use the same of the same type.

    `demand` has one bundle for each of `nodes`, all that is used there, so that no node is
    replaced by more than one. `key` names the work in words; no two have the same.
    """

    demand: Demand
    key: str
    nodes: tuple[Instance, ...]


def ending_work(scene: Scene) -> tuple[Ending, ...]:
    """Return what is to be planned for beside Ray's demand: the work of nodes that will be taken from it.

    These are nodes whose lease is nearly over, and those that drain though they work: Ray was told
    that they are preempted. What was removed by hand is not replaced; nor is what no node type of
    the file could hold. Ray says nothing of the work's labels, so a node of the same type comes
    first, and then any other. The bundles never equal those of a demand of Ray's.
    """
    groups: dict[Bundle, list[Instance]] = {}
    for one in _candidates(scene):
        if one.node is not None and _ends(scene, one, one.node):
            bundle = _work(scene, one, one.node)
            if bundle is not None:
                groups.setdefault(bundle, []).append(one)
    return tuple(
        Ending(Demand(bundle, len(nodes)), f"what works on {names_of(nodes)}", tuple(nodes))
        for bundle, nodes in groups.items()
    )


def _candidates(scene: Scene) -> list[Instance]:
    """Return all that may end, by instance id: most nodes have no end that is known."""
    left = scene.in_states(*_LEAVING)
    found = {one.instance_id: one for one in chain(scene.snapshot.leased, left)}
    return [found[key] for key in sorted(found)]


def names_of(nodes: Sequence[Instance]) -> str:
    """Return the names people use, three at most, and how many more there are."""
    names = [one.display_name for one in nodes[:NAMES_SHOWN]]
    more = len(nodes) - len(names)
    return ", ".join(names) + (f" and {more} more" if more else "")


def _ends(scene: Scene, one: Instance, node: RayNode) -> bool:
    # Ray's word counts, not ours: until Ray calls a node dead, its work is not demand again, though
    # we have released it, or its machine has gone.
    if node.status not in _AT_WORK or scene.removed(one):
        return False
    return scene.expiring(one) or node.status is NodeStatus.DRAINING


def _work(scene: Scene, one: Instance, node: RayNode) -> Bundle | None:
    """Return all that is used on the node as one bundle; None if it is nothing, or fits no type."""
    shapes = [kind.resources for kind in scene.policy.node_types]
    names = {name for shape in shapes for name, _ in shape}
    # Of a placement group Ray tells its reserved names too; what the file knows is enough.
    used = ((name, total - node.available.get(name)) for name, total in node.total if name in names)
    taken = Resources.from_scaled((name, _whole(name, amount)) for name, amount in used if amount > 0)
    if not taken or not any(taken.fits_in(shape) for shape in shapes):
        return None
    return Bundle(taken, _selectors(scene, one.node_type))


def _whole(name: str, amount: int) -> int:
    """Return the devices that shares of several add up to, as whole ones: Ray tells the sum only."""
    return -(-amount // SCALE) * SCALE if name in SCARCE and amount > SCALE else amount


def _selectors(scene: Scene, node_type: str) -> tuple[LabelSelector, ...]:
    if node_type not in scene.types:
        return (_ANYWHERE,)
    return ((LabelConstraint(NODE_GROUP_LABEL, LabelOperator.IN, (node_type,)),), _ANYWHERE)
