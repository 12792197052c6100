"""What waits and what runs: tasks, actors and placement groups, with Ray's retries."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from heliostat.model.demand import Bundle, Demand, Gang, GangStrategy
from heliostat.model.instance import DrainReason
from heliostat.sim.dice import Stream
from heliostat.sim.world.agenda import Agenda, Appointment
from heliostat.sim.world.ends import Cause
from heliostat.sim.world.ray.node import SimNode
from heliostat.sim.world.ray.placement import place_for, places_of
from heliostat.sim.world.work import Group, Interruption, Ledger, Work, WorkState

GROUPS_AGAIN_S = 0.1
"""How long placement groups wait for one another's resources to be given back, before they are tried."""


@dataclass(frozen=True)
class Means:
    """What the scheduler needs: time, chance, the nodes by id, how late a report is, who hears of what."""

    agenda: Agenda
    chance: Stream
    nodes: Mapping[str, SimNode]
    report_s: Callable[[], float]
    ledger: Ledger
    left_idle: Callable[[SimNode], None]


class Scheduler:
    """Work goes to the nodes as Ray would put it there. `works` False: the head is away, nothing is placed.

    What waits is kept by shape, first in, first out: where the first of a shape finds no place no other does.
    """

    def __init__(self, means: Means) -> None:
        self._means = means
        self._now_s = means.agenda.now_s
        self.works = True
        self.waiting: dict[Bundle, deque[Work]] = {}
        self.groups: dict[str, Group] = {}
        self.pending: dict[str, Group] = {}
        self._timers: dict[int, Appointment] = {}
        self._trying: Appointment | None = None
        self._shown: tuple[Demand, ...] = ()
        self._due_s: float | None = None
        self._gangs: dict[str, tuple[tuple[str | None, ...], Gang]] = {}

    # -- what is asked ------------------------------------------------------------

    def submit(self, work: Work) -> None:
        self._means.ledger.arrived(work)
        self._enqueue(work)

    def submit_group(self, group: Group) -> None:
        for work in group.members:
            self._means.ledger.arrived(work)
        self.groups[group.gang_id] = self.pending[group.gang_id] = group
        self._try_groups_soon()

    def cancel(self, work: Work) -> None:
        """Take work back, with its whole placement group: its driver has given up.

        Of what is done the result is let go: it is not made again when its node ends.
        """
        if work.gang is not None:
            if work.gang.gang_id in self.groups:
                self._cancel_group(work.gang, "cancelled")
        elif work.state is WorkState.RUNNING:
            node = self._means.nodes[work.node_id]
            self._taken_off(work, node)
            self._means.ledger.lost(work, "cancelled")
            self._freed(node)
        elif work.state is WorkState.WAITING:
            self._touch_demand()
            queue = self.waiting[work.bundle]
            queue.remove(work)
            if not queue:
                del self.waiting[work.bundle]
            self._means.ledger.lost(work, "cancelled")
        elif work.state is WorkState.DONE:
            holder = self._means.nodes.get(work.node_id)
            if holder is not None:
                self._unpin(work, holder)

    def _cancel_group(self, group: Group, why: str) -> None:
        for work in group.members:
            if work.state is WorkState.RUNNING:
                self._taken_off(work, self._means.nodes[work.node_id])
            if work.state in {WorkState.RUNNING, WorkState.WAITING}:
                self._means.ledger.lost(work, why)
        self._removed(group)

    def drop_all(self, why: str) -> None:
        """Forget all work: who asked for it is gone."""
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        self._touch_demand()
        self.waiting.clear()
        self.groups.clear()
        self.pending.clear()
        for work in list(self._means.ledger.unfinished.values()):
            self._means.ledger.lost(work, why)

    # -- nodes come and go --------------------------------------------------------

    def gained(self, node: SimNode) -> None:
        """Place what waits on a node that has more room than before."""
        if not (self.works and node.is_open):
            return
        if self.pending:
            self._try_groups_soon()
        for bundle in list(self.waiting):
            queue = self.waiting[bundle]
            while queue and node.fits(bundle.resources) and bundle.allows(node.labels):
                self._touch_demand()
                self._run(queue.popleft(), node)
            if not queue:
                del self.waiting[bundle]

    def lost(self, node: SimNode, cause: Cause) -> None:
        """Take back what was on a node that is gone. Ray counts a retry unless a preemption was announced
        and its deadline has come (`GcsNodeManager::InferDeathInfo`)."""
        told = node.draining if node.draining and node.draining.reason is DrainReason.PREEMPTION else None
        overdue = told is not None and told.deadline_s is not None and self._now_s() >= told.deadline_s
        broken = [(work, told is not None, not overdue) for work, _ in node.works.values()]
        broken += [(work, told is not None, not overdue) for work in node.pinned.values()]
        for work, _ in node.works.values():
            self._timers.pop(work.work_id).cancel()
            work.state = WorkState.WAITING
        for gang_id, index in node.held:
            group = self.groups[gang_id]
            group.nodes[index] = None
            self.pending[gang_id] = group
        node.works, node.pinned, node.held = {}, {}, {}
        for work, announced, counted in broken:
            self._interrupt(work, node, cause, announced=announced, counted=counted)
        if self.pending:
            self._try_groups_soon()

    def heard_again(self, node: SimNode) -> None:
        """Hear that a node answers again: what ended there meanwhile is told now."""
        held_back, node.held_back = node.held_back, []
        for tell in held_back:
            tell()
        self.gained(node)

    def _interrupt(self, work: Work, node: SimNode, cause: Cause, *, announced: bool, counted: bool) -> None:
        ledger = self._means.ledger
        if work.state is WorkState.LOST:  # With its gang, a moment ago.
            return
        if work.state is WorkState.DONE:
            ledger.reopened(work)
        lost = counted and work.retries == 0
        work.retries -= counted and not lost
        ledger.interrupted(
            work,
            Interruption(
                at_s=self._now_s(),
                work_id=work.work_id,
                instance_id=node.member.instance_id,
                cause=cause,
                announced=announced,
                counted=counted,
                lost=lost,
            ),
        )
        if not lost:
            self._enqueue(work)
        elif work.gang is not None and work.gang.gang_id in self.groups:
            self._cancel_group(work.gang, "its gang")

    # -- single tasks and actors ----------------------------------------------------

    def _enqueue(self, work: Work) -> None:
        if work.gang is not None:
            self._start_members(work.gang)
            return
        queue = self.waiting.get(work.bundle)
        node = None
        if queue is None and self.works:
            node = place_for(work.bundle, self._means.nodes.values(), self._means.chance)
        if node is not None:
            self._run(work, node)
            return
        self._touch_demand()
        self.waiting.setdefault(work.bundle, deque()).append(work)

    def _run(self, work: Work, node: SimNode) -> None:
        node.touch(self._now_s(), self._means.report_s())
        shares = node.take(work.bundle.resources) if work.gang is None else ()
        node.works[work.work_id] = (work, shares)
        node.idle_since_s = None
        work.state, work.attempts = WorkState.RUNNING, work.attempts + 1
        work.node_id, work.instance_id = node.node_id, node.member.instance_id
        self._timers[work.work_id] = self._means.agenda.after(work.work_s, self._finished, work, node)
        self._means.ledger.started(work)

    def _finished(self, work: Work, node: SimNode) -> None:
        if node.silent:
            node.held_back.append(lambda: self._finished(work, node))
            return
        if work.work_id not in node.works:
            # It was cancelled while the node, which had finished it, could not say so.
            return
        self._taken_off(work, node)
        if work.pins_s > 0:
            node.pinned[work.work_id] = work
            self._means.agenda.after(work.pins_s, self._unpinned, work, node)
        self._means.ledger.done(work)
        group = work.gang
        if group is not None and all(one.state is WorkState.DONE for one in group.members):
            self._removed(group)
        self._freed(node)

    def _taken_off(self, work: Work, node: SimNode) -> None:
        node.touch(self._now_s(), self._means.report_s())
        _, shares = node.works.pop(work.work_id)
        if work.gang is None:
            node.give(work.bundle.resources, shares)
        self._timers.pop(work.work_id).cancel()

    def _unpinned(self, work: Work, node: SimNode) -> None:
        if node.silent:
            node.held_back.append(lambda: self._unpinned(work, node))
        else:
            self._unpin(work, node)

    def _unpin(self, work: Work, node: SimNode) -> None:
        if node.pinned.get(work.work_id) is work:
            node.touch(self._now_s(), self._means.report_s())
            del node.pinned[work.work_id]
            self._freed(node)

    def _freed(self, node: SimNode) -> None:
        if not node.is_alive:
            return
        if node.is_idle and node.idle_since_s is None:
            node.idle_since_s = self._now_s()
            self._means.left_idle(node)
        self.gained(node)

    # -- placement groups -----------------------------------------------------------

    def _try_groups_soon(self) -> None:
        if self._trying is None:
            self._trying = self._means.agenda.after(GROUPS_AGAIN_S, self._try_groups)

    def _try_groups(self) -> None:
        self._trying = None
        if not self.works:
            return
        nodes = list(self._means.nodes.values())
        for group in list(self.pending.values()):
            missing = {i: group.bundles[i] for i, place in enumerate(group.nodes) if place is None}
            others = frozenset(place for place in group.nodes if place is not None)
            found = places_of(group.strategy, missing, nodes, others=others)
            if found is not None:
                del self.pending[group.gang_id]
                self._reserve(group, found)

    def _reserve(self, group: Group, found: Mapping[int, SimNode]) -> None:
        for index, node in found.items():
            node.touch(self._now_s(), self._means.report_s())
            asked = group.bundles[index].resources
            node.held[group.gang_id, index] = (asked, node.take(asked))
            node.idle_since_s = None
            group.nodes[index] = node.node_id
        self._start_members(group)

    def _start_members(self, group: Group) -> None:
        for work, place in zip(group.members, group.nodes, strict=False):
            if place is not None and work.state is WorkState.WAITING and self.works:
                self._run(work, self._means.nodes[place])

    def _removed(self, group: Group) -> None:
        del self.groups[group.gang_id]
        self.pending.pop(group.gang_id, None)
        self._gangs.pop(group.gang_id, None)
        for index, place in enumerate(group.nodes):
            if place is not None:
                node = self._means.nodes[place]
                node.touch(self._now_s(), self._means.report_s())
                node.give(*node.held.pop((group.gang_id, index)))
        for place in dict.fromkeys(group.nodes):
            if place is not None:
                self._freed(self._means.nodes[place])

    # -- what the GCS shows -----------------------------------------------------------

    def demands(self) -> tuple[Demand, ...]:
        """Return what waits outside of placement groups, as the GCS knows it now."""
        if self._due_s is not None and self._now_s() >= self._due_s:
            self._due_s = None
        if self._due_s is None:
            self._shown = self._counted()
        return self._shown

    def gangs(self) -> tuple[Gang, ...]:
        """Return what is missing of placement groups. The GCS knows at once."""
        return tuple(self._gang(self.pending[gang_id]) for gang_id in sorted(self.pending))

    def _touch_demand(self) -> None:
        now_s = self._now_s()
        if self._due_s is None or now_s >= self._due_s:
            self._shown = self._counted()
            self._due_s = now_s + self._means.report_s()

    def _counted(self) -> tuple[Demand, ...]:
        found = [Demand(bundle, len(queue)) for bundle, queue in self.waiting.items() if queue]
        return tuple(sorted(found, key=lambda one: _order(one.bundle)))

    def _gang(self, group: Group) -> Gang:
        places = tuple(group.nodes)
        known = self._gangs.get(group.gang_id)
        if known is None or known[0] != places:
            known = self._gangs[group.gang_id] = (places, _as_ray_says(group))
        return known[1]


def _as_ray_says(group: Group) -> Gang:
    apart = f"_PG_{group.gang_id}" if group.strategy is GangStrategy.STRICT_SPREAD else None
    counts = Counter(
        Bundle(one.resources, one.selectors, apart)
        for one, place in zip(group.bundles, group.nodes, strict=True)
        if place is None
    )
    demands = sorted(
        (Demand(one, count) for one, count in counts.items()), key=lambda one: _order(one.bundle)
    )
    return Gang(group.gang_id, group.strategy, tuple(demands))


def _order(bundle: Bundle) -> tuple[object, ...]:
    """Return what demands are sorted by, as in `raylink.convert`."""
    return (bundle.resources.amounts, str(bundle), bundle.anti_affinity or "")
