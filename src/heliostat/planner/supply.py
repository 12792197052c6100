"""What there is, and what is on its way, as a pool of room."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from operator import itemgetter

from heliostat.model.demand import Bundle
from heliostat.model.instance import InstanceState, NodeStatus, RayNode
from heliostat.model.node_type import NodeType
from heliostat.model.resources import Resources
from heliostat.planner.limits import JOIN_SETTLE_S, NODE_GROUP_LABEL, SCARCE, SHARE_REPORTS
from heliostat.planner.pool import Pool, holds_empty
from heliostat.planner.rows import Kind, Spot
from heliostat.planner.scene import Scene
from heliostat.planner.shares import devices_free
from heliostat.planner.wants import Lens, implicit


@dataclass(frozen=True)
class Shape:
    """A node type as a node of it will look, in full and through the lens."""

    node_type: NodeType
    labels: Mapping[str, str]
    spot: Spot

    @property
    def name(self) -> str:
        return self.node_type.name

    def holds(self, bundle: Bundle) -> bool:
        """Say whether an empty node holds the bundle, labels and single devices included."""
        return bundle.allows(self.labels) and self.roomy(bundle)

    def roomy(self, bundle: Bundle) -> bool:
        """Say whether an empty node has the room, labels aside."""
        return holds_empty(bundle, self.node_type.resources.by_name)

    def has(self, resource: str) -> int:
        """Return what an empty node has, in 1/10000; of Ray's implicit resources every node has one."""
        return self.node_type.resources.by_name.get(resource, implicit(resource))


def shapes(scene: Scene, lens: Lens) -> tuple[Shape, ...]:
    """Return what may be launched at all, in the file's order."""
    return tuple(_shape(scene, one, lens) for one in scene.policy.node_types)


def _shape(scene: Scene, node_type: NodeType, lens: Lens) -> Shape:
    labels = {NODE_GROUP_LABEL: node_type.name} | dict(node_type.labels)
    spot = _spot(Kind.NEW, node_type.name, free=node_type.resources, labels=labels, lens=lens)
    price = scene.prices.get(node_type.name, 0.0)
    spot = replace(spot, devices=lens.devices(spot.free), price_usd_per_h=price, whole=True)
    return Shape(node_type, labels, spot)


def room(scene: Scene, lens: Lens) -> Mapping[Spot, Sequence[str]]:
    """Return what is free now, what comes, and what just-joined nodes may have taken already, by state."""
    groups = _there(scene, lens)
    _add_coming(groups, scene, lens)
    for instance in scene.staying_running:
        joined_s = scene.history.joined_at.get(instance.instance_id)
        if instance.node and joined_s is not None and scene.now_s - joined_s < JOIN_SETTLE_S:
            spot = _just_joined(instance.node, joined_s, lens)
            groups.setdefault(spot, []).append(instance.instance_id)
    return groups


def totals(scene: Scene, lens: Lens, used: frozenset[str]) -> Pool:
    """Return every node whole: what `request_resources` is held against.

    Nodes that work or that demand needs (`used`) come first, so that idle ones may go. What retires is
    left out: it is replaced before it goes.
    """
    groups: dict[Spot, list[str]] = {}
    for member, node in living(scene):
        if member in scene.retiring:
            continue
        busy = node.status is not NodeStatus.IDLE or member in used
        kind = Kind.BUSY if busy else Kind.RUNNING
        spot = _spot(kind, node.node_type, free=node.total, labels=node.labels, lens=lens)
        groups.setdefault(replace(spot, devices=lens.devices(spot.free)), []).append(member)
    _add_coming(groups, scene, lens, used)
    return Pool(lens, groups)


def living(scene: Scene) -> Iterable[tuple[str, RayNode]]:
    """Return every node that may take work, with its name in a pool: busy ones, then the least idle."""
    yield from ((f"node/{node.node_id}", node) for node in scene.foreign)
    idle: list[tuple[float, str, RayNode]] = []
    for instance in scene.staying_running:
        node, member = instance.node, instance.intent.instance_id
        if node is not None and node.status is NodeStatus.IDLE:
            since_s = scene.history.idle_since.get(node.node_id, scene.now_s)
            idle.append((-since_s, member, node))
        elif node is not None:
            yield member, node
    for _, member, node in sorted(idle, key=itemgetter(0, 1)):
        yield member, node


def _add_coming(
    groups: dict[Spot, list[str]], scene: Scene, lens: Lens, used: frozenset[str] = frozenset()
) -> None:
    known = {shape.name: shape.spot for shape in shapes(scene, lens)}
    soonest: dict[tuple[str, Kind], int] = {}
    # A stable sort: what is used comes first, and among equals what is there soonest.
    for instance in sorted(scene.staying_coming, key=lambda one: one.instance_id not in used):
        if instance.node_type in known and not scene.leaving(instance):
            kind = Kind.COMING if instance.state is InstanceState.STARTING else Kind.QUEUED
            turn = soonest.setdefault((instance.node_type, kind), len(soonest))
            spot = replace(known[instance.node_type], kind=kind, turn=turn)
            groups.setdefault(spot, []).append(instance.instance_id)


def _just_joined(node: RayNode, joined_s: float, lens: Lens) -> Spot:
    free = {name: amount - node.available.get(name) for name, amount in node.total}
    taken = Resources.from_scaled((name, max(0, amount)) for name, amount in free.items())
    spot = _spot(Kind.JUST_JOINED, node.node_type, free=taken, labels=node.labels, lens=lens)
    # Not even of Ray's implicit resources is anything taken that no report shows.
    return replace(spot, joined_s=joined_s, free=lens.asked(Bundle(taken)))


def _there(scene: Scene, lens: Lens) -> dict[Spot, list[str]]:
    """Return the living nodes by state. Thousands come by, so a state is made once and found by its facts."""
    known: dict[tuple[object, ...], list[str]] = {}
    spots: dict[Spot, list[str]] = {}
    columns = [(name, implicit(name)) for name in lens.names]
    implied = [name for name, always in columns if always]
    new = {shape.name: shape.spot for shape in shapes(scene, lens)}
    for member, node in living(scene):
        free = dict(node.available.amounts)
        for name in implied:
            if name in node.total.by_name:
                free.setdefault(name, 0)
        facts = (
            node.node_type,
            *[free.get(name, always) for name, always in columns],
            lens.labels(node.labels) if lens.keys else (),
            lens.taken(node.labels) if lens.marks else None,
            SCARCE.intersection(free),
            _shares(scene, node, lens) if lens.device_columns or lens.doubted else None,
        )
        members = known.get(facts)
        if members is None:
            members = known[facts] = spots.setdefault(_node_spot(scene, node, lens, new), [])
        members.append(member)
    return spots


def _node_spot(scene: Scene, node: RayNode, lens: Lens, new: Mapping[str, Spot]) -> Spot:
    """Return a running node's state. Of devices Ray tells the sum only: believed until it is doubted."""
    free, labels = lens.free(node.available, node.total), lens.labels(node.labels)
    scarce, taken = SCARCE.intersection(node.available.by_name), lens.taken(node.labels)
    untouched, doubted = _shares(scene, node, lens)
    devices = lens.devices(free) if untouched else ()
    one, looks = new.get(node.node_type), (free, labels, scarce, taken, devices)
    return Spot(
        kind=Kind.RUNNING,
        node_type=node.node_type,
        free=free,
        labels=labels,
        scarce=scarce,
        taken=taken,
        devices=devices,
        doubted=doubted,
        price_usd_per_h=scene.prices.get(node.node_type, 0.0),
        whole=not doubted
        and one is not None
        and looks == (one.free, one.labels, one.scarce, one.taken, one.devices),
    )


def _shares(scene: Scene, node: RayNode, lens: Lens) -> tuple[bool, tuple[tuple[int, int], ...]]:
    """Return whether all devices of the node are whole (nothing uses them), and what shares are doubted."""
    shared = [lens.names[column] for column in lens.device_columns]
    whole = bool(shared) and all(node.available.get(name) == node.total.get(name) for name in shared)
    known = scene.history.shares.get(node.node_id) if lens.doubted else None
    if known is None or known.reports < SHARE_REPORTS or known.available != devices_free(node):
        return whole, ()
    return whole, tuple(sorted((lens.names.index(n), a) for n, a in known.asked if n in lens.names))


def _spot(kind: Kind, node_type: str, *, free: Resources, labels: Mapping[str, str], lens: Lens) -> Spot:
    return Spot(
        kind=kind,
        node_type=node_type,
        free=lens.free(free),
        labels=lens.labels(labels),
        scarce=SCARCE.intersection(free.by_name),
        taken=lens.taken(labels),
    )
