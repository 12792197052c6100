"""A small pure world for the planner: Ray, backends and the journal as plain values, and a manual clock.

`running`, `coming` and `asked` set a scene by hand; `round` folds and plans once. `obey` and `tick`
let the world go on by itself: what is launched comes up, what Ray can place it places, by `placer`'s rules.
`step` is a `tick` of one instance only, so that they come up in any order.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, field, replace
from random import Random

from heliostat.model.demand import (
    Bundle,
    Constraint,
    Demand,
    Gang,
    GangStrategy,
    LabelConstraint,
    LabelOperator,
)
from heliostat.model.history import History
from heliostat.model.instance import (
    BackendInstance,
    BackendState,
    InstanceIntent,
    Intent,
    NodeStatus,
    Offer,
    RayNode,
)
from heliostat.model.node_type import NodeType, Policy
from heliostat.model.plan import Drain, Launch, Plan, Release, Why
from heliostat.model.rejection import Answer
from heliostat.model.resources import Resources
from heliostat.model.snapshot import BackendView, OperatorSettings, RayState, Snapshot
from heliostat.planner import fold, plan
from tests.unit.planner.placer import Bin, Block, put_somewhere, whole_devices

NOW_S = 10_000.0
LONG_AGO_S = 500.0
RISES = {BackendState.QUEUED: BackendState.STARTING, BackendState.STARTING: BackendState.RUNNING}


def kind(name: str = "cpu", cpus: float = 4, gpus: float = 0, **changed: object) -> NodeType:
    resources = Resources.of({"CPU": cpus, "GPU": gpus})
    base = NodeType(name, "fake", resources, f"shape-{name}", max_workers=10)
    return replace(base, **changed)  # type: ignore[arg-type]


def policy(*types: NodeType, **changed: object) -> Policy:
    base = Policy(types or (kind(),), max_workers=20, idle_timeout_s=60.0, upscaling_speed=0)
    return replace(base, **changed)  # type: ignore[arg-type]


def bundle(where: str = "", **units: float) -> Bundle:
    """`where`: "zone=a" asks for a label, "zone=a|zone=b" has a fallback, "zone!a" refuses one."""
    ways = [way for way in where.split("|") if way]
    return Bundle(Resources.of(units), tuple((_condition(way),) for way in ways))


def _condition(way: str) -> LabelConstraint:
    operator = LabelOperator.NOT_IN if "!" in way else LabelOperator.IN
    key, _, value = way.replace("!", "=").partition("=")
    return LabelConstraint(key, operator, (value,))


def demand(count: int, where: str = "", **units: float) -> Demand:
    return Demand(bundle(where, **(units or {"CPU": 1})), count)


def gang(strategy: GangStrategy, *demands: Demand, name: str = "a") -> Gang:
    return Gang(f"{name * 8}00112233445566778899aabbccdd", strategy, demands)


@dataclass
class World:
    policy: Policy = field(default_factory=policy)
    demands: tuple[Demand, ...] = ()
    gangs: tuple[Gang, ...] = ()
    constraint: tuple[Demand, ...] = ()
    operator: OperatorSettings = field(default_factory=OperatorSettings)
    offers: tuple[Offer, ...] = ()
    answers: tuple[Answer, ...] = ()
    drains: dict[str, Why] = field(default_factory=dict)
    refused: frozenset[str] = frozenset()
    utc_offset_s: float = 0.0
    silent: dict[str, str] = field(default_factory=dict)
    listed_at_s: float | None = None
    ray_answers: bool = True
    now_s: float = NOW_S
    intents: dict[str, InstanceIntent] = field(default_factory=dict)
    rows: dict[str, BackendInstance] = field(default_factory=dict)
    nodes: dict[str, RayNode] = field(default_factory=dict)
    work: dict[str, list[Bundle]] = field(default_factory=dict)
    made: int = 0

    def __post_init__(self) -> None:
        # Types are known to work, so that the first-success throttle is a test's own choice.
        self.history = History(proven={one.name: one.shape_id for one in self.policy.node_types})

    def _kind(self, one: str) -> NodeType:
        name = self.intents[one].node_type
        return self.policy.node_type(name) or kind(name)

    # Setting a scene.

    def asked(self, name: str = "cpu", *, ago_s: float = LONG_AGO_S) -> str:
        """Journal one instance that no listing has."""
        self.made += 1
        instance_id = f"l{self.made:03d}.0"
        node_type = self.policy.node_type(name) or kind(name)
        self.intents[instance_id] = InstanceIntent(
            instance_id=instance_id,
            launch_id=instance_id.split(".", maxsplit=1)[0],
            node_type=name,
            backend=node_type.backend,
            shape_id=node_type.shape_id,
            intent=Intent.WANTED,
            requested_at_s=self.now_s - ago_s,
            reason="a test wants it",
        )
        return instance_id

    def coming(
        self, name: str = "cpu", state: BackendState = BackendState.QUEUED, *, ago_s: float = LONG_AGO_S
    ) -> str:
        one = self.asked(name, ago_s=ago_s)
        self.rows[one] = BackendInstance(one, f"w{self.made}", name, state)
        return one

    def running(
        self, name: str = "cpu", *, used: Mapping[str, float] | None = None, idle_s: float = 0.0
    ) -> str:
        """Put a node that joined long ago and has been reported idle, or working, many times."""
        one = self.coming(name, BackendState.RUNNING)
        self.join(one, Resources.of(used or {}), idle_s=idle_s)
        if used:
            self.work[f"n-{one}"] = [Bundle(Resources.of(used))]
        self.history = replace(
            self.history,
            joined_at={**self.history.joined_at, one: self.now_s - LONG_AGO_S},
            reports={**self.history.reports, f"n-{one}": 0 if used else 5},
            rounds_at_s=self.now_s,
        )
        return one

    def give_up(self, one: str) -> None:
        self.intents[one] = replace(
            self.intents[one], intent=Intent.RELEASED, released_at_s=self.now_s, release_reason="a test"
        )

    def foreign(self, *, used: Mapping[str, float] | None = None, **units: float) -> None:
        total = Resources.of(units)
        free = total.minus(Resources.of(used or {}))
        name = f"foreign-{len(self.nodes)}"
        self.nodes[name] = RayNode(name, NodeStatus.RUNNING if used else NodeStatus.IDLE, total, free)
        if used:
            self.work[name] = [Bundle(Resources.of(used))]

    def join(self, one: str, used: Resources, *, idle_s: float = 0.0) -> None:
        """Let the instance's node show up in Ray, with `used` of it taken."""
        node_type = self._kind(one)
        self.nodes[f"n-{one}"] = RayNode(
            f"n-{one}",
            NodeStatus.RUNNING if used else NodeStatus.IDLE,
            node_type.resources,
            node_type.resources.minus(used),
            instance_id=one,
            node_type=node_type.name,
            labels=dict(node_type.labels),
            idle_s=idle_s,
        )

    def change_row(self, one: str, **changed: object) -> None:
        self.rows[one] = replace(self.rows[one], **changed)  # type: ignore[arg-type]

    def change_node(self, one: str, **changed: object) -> None:
        self.nodes[f"n-{one}"] = replace(self.nodes[f"n-{one}"], **changed)  # type: ignore[arg-type]

    # Looking at it.

    def snapshot(self) -> Snapshot:
        names = {one.backend for one in self.policy.node_types} | {i.backend for i in self.intents.values()}
        ray = RayState(
            1,
            "session",
            tuple(self.nodes.values()),
            self.demands,
            self.gangs,
            Constraint(self.constraint) if self.constraint else None,
        )
        return Snapshot(
            self.now_s,
            ray if self.ray_answers else None,
            {name: self._view(name) for name in names},
            tuple(self.intents.values()),
            self.operator,
            self.drains,
            self.refused,
            self.utc_offset_s,
        )

    def _view(self, name: str) -> BackendView:
        silent = name in self.silent
        return BackendView(
            rows=tuple(row for one, row in self.rows.items() if self.intents[one].backend == name),
            listed_at_s=self.listed_at_s or (self.now_s - 5 if silent else self.now_s),
            fresh=not silent,
            error=self.silent.get(name),
            offers=self.offers,
            answers=self.answers if name == "fake" else (),
        )

    def round(self, after_s: float = 1.0) -> Plan:
        self.now_s += after_s
        snapshot, self.answers = self.snapshot(), ()
        self.history = fold(self.history, snapshot, self.policy)
        return plan(snapshot, self.history, self.policy)

    def rounds(self, count: int) -> Plan:
        return [self.round() for _ in range(count)][-1]

    # Letting it go on.

    def obey(self, made: Plan) -> None:
        """Do what the plan says, as the control loop does; Ray refuses to drain what works."""
        self.drains |= drained(made)
        for action in made.actions:
            if isinstance(action, Launch):
                whole = action.reason.why is Why.GANG and action.count > 1
                allocation_id = f"a{self.made}" if whole else None
                for _ in range(action.count):
                    self.change_row(self.coming(action.node_type, ago_s=0), allocation_id=allocation_id)
            elif isinstance(action, Release):
                self.rows.pop(action.instance_id, None)
                self.nodes.pop(f"n-{action.instance_id}", None)
                del self.intents[action.instance_id]
            elif not self.work.get(action.node_id):
                self.change_node(action.instance_id, status=NodeStatus.DEAD)

    def tick(self, *, places: bool) -> None:
        """Let every instance take one step towards its node; with `places`, let Ray give out work."""
        for one in list(self.rows):
            self._rise(one)
        if places:
            self.place()

    def step(self, chance: Random) -> None:
        """Let one instance that is not up yet, whichever, take one step towards its node."""
        rising = [one for one, row in self.rows.items() if row.state in RISES or f"n-{one}" not in self.nodes]
        if rising:
            self._rise(chance.choice(sorted(rising)))

    def _rise(self, one: str) -> None:
        state = self.rows[one].state
        if state in RISES:
            self.change_row(one, state=RISES[state])
        elif f"n-{one}" not in self.nodes:
            self.join(one, Resources())

    def place(self) -> None:
        """Let Ray give out all work for which it finds room: gangs whole, then bundle after bundle."""
        living = [n for n in self.nodes.values() if n.status in {NodeStatus.RUNNING, NodeStatus.IDLE}]
        bins = [self._bin(node) for node in living]
        self.gangs = tuple(one for one in self.gangs if not self._starts(one, living, bins))
        left = []
        for one in self.demands:
            placed = 0
            while placed < one.count and (index := put_somewhere(bins, one.bundle)) is not None:
                placed += 1
                self.work.setdefault(living[index].node_id, []).append(one.bundle)
            left.append(replace(one, count=one.count - placed))
        self.demands = tuple(one for one in left if one.count)
        for node, place in zip(living, bins, strict=True):
            free = Resources.from_scaled(place.free.items())
            status = NodeStatus.RUNNING if self.work.get(node.node_id) else NodeStatus.IDLE
            self.nodes[node.node_id] = replace(node, available=free, status=status)

    def _bin(self, node: RayNode) -> Bin:
        """Return a node with its single devices, which Ray knows and does not report."""
        place = Bin(dict(node.total), dict(node.labels), devices=whole_devices(dict(node.total)))
        for one in self.work.get(node.node_id, ()):
            place.take(one)
        place.free = dict(node.available)
        return place

    def _starts(self, group: Gang, living: list[RayNode], bins: list[Bin]) -> bool:
        """Place the whole gang, or nothing of it; say which. If there is any way, it is found."""
        found = _places(bins, blocks_of(group))
        if found is None:
            return False
        for index, block in found:
            for one in block:
                bins[index].take(one)
                self.work.setdefault(living[index].node_id, []).append(one)
        return True

    def finish_work(self) -> None:
        self.work.clear()
        for name, node in self.nodes.items():
            if node.status is NodeStatus.RUNNING:
                self.nodes[name] = replace(node, available=node.total, status=NodeStatus.IDLE)


def _places(bins: list[Bin], blocks: list[Block]) -> list[tuple[int, Block]] | None:
    """Return a bin for each block, the first that go together; None where no bins do."""
    if not blocks:
        return []
    for index in range(len(bins)):
        trial = deepcopy(bins)
        if _holds_all(trial[index], blocks[0]):
            rest = _places(trial, blocks[1:])
            if rest is not None:
                return [(index, blocks[0]), *rest]
    return None


def _holds_all(place: Bin, block: Block) -> bool:
    for one in block:
        if not place.holds(one):
            return False
        place.take(one)
    return True


def blocks_of(group: Gang) -> list[Block]:
    """Return the gang's bundles, together where they have to be on one node, the largest first."""
    parts = sorted(
        (part.bundle for part in group.demands for _ in range(part.count)),
        key=lambda one: (-one.resources.get("GPU"), -one.resources.get("CPU")),
    )
    if group.strategy is GangStrategy.STRICT_PACK:
        return [tuple(parts)]
    if group.strategy is GangStrategy.STRICT_SPREAD:
        parts = [replace(one, anti_affinity=group.gang_id) for one in parts]
    return [(one,) for one in parts]


def launched(made: Plan) -> dict[str, int]:
    counts: Counter[str] = Counter()
    for one in launches(made):
        counts[one.node_type] += one.count
    return dict(counts)


def launches(made: Plan) -> list[Launch]:
    return [one for one in made.actions if isinstance(one, Launch)]


def released(made: Plan) -> dict[str, Why]:
    return {one.instance_id: one.reason.why for one in made.actions if isinstance(one, Release)}


def drained(made: Plan) -> dict[str, Why]:
    return {one.instance_id: one.reason.why for one in drains(made)}


def drains(made: Plan) -> list[Drain]:
    return [one for one in made.actions if isinstance(one, Drain)]


def limiters(made: Plan) -> list[str]:
    return [one.limiter.name for one in made.deferred]
