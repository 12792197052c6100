"""One Ray node: what is free on it, what is on it, and what the GCS was last told of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from heliostat.model.instance import DrainReason, NodeStatus, RayNode
from heliostat.model.resources import NOTHING, SCALE, Resources
from heliostat.sim.world.ends import Cause
from heliostat.sim.world.work import Work

GPU = "GPU"

Shares = tuple[tuple[int, int], ...]
"""Which GPU gives how much of itself, in 1/10000."""


@dataclass(frozen=True)
class Member:
    """Who joins: what `ray start` was told. `gone` is called once when Ray has no such node any more."""

    instance_id: str
    node_type: str
    resources: Resources
    labels: Mapping[str, str] = field(default_factory=dict)
    gone: Callable[[Cause], None] = lambda _: None


@dataclass(frozen=True)
class Draining:
    """That a node is being drained; `deadline_s` is the true time, None where there is none."""

    reason: DrainReason
    deadline_s: float | None


@dataclass(frozen=True, eq=False)
class Cut:
    """One time that a node fell silent, and why it will have ended if it stays so."""

    cause: Cause


class SimNode:
    """The truth of a node. Whoever changes it calls `touch()` first, so that the GCS learns of it late.

    `silent`: its machine is gone or cut off, and the GCS has not noticed; `held_back` is what it would
    say. `held` is what bundles of placement groups
    reserve, by group and index; `pinned` are tasks whose result is in the object store here.
    """

    def __init__(self, node_id: str, member: Member, *, now_s: float, is_head: bool = False) -> None:
        self.node_id = node_id
        self.member = member
        self.is_head = is_head
        self.labels = dict(member.labels)
        self.free: dict[str, int] = dict(member.resources.amounts)
        self.gpus = [SCALE] * (member.resources.get(GPU) // SCALE)
        self.works: dict[int, tuple[Work, Shares]] = {}
        self.held: dict[tuple[str, int], tuple[Resources, Shares]] = {}
        self.pinned: dict[int, Work] = {}
        self.idle_since_s: float | None = now_s
        self.draining: Draining | None = None
        self.silent = False
        self.cut_off: Cut | None = None
        self.held_back: list[Callable[[], None]] = []
        self.death: Cause | None = None
        self._truth: RayNode | None = None
        self._shown: RayNode | None = None
        self._shown_idle_s: float | None = None
        self._due_s: float | None = None
        self._dead: RayNode | None = None

    @property
    def is_alive(self) -> bool:
        return self.death is None

    @property
    def is_open(self) -> bool:
        """Say whether new work may come here."""
        return self.death is None and self.draining is None and not self.silent

    @property
    def is_idle(self) -> bool:
        return not (self.works or self.held or self.pinned)

    # -- resources ----------------------------------------------------------------

    def fits(self, asked: Resources) -> bool:
        free = self.free
        for name, amount in asked.amounts:
            if free.get(name, 0) < amount:
                return False
        return not self.gpus or self._gpu_fits(asked.get(GPU))

    def _gpu_fits(self, amount: int) -> bool:
        """Say whether single GPUs have it: a share is of one GPU, whole ones are quite free."""
        if amount == 0:
            return True
        if amount < SCALE:
            return any(free >= amount for free in self.gpus)
        return sum(free == SCALE for free in self.gpus) * SCALE >= amount

    def take(self, asked: Resources) -> Shares:
        """Take what fits; the answer is for `give`."""
        for name, amount in asked.amounts:
            self.free[name] -= amount
        amount, shares = asked.get(GPU), []
        if 0 < amount < SCALE:
            # The fullest that still has it, as Ray does.
            best = min((free, index) for index, free in enumerate(self.gpus) if free >= amount)
            shares = [(best[1], amount)]
        elif amount:
            whole = [index for index, free in enumerate(self.gpus) if free == SCALE]
            shares = [(index, SCALE) for index in whole[: amount // SCALE]]
        for index, part in shares:
            self.gpus[index] -= part
        return tuple(shares)

    def give(self, asked: Resources, shares: Shares) -> None:
        for name, amount in asked.amounts:
            self.free[name] += amount
        for index, part in shares:
            self.gpus[index] += part

    # -- what the GCS shows ---------------------------------------------------------

    def touch(self, now_s: float, report_s: float) -> None:
        """Keep what the GCS shows until the next report, `report_s` from now, unless one is due already."""
        if self._due_s is None or now_s >= self._due_s:
            self._shown, self._shown_idle_s = self._built(), self.idle_since_s
            self._due_s = now_s + report_s
        self._truth = None

    def seen(self, now_s: float) -> RayNode:
        """Return the node as the GCS shows it now."""
        if self.death is not None:
            return self._seen_dead()
        if self._due_s is not None and now_s < self._due_s and self._shown is not None:
            node, idle_since_s = self._shown, self._shown_idle_s
        else:
            self._due_s = None
            node, idle_since_s = self._built(), self.idle_since_s
        idle_s = 0.0 if idle_since_s is None else now_s - idle_since_s
        if self.draining is not None:
            return replace(node, status=NodeStatus.DRAINING, idle_s=idle_s)
        return node if idle_since_s is None else replace(node, idle_s=idle_s)

    def _built(self) -> RayNode:
        if self._truth is None:
            member = self.member
            self._truth = RayNode(
                node_id=self.node_id,
                status=NodeStatus.RUNNING if self.idle_since_s is None else NodeStatus.IDLE,
                total=member.resources,
                available=Resources(tuple(sorted((key, left) for key, left in self.free.items() if left))),
                instance_id=member.instance_id,
                node_type=member.node_type,
                labels=self.labels | {f"_PG_{gang_id}": "" for gang_id, _ in self.held},
                ip="10.0.0.1",
                activity=tuple(sorted(self.activity())),
                is_head=self.is_head,
            )
        return self._truth

    def _seen_dead(self) -> RayNode:
        if self._dead is None:
            node = self._built()
            self._dead = replace(node, status=NodeStatus.DEAD, available=NOTHING, activity=(), idle_s=0.0)
        return self._dead

    def activity(self) -> list[str]:
        """Return Ray's words for what keeps the node busy."""
        used = [name for name, amount in self.member.resources if self.free[name] < amount]
        words = [f"Resource: {name} currently in use." for name in used]
        words += ["Busy workers on node."] if self.works else []
        return words + (["Resource: object_store_memory currently in use."] if self.pinned else [])
