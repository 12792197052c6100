"""What has to be placed: demand and gangs, merged, filtered and put in order, the hardest first."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import product

from heliostat.model.demand import Bundle, Demand, Gang, GangStrategy, LabelSelector
from heliostat.model.resources import IMPLICIT_RESOURCE, NOTHING, SCALE, Resources
from heliostat.planner.devices import Devices, fresh
from heliostat.planner.limits import SCARCE, SELECTORS_MERGED, SHARE_REPORTS
from heliostat.planner.replacing import ending_work
from heliostat.planner.scene import Scene

# A task inside a placement group waits for the group, not for a node: the gang brings the node.
_OF_A_GROUP = re.compile(r"_group_([0-9]+_)?[0-9a-f]{20,}$")


Labels = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Want:
    """`count` equal bundles to place; `key` is the demand's text or the gang's id, `since_s` its start.

    `replaces`: it works still, on nodes that end soon. `late` are types whose queue is too long for it, and
    `avoids` those of them that it does not count on. `parts` are what a gang on one node is made of, where
    its bundle counts shares of devices as whole ones.
    """

    bundle: Bundle
    count: int
    key: str
    since_s: float
    replaces: bool = False
    late: frozenset[str] = frozenset()
    avoids: frozenset[str] = frozenset()
    parts: tuple[Demand, ...] = ()


@dataclass(frozen=True)
class GangWant:
    """A gang's bundles. `wish` is how it would like to lie, if that can be had: on one node, or apart."""

    gang: Gang
    wants: tuple[Want, ...]
    wish: tuple[Want, ...] = ()


def implicit(name: str) -> int:
    """Return what every node has of a resource, listed or not."""
    return SCALE if name.startswith(IMPLICIT_RESOURCE) else 0


@dataclass(frozen=True)
class Lens:
    """The resources and label keys that any want speaks of.

    Nodes that look the same through it are one state, so that a label or a resource which
    is unique to each node (`ray.io/node-id`, `node:<ip>`) does not make every node a case
    of its own. `marks` are the gangs' anti-affinity marks: Ray shows the mark as a label on
    a node that already holds a part of the gang. `device_columns` are the places in `names` of
    devices of which some want asks a share: only then do single devices matter. Of those in `doubted` some
    node's sum says too much. `types` are the file's.
    """

    names: tuple[str, ...]
    keys: frozenset[str]
    marks: frozenset[str] = frozenset()
    device_columns: tuple[int, ...] = ()
    doubted: frozenset[str] = frozenset()
    types: frozenset[str] = frozenset()

    def free(self, whole: Resources, total: Resources = NOTHING) -> tuple[int, ...]:
        """Return a node's amounts by `names`. Of Ray's implicit resources every node has one that is free,
        unless its `total` lists them: then what is not listed as free is taken."""
        known, listed = whole.by_name, total.by_name
        return tuple([known.get(name, 0 if name in listed else implicit(name)) for name in self.names])

    def asked(self, bundle: Bundle) -> tuple[int, ...]:
        """Return a bundle's amounts by `names`."""
        return tuple([bundle.resources.get(name) for name in self.names])

    def labels(self, whole: Mapping[str, str]) -> Labels:
        if not self.keys:
            return ()
        return tuple(sorted((key, value) for key, value in whole.items() if key in self.keys))

    def taken(self, whole: Mapping[str, str]) -> frozenset[str]:
        return self.marks.intersection(whole) if self.marks else self.marks

    def devices(self, free: tuple[int, ...]) -> tuple[tuple[int, Devices], ...]:
        """Return the single devices of an unused node."""
        return tuple((column, fresh(free[column])) for column in self.device_columns)


@dataclass(frozen=True)
class Wants:
    """All of one round: gangs first, then demand, then the work of nodes that end soon (`endings`), then
    what `request_resources` asks to keep. Of devices that are `doubted` some node's sum may say too much."""

    gangs: tuple[GangWant, ...]
    demands: tuple[Want, ...]
    constraint: tuple[Want, ...]
    endings: tuple[Want, ...] = ()
    types: frozenset[str] = frozenset()
    doubted: frozenset[str] = frozenset()

    @cached_property
    def lens(self) -> Lens:
        wants = [want for gang in self.gangs for want in gang.wants]
        # A gang on one node asks for whole devices, and fills them with shares.
        bundles = [want.bundle for want in wants] + [part.bundle for want in wants for part in want.parts]
        bundles += [want.bundle for want in (*self.demands, *self.endings, *self.constraint)]
        names = tuple(sorted({name for bundle in bundles for name, _ in bundle.resources}))
        shared = {
            name
            for bundle in bundles
            for name, amount in bundle.resources
            if name in SCARCE and amount % SCALE
        }
        selectors = [selector for bundle in bundles for selector in bundle.selectors]
        return Lens(
            names=names,
            keys=frozenset(constraint.key for selector in selectors for constraint in selector),
            marks=frozenset(bundle.anti_affinity for bundle in bundles if bundle.anti_affinity),
            types=self.types,
            doubted=self.doubted.intersection(names),
            device_columns=tuple(index for index, name in enumerate(names) if name in shared),
        )

    def __bool__(self) -> bool:
        return bool(self.gangs or self.demands or self.endings or self.constraint)


def key_of(wanted: Demand | Gang) -> str:
    """Return under what `History.waiting_since` remembers a demand or gang: its text, or its id.

    What waits of a gang may change; its age does not.
    """
    return str(wanted.bundle) if isinstance(wanted, Demand) else wanted.gang_id


def wants_of(scene: Scene) -> Wants:
    """Return what is to be placed in this round, in the planner's order."""
    return Wants(
        gangs=_gangs(scene),
        demands=_ordered(scene, scene.ray.demands),
        constraint=_ordered(scene, scene.ray.constraint.demands if scene.ray.constraint else ()),
        endings=_of_endings(scene),
        types=frozenset(scene.types),
        doubted=frozenset(
            name
            for one in scene.history.shares.values()
            if one.reports >= SHARE_REPORTS
            for name, _ in one.asked
        ),
    )


def _of_endings(scene: Scene) -> tuple[Want, ...]:
    """Return the work of nodes that end soon: it will wait like any other, and finds its place ahead."""
    found = (
        Want(one.demand.bundle, one.demand.count, one.key, scene.now_s, replaces=True)
        for one in ending_work(scene)
    )
    return _hardest_first(scene, found)


def _ordered(scene: Scene, demands: Iterable[Demand]) -> tuple[Want, ...]:
    counts: Counter[Bundle] = Counter()
    for demand in demands:
        if demand.count > 0 and not any(_OF_A_GROUP.search(name) for name, _ in demand.bundle.resources):
            counts[demand.bundle] += demand.count
    found = [_want(scene, bundle, count=count, key=str(bundle)) for bundle, count in counts.items()]
    return _hardest_first(scene, found)


def _want(scene: Scene, bundle: Bundle, *, count: int, key: str) -> Want:
    return Want(bundle, count, key, scene.history.waiting_since.get(key, scene.now_s))


def _hardest_first(scene: Scene, wants: Iterable[Want]) -> tuple[Want, ...]:
    largest = _largest(scene)
    return tuple(sorted(wants, key=lambda want: (*_hardness(want.bundle, largest), want.key)))


def _hardness(bundle: Bundle, largest: Resources) -> tuple[int, int, float]:
    """Scarce resources first, then picky bundles, then big ones: small ones fill what is left."""
    scarce = sum(amount for name, amount in bundle.resources if name in SCARCE)
    picky = len(bundle.selectors) + (bundle.anti_affinity is not None)
    size = max((amount / (largest.get(name) or 1) for name, amount in bundle.resources), default=0.0)
    return (-scarce, -picky, -size)


def _largest(scene: Scene) -> Resources:
    most: dict[str, int] = {}
    for node_type in scene.policy.node_types:
        for name, amount in node_type.resources:
            most[name] = max(most.get(name, 0), amount)
    return Resources.from_scaled(most.items())


def _gangs(scene: Scene) -> tuple[GangWant, ...]:
    unique = {gang.gang_id: gang for gang in scene.ray.gangs if gang.demands}
    found = [GangWant(gang, _of_gang(scene, gang), _wish(scene, gang)) for gang in unique.values()]
    largest = _largest(scene)

    def hardest(gang: GangWant) -> tuple[int, tuple[int, int, float], int, str]:
        first = _hardness(gang.wants[0].bundle, largest)
        return (-int(_spreads(gang.gang)), first, -sum(w.count for w in gang.wants), gang.gang.gang_id)

    return tuple(sorted(found, key=hardest))


def _wish(scene: Scene, gang: Gang) -> tuple[Want, ...]:
    if gang.strategy is GangStrategy.PACK:
        return (_on_one_node(scene, gang),)
    if gang.strategy is GangStrategy.SPREAD:
        apart = _of_gang(scene, replace(gang, strategy=GangStrategy.STRICT_SPREAD))
        return tuple(replace(want, key=key_of(gang)) for want in apart)
    return ()


def _spreads(gang: Gang) -> bool:
    return gang.strategy is GangStrategy.STRICT_SPREAD


def _of_gang(scene: Scene, gang: Gang) -> tuple[Want, ...]:
    key = key_of(gang)
    if gang.strategy is GangStrategy.STRICT_PACK:
        return (_on_one_node(scene, gang),)
    counts: Counter[Bundle] = Counter()
    for demand in gang.demands:
        bundle = demand.bundle
        if _spreads(gang) and bundle.anti_affinity is None:
            bundle = replace(bundle, anti_affinity=gang.gang_id)
        counts[bundle] += demand.count
    wants = (_want(scene, bundle, count=count, key=key) for bundle, count in counts.items())
    return _hardest_first(scene, wants)


def _on_one_node(scene: Scene, gang: Gang) -> Want:
    bundles = [demand.bundle for demand in gang.demands]
    shares = any(amount % SCALE for one in bundles for name, amount in one.resources if name in SCARCE)
    want = _want(scene, merged(gang), count=1, key=key_of(gang))
    return replace(want, parts=gang.demands) if shares else want


def merged(gang: Gang) -> Bundle:
    """Return the one bundle that a gang on one node is: all its resources, all its conditions.

    Shares of devices are counted as the whole devices that they fill, the largest share first.
    """
    total = NOTHING
    ways: list[tuple[LabelSelector, ...]] = []
    for demand in gang.demands:
        total = total.plus(demand.bundle.resources.times(demand.count))
        if demand.bundle.selectors and demand.bundle.selectors not in ways:
            ways.append(demand.bundle.selectors)
    combined = [tuple(part for selector in way for part in selector) for way in product(*ways)]
    return Bundle(_by_whole_devices(gang, total), tuple(combined[:SELECTORS_MERGED]) if ways else ())


def _by_whole_devices(gang: Gang, total: Resources) -> Resources:
    amounts = dict(total)
    for name in SCARCE & amounts.keys():
        parts = sorted(
            (one.bundle.resources.get(name) for one in gang.demands for _ in range(one.count)), reverse=True
        )
        if len(parts) > 1 and any(part % SCALE for part in parts):
            amounts[name] = _devices_filled(parts) * SCALE
    return Resources.from_scaled(amounts.items())


def _devices_filled(parts: Iterable[int]) -> int:
    """Return how many devices the parts fill, each put where it fits first."""
    whole, free = 0, list[int]()
    for part in parts:
        whole += part // SCALE
        share = part % SCALE
        spot = next((index for index, left in enumerate(free) if left >= share), None)
        if share and spot is None:
            free.append(SCALE - share)
        elif share and spot is not None:
            free[spot] -= share
    return whole + len(free)
