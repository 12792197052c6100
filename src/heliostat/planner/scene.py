"""One round's world, parsed once: instances with their states, counts per type, and what is ending."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import chain

from heliostat.model.history import Breaker, History
from heliostat.model.instance import (
    ALIVE,
    GOING,
    ON_THE_WAY,
    Instance,
    InstanceState,
    Intent,
    NodeStatus,
    Offer,
    RayNode,
)
from heliostat.model.node_type import NodeType, Policy
from heliostat.model.plan import Release
from heliostat.model.snapshot import BackendView, OperatorSettings, RayState, Snapshot
from heliostat.planner.leases import Lease, lease_of
from heliostat.planner.limits import HELD_FOR_GANG_S, RETRY_S
from heliostat.planner.over import endings
from heliostat.planner.surge import retiring, surge

UNSEEN = BackendView()

# What is likely to be there soonest comes first.
_SOONEST = {
    InstanceState.STARTING: 0,
    InstanceState.REQUESTED: 1,
    InstanceState.QUEUED: 2,
    InstanceState.UNKNOWN: 3,
}


@dataclass(frozen=True)
class Scene:
    """A snapshot, joined. `ray` is there: without it nothing but endings is planned.

    `endings` releases what is over; none of it is supply any more.
    """

    now_s: float
    ray: RayState
    snapshot: Snapshot
    policy: Policy
    history: History
    operator: OperatorSettings
    endings: tuple[Release, ...] = ()

    @cached_property
    def ended(self) -> frozenset[str]:
        return frozenset(one.instance_id for one in self.endings)

    @cached_property
    def ended_instances(self) -> tuple[Instance, ...]:
        return tuple(one for one in self.instances if one.instance_id in self.ended) if self.ended else ()

    @cached_property
    def types(self) -> Mapping[str, NodeType]:
        return {one.name: one for one in self.policy.node_types}

    @property
    def instances(self) -> tuple[Instance, ...]:
        return self.snapshot.instances

    def in_states(self, *states: InstanceState) -> Iterator[Instance]:
        return chain.from_iterable(self.snapshot.by_state[state] for state in states)

    @cached_property
    def offers(self) -> Mapping[str, Offer]:
        """Return what backends offer just now, by node type."""
        views = (self.view(name) for name in sorted({one.backend for one in self.policy.node_types}))
        found = (offer for view in views for offer in view.offers if offer.node_type in self.types)
        return {offer.node_type: offer for offer in found}

    @cached_property
    def prices(self) -> Mapping[str, float]:
        """Return $/h of one instance per type: what the backend offers now, else what the file says."""
        offered = {name: offer.price_usd_per_h for name, offer in self.offers.items()}
        return {
            name: node_type.price_usd_per_h if offered.get(name) is None else offered[name] or 0.0
            for name, node_type in self.types.items()
        }

    def price(self, node_type: str) -> float:
        """Return $/h of one instance; of a type that the file no longer has, what was last known."""
        return self.prices.get(node_type, self.history.prices.get(node_type, 0.0))

    @cached_property
    def alive(self) -> Counter[str]:
        """Count per type everything not yet gone: what every maximum is measured against."""
        counts = self.snapshot.counts
        return sum((counts[state] for state in InstanceState if state in ALIVE), Counter())

    @property
    def running(self) -> tuple[Instance, ...]:
        return self.snapshot.by_state[InstanceState.RUNNING]

    @cached_property
    def coming(self) -> tuple[Instance, ...]:
        """Return what is on its way, the soonest first. UNKNOWN counts: it is not gone."""
        found = [one for one in self.in_states(*_SOONEST) if is_coming(one)]
        return tuple(sorted((one for one in found if one.instance_id not in self.ended), key=soonest))

    @cached_property
    def retried(self) -> Counter[str]:
        """Count per type what is on its way and was asked for after the type's last wait."""
        waits = self.history.backoff
        again = (one for one in self.coming if one.node_type in waits)
        return Counter(
            one.node_type for one in again if one.intent.requested_at_s >= waits[one.node_type].until_s
        )

    @cached_property
    def half_open(self) -> Mapping[str, Breaker]:
        """Return the breakers, by backend, that let one launch through."""
        return {n: one for n, one in self.history.breakers.items() if one.is_half_open(self.now_s)}

    @cached_property
    def probes(self) -> Counter[str]:
        """Count per backend that is half open what is on its way and was asked for since it is."""
        since = {name: one.until_s or 0.0 for name, one in self.half_open.items()}
        asked = (one.intent for one in self.coming if one.intent.backend in since)
        return Counter(one.backend for one in asked if one.requested_at_s >= since[one.backend])

    @cached_property
    def gone_soon(self) -> frozenset[str]:
        """Return the ids of what is `leaving`; only what has an end or is to be removed can be."""
        removed = (one for one in self.instances if one.instance_id in self.operator.removals)
        candidates = chain(self.snapshot.leased, removed if self.operator.removals else ())
        return frozenset(one.instance_id for one in candidates if self.leaving(one))

    @cached_property
    def staying_counts(self) -> Counter[str]:
        """Count per type what is there or on its way, and neither as good as gone nor retiring."""
        counts = Counter(self.snapshot.counts[InstanceState.RUNNING])
        if self.gone_soon:
            counts = Counter(one.node_type for one in self.staying_running)
        if self.retiring:
            counts.subtract(one.node_type for one in self.running if one.instance_id in self.retiring)
        counts.update(one.node_type for one in self.staying_coming if one.instance_id not in self.gone_soon)
        return counts

    @cached_property
    def staying_coming(self) -> tuple[Instance, ...]:
        return tuple(one for one in self.coming if self.withdrawal(one) is None)

    @property
    def unseen_coming(self) -> tuple[Instance, ...]:
        """Return what counts as on its way, and may be gone: its backend was not heard. It holds no floor."""
        return tuple(one for one in self.staying_coming if one.state is InstanceState.UNKNOWN)

    @cached_property
    def staying_running(self) -> tuple[Instance, ...]:
        gone = self.gone_soon
        return tuple([one for one in self.running if one.intent.instance_id not in gone])

    @cached_property
    def foreign(self) -> tuple[RayNode, ...]:
        """Return living nodes that are not ours, the head among them: supply, never touched."""
        ours = {one.intent.instance_id for one in self.instances}
        living = (NodeStatus.RUNNING, NodeStatus.IDLE)
        found = [one for one in self.ray.nodes if one.status in living and one.instance_id not in ours]
        return tuple(sorted(found, key=lambda node: node.node_id))

    def view(self, backend: str) -> BackendView:
        return self.snapshot.backends.get(backend, UNSEEN)

    def known(self, instance: Instance) -> bool:
        """Say whether the instance's backend answered, so that something may be asked of it."""
        return self.view(instance.intent.backend).fresh

    def drifted(self, instance: Instance) -> bool:
        """Say whether the policy no longer has the shape that the instance was started with."""
        node_type = self.types.get(instance.node_type)
        return node_type is None or instance.intent.shape_id != node_type.shape_id

    def protected(self, instance: Instance) -> bool:
        return instance.instance_id in self.operator.protected

    def removed(self, instance: Instance) -> bool:
        """Say whether a person wants it gone. Protection by hand is the stronger word."""
        return instance.instance_id in self.operator.removals and not self.protected(instance)

    def leaving(self, instance: Instance) -> bool:
        """Say whether a running node is as good as gone: removed by hand, or its lease ends soon."""
        return self.expiring(instance) or self.removed(instance)

    @cached_property
    def leases(self) -> Mapping[str, Lease]:
        found = ((one.instance_id, lease_of(one, self.history)) for one in self.snapshot.leased)
        return {instance_id: lease for instance_id, lease in found if lease is not None}

    @cached_property
    def just_ended(self) -> tuple[str, ...]:
        """Return what had to leave a moment ago, since its lease ends: Ray shows its work anew only soon."""
        over_s = ((one, self.now_s - lease.deadline_s) for one, lease in self.leases.items())
        return tuple(sorted(one for one, ago_s in over_s if 0 <= ago_s < RETRY_S))

    def expiring(self, instance: Instance) -> bool:
        """Say whether the instance's lease is so near its end that nothing new is planned for it."""
        lease = self.leases.get(instance.instance_id)
        return lease is not None and self.now_s >= lease.near_at_s

    @cached_property
    def ending(self) -> Counter[str]:
        """Count per type what is not yet gone and will end, by its lease or because it has drifted.

        `max_surge` allows something beside it.
        """
        alive = (one for one in self.instances if one.state in ALIVE)
        return Counter(one.node_type for one in alive if self.expiring(one) or self._outdated(one))

    @cached_property
    def retiring(self) -> frozenset[str]:
        """Return nodes of an old shape that floors and `request_resources` do not count any more."""
        if self.policy.max_surge <= 0:
            return frozenset()
        return retiring(
            (one for one in self.running if self._outdated(one) and not self.leaving(one)),
            going=self.drifted_going,
            max_surge=self.policy.max_surge,
            idle_since=self.history.idle_since,
        )

    @property
    def drifted_going(self) -> Counter[str]:
        """Count per type what is of an old shape and on its way out."""
        return Counter(one.node_type for one in self.in_states(*GOING) if self.drifted(one))

    def _outdated(self, instance: Instance) -> bool:
        """Say whether it leaves because it has drifted: what a person protects does not."""
        return self.drifted(instance) and not self.protected(instance)

    def withdrawal(self, instance: Instance) -> str | None:
        """Say why something on its way is not wanted any more: `removed`, `drift`, `failing`, `over`."""
        if self.protected(instance) or instance.state is InstanceState.UNKNOWN:
            return None
        unwanted = self._unwanted(instance)
        return "over" if unwanted is None and instance.instance_id in self._surplus else unwanted

    def _unwanted(self, instance: Instance) -> str | None:
        """Say why something on its way goes whatever maximum there is."""
        if self.protected(instance) or instance.state is InstanceState.UNKNOWN:
            return None
        if self.removed(instance):
            return "removed"
        if self.drifted(instance):
            return "drift"
        return "failing" if self._failing(instance) else None

    def _failing(self, instance: Instance) -> bool:
        """Say whether it waits behind others of its launch that began and failed, the first of their type."""
        if instance.row is None or not instance.row.throttled or instance.state is not InstanceState.QUEUED:
            return False
        proven = self.history.has_come_up(instance.node_type, instance.intent.shape_id)
        return not proven and instance.intent.launch_id in self._failed_launches

    @cached_property
    def _failed_launches(self) -> Mapping[str, str]:
        """Return the launches of which something began and failed lately, with the words of the last.

        What was refused has not begun: the others of its launch may well do.
        """
        return {one.instance_id.rpartition(".")[0]: one.error for one in self.history.failures if one.began}

    def failed_before(self, instance: Instance) -> str:
        """Return the words of what failed ahead of it, of the same launch."""
        return self._failed_launches.get(instance.intent.launch_id, "failed")

    @cached_property
    def _surplus(self) -> frozenset[str]:
        """Return what is on its way beyond a maximum that was lowered, the latest first to go."""
        movable = [one for one in self.coming if not self.protected(one) and self.known(one)]
        latest = sorted(movable, key=soonest, reverse=True)
        left = dict(self.excess)
        chosen: set[str] = set()
        # A type's own excess first: what goes for it is no longer part of the cluster's.
        for part in ("type", "cluster"):
            for one in latest:
                key = one.node_type if part == "type" else ""
                if left.get(key, 0) > 0 and one.instance_id not in chosen:
                    chosen.add(one.instance_id)
                    left[one.node_type] = left.get(one.node_type, 0) - 1
                    left[""] -= 1
        return frozenset(chosen)

    @cached_property
    def excess(self) -> Mapping[str, int]:
        """Return per type how many there are above its maximum; under "" those above the cluster's.

        What `max_surge` allows beside nodes that end is not too many, and what is released in this round
        for another reason is none any more.
        """
        states = [state for state in InstanceState if state in ALIVE - GOING]
        counts: Counter[str] = sum((self.snapshot.counts[state] for state in states), Counter())
        counts.subtract(one.node_type for one in self.ended_instances if one.state in states)
        counts.subtract(one.node_type for one in self.coming if self._unwanted(one))
        over = {name: max(0, count - self._most(name) - surge(self, name)) for name, count in counts.items()}
        return over | {"": max(0, counts.total() - self.policy.max_workers - surge(self))}

    def _most(self, name: str) -> int:
        node_type = self.types.get(name)
        # An instance of a type that is no longer in the file has drifted; that rule deals with it.
        return node_type.max_workers if node_type else 2**31

    def held_enough(self, instance: Instance) -> bool:
        """Say whether it has stayed long enough for what a gang lacks that is not launched just now."""
        held = self.history.held.get(instance.instance_id)
        return held is not None and self.now_s - held.since_s >= HELD_FOR_GANG_S

    def floor(self, node_type: NodeType) -> int:
        """Return how many of a type must stay: the file's minimum or a person's, within its maximum."""
        asked = self.operator.floors.get(node_type.name, 0)
        return min(max(node_type.min_workers, asked), node_type.max_workers)

    def floor_of(self, name: str) -> int:
        """Return the type's floor by its name; none where the file no longer has the type."""
        return self.floor(self.types[name]) if name in self.types else 0

    @cached_property
    def spare(self) -> Mapping[str, int]:
        """Return per type how many more are there or on their way, and stay, than its floor asks for."""
        return {name: self.staying_counts[name] - self.floor_of(name) for name in self.alive}


def look(snapshot: Snapshot, history: History, policy: Policy) -> Scene | None:
    """Return the scene, or None when Ray is unknown. Order of the input is levelled out here."""
    if snapshot.ray is None:
        return None
    return Scene(
        now_s=snapshot.now_s,
        ray=snapshot.ray,
        snapshot=snapshot,
        policy=policy,
        history=history,
        operator=snapshot.operator,
        endings=endings(snapshot, history, policy),
    )


def is_coming(instance: Instance) -> bool:
    if instance.intent.intent is not Intent.WANTED:
        return False
    return instance.state in ON_THE_WAY or instance.state is InstanceState.UNKNOWN


def soonest(instance: Instance) -> tuple[int, float, float, str]:
    row = instance.row
    expected_s = row.expected_start_s if row and row.expected_start_s is not None else 0.0
    return (_SOONEST[instance.state], expected_s, instance.intent.requested_at_s, instance.instance_id)
