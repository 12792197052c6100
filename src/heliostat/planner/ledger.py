"""How many more of each type the hard limits allow, and which limit it is that stops."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from heliostat.model.instance import ALIVE, InstanceState, Offer
from heliostat.model.node_type import NodeType
from heliostat.model.plan import Limiter
from heliostat.planner.backoff import backoff_text, on_trial
from heliostat.planner.breaker import breaker_text
from heliostat.planner.limits import BACKEND_PATIENCE_S, ENDLESS, FIRST_TRY
from heliostat.planner.scene import Scene
from heliostat.planner.surge import surge


@dataclass(frozen=True)
class Room:
    """`count` more may be launched; `limiter` and `text` name what allows no more.

    `hold`: the limit is about to be known better, so demand waits for it and does not go
    to another type meanwhile.
    `passing`: it may end by itself, in minutes: what else a gang needs waits a while for that.
    """

    count: int
    limiter: Limiter
    text: str
    hold: bool = False
    passing: bool = False


class Ledger:
    """Counts what is alive plus what this plan adds. Mutable, private to one planning step.

    `later`: it tells what is allowed when limits that pass by themselves are over.
    """

    def __init__(self, scene: Scene, *, later: bool = False) -> None:
        self.scene = scene
        self.added: Counter[str] = Counter()
        self._later = later

    def copy(self, without: Mapping[str, int] | None = None, *, later: bool = False) -> Ledger:
        """Return a ledger of its own; `without` counts per type what it shall not count as there."""
        other = Ledger(self.scene, later=later or self._later)
        other.added = Counter(self.added)
        other.added.subtract(without or {})
        return other

    def add(self, node_type: str, count: int) -> None:
        self.added[node_type] += count

    def room(self, node_type: NodeType) -> Room:
        """Return the tightest limit on the type. Everything not yet gone counts against it."""
        limits = [self.type_room(node_type), self._cluster_max(), self._budget(node_type)]
        return min(limits, key=lambda room: room.count)

    def type_room(self, node_type: NodeType) -> Room:
        """Return the tightest of the limits that are the type's own."""
        limits = self._limits(node_type)
        return min((one for one in limits if not (one.passing and self._later)), key=lambda room: room.count)

    def cluster_room(self) -> int:
        return self._cluster_max().count

    def budget_left(self) -> float | None:
        """Return the $/h that may still be spent; None where there is no limit."""
        most = self.scene.policy.max_cost_usd_per_h
        return None if most is None else most - self._spent()

    def _limits(self, node_type: NodeType) -> list[Room]:
        return [
            self._backend(node_type),
            self._breaker(node_type),
            self._backoff(node_type),
            self._type_max(node_type),
            self._offer(node_type),
        ]

    def _backend(self, node_type: NodeType) -> Room:
        view = self.scene.view(node_type.backend)
        said = f": {view.error}" if view.error else ""
        text = f"backend {node_type.backend} has not answered{said}"
        waiting = view.error is None or self.scene.now_s - view.listed_at_s <= BACKEND_PATIENCE_S
        count = ENDLESS if view.fresh else 0
        return Room(count, Limiter.BACKEND_UNKNOWN, text, hold=waiting, passing=not view.fresh)

    def _breaker(self, node_type: NodeType) -> Room:
        scene, backend = self.scene, node_type.backend
        breaker = scene.history.breakers.get(backend)
        if breaker is None or breaker.until_s is None:
            return Room(ENDLESS, Limiter.BREAKER, "")
        text = breaker_text(backend, breaker, scene.now_s)
        if breaker.is_open(scene.now_s):
            return Room(0, Limiter.BREAKER, text, passing=True)
        added = sum(self.added[one.name] for one in scene.policy.node_types if one.backend == backend)
        return Room(max(0, 1 - scene.probes[backend] - added), Limiter.BREAKER, text, passing=True)

    def _backoff(self, node_type: NodeType) -> Room:
        name, now_s = node_type.name, self.scene.now_s
        backoff = self.scene.history.backoff.get(name)
        if backoff is None or not (backoff.waits(now_s) or on_trial(backoff, now_s)):
            return Room(ENDLESS, Limiter.BACKOFF, "")
        text = f"{name} {backoff_text(backoff, now_s)}: {backoff.last_error}"
        tries = FIRST_TRY - self.scene.retried[name] - self.added[name]
        count = 0 if backoff.waits(now_s) else max(0, tries)
        return Room(count, Limiter.BACKOFF, text, passing=not backoff.permanent)

    def _type_max(self, node_type: NodeType) -> Room:
        alive = self.scene.alive[node_type.name] + self.added[node_type.name]
        most = node_type.max_workers + surge(self.scene, node_type.name)
        text = f"{node_type.name} has {alive} of at most {most} (max_workers of the type)"
        return Room(max(0, most - alive), Limiter.TYPE_MAX_WORKERS, text)

    def _cluster_max(self) -> Room:
        alive = self.scene.alive.total() + self.added.total()
        most = self.scene.policy.max_workers + surge(self.scene)
        text = f"the cluster has {alive} of at most {most} workers (max_workers)"
        return Room(max(0, most - alive), Limiter.MAX_WORKERS, text)

    def _budget(self, node_type: NodeType) -> Room:
        most, price = self.scene.policy.max_cost_usd_per_h, price_of(self.scene, node_type)
        if most is None or price <= 0:
            return Room(ENDLESS, Limiter.BUDGET, "")
        spent = self._spent()
        text = (
            f"{node_type.name} costs {price:g} $/h and {spent:g} of at most {most:g} $/h "
            "are spent (max_cost_usd_per_h)"
        )
        # A hair of tolerance, so that 3 × 0.1 is within 0.3.
        return Room(max(0, int((most - spent) / price + 1e-9)), Limiter.BUDGET, text)

    def _spent(self) -> float:
        """Return $/h of everything not yet gone: what is of a type that has left the file costs on."""
        counts = self.scene.alive + self.added
        return sum(self.scene.price(name) * count for name, count in sorted(counts.items()))

    def _offer(self, node_type: NodeType) -> Room:
        offer = offer_of(self.scene, node_type)
        if offer is None or offer.count is None:
            return Room(ENDLESS, Limiter.CAPACITY, "")
        why = offer.why or f"no more than {offer.count} can be had now"
        left = max(0, offer.count - self.added[node_type.name])
        return Room(left, Limiter.CAPACITY, f"{node_type.name}: {why}", hold=self._in_motion(node_type))

    def _in_motion(self, node_type: NodeType) -> bool:
        """Say whether the backend is starting or stopping something: its offer may be out of date."""
        moving = (InstanceState.REQUESTED, InstanceState.STOPPING)
        return any(
            one.state in moving and one.intent.backend == node_type.backend and one.state in ALIVE
            for one in self.scene.instances
        )


def offer_of(scene: Scene, node_type: NodeType) -> Offer | None:
    return scene.offers.get(node_type.name)


def price_of(scene: Scene, node_type: NodeType) -> float:
    return scene.price(node_type.name)
