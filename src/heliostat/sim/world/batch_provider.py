"""A provider for the simulated batch system, with the Slurm provider's ways and its blind spots."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from heliostat.model.instance import (
    BackendInstance,
    BackendState,
    Change,
    LaunchRequest,
    Offer,
    OfferQuery,
)
from heliostat.ports.errors import ProviderError, QuotaExceeded, Unavailable
from heliostat.ports.provider import ClusterIdentity, Outcome
from heliostat.sim.clock import Dates
from heliostat.sim.world.batch import LARGEST_CPUS, NOTICE_PART, BatchBackend, Job
from heliostat.sim.world.ends import Cause
from heliostat.sim.world.link import Link, Turns
from heliostat.sim.world.machine import Machine, Phase

T = TypeVar("T")

TERMINATE_GRACE_S = 45.0
"""From a gentle TERM to the end for good, as in the Slurm provider."""

WELL = frozenset({Cause.RELEASED, Cause.DRAINED, Cause.ORPHANED, Cause.LEASE, Cause.PREEMPTED})
"""Ends that are no failures of the instance."""


@dataclass(frozen=True)
class Member:
    """One instance as the listing shows it."""

    machine: Machine
    job: Job

    @property
    def standing(self) -> int:
        """Return what counts first of two for one instance: running, ending, waiting, over."""
        if self.machine.is_over:
            return 3
        return 2 if self.machine.phase is Phase.QUEUED else int(self.machine.phase is Phase.STOPPING)


class BatchProvider:
    """`ports.provider.Provider`. `stops` is its file on the head's disk: what it was told to terminate.

    `looks`: before its first launch it looks for what another controller has asked for. A command that
    another client has sent, and that comes late or twice, does not.
    """

    def __init__(
        self,
        backend: BatchBackend,
        identity: ClusterIdentity,
        link: Link,
        *,
        stops: set[str],
        dates: Dates,
        looks: bool = True,
    ) -> None:
        self._backend = backend
        self._identity = identity
        self._link = link
        self._stops = stops
        self._dates = dates
        self._told_s: dict[str, float] = {}
        self._launched: set[str] = set()
        self._known: dict[str, Member] | None = None if looks else {}
        self._turns = Turns()

    @property
    def name(self) -> str:
        return self._backend.name

    async def offers(self, queries: Sequence[OfferQuery]) -> Sequence[Offer]:
        return await self._turns.do(
            lambda: self._call("sinfo", lambda: [self._offer(one) for one in queries])
        )

    async def apply(self, change: Change) -> Outcome:
        return await self._turns.do(lambda: self._apply(change))

    async def instances(self) -> Sequence[BackendInstance]:
        return await self._turns.do(self._list)

    async def aclose(self) -> None:
        await self._turns.settle()

    async def _call(self, what: str, act: Callable[[], T]) -> T:
        return await self._link.call(what, act)

    # -- listing --------------------------------------------------------------------

    async def _list(self) -> list[BackendInstance]:
        asked = set(self._stops)
        rows = await self._look()
        known = self._known or {}
        with contextlib.suppress(ProviderError):
            await self._end(known)  # What is due is due again at the next listing.
        self._stops.intersection_update(known)
        over = (BackendState.ENDED, BackendState.FAILED)
        return [row for row in rows if not (row.state in over and row.instance_id in asked)]

    async def _look(self) -> list[BackendInstance]:
        """List, and learn from it; the rows are as true as at the moment of the listing."""

        def look() -> tuple[dict[str, Member], list[BackendInstance], list[Member]]:
            members = [Member(one, job) for job in self._jobs() for one in job.members]
            chosen, doubles = _chosen(members)
            return chosen, [self._row(one) for one in chosen.values()], doubles

        chosen, rows, doubles = await self._call("squeue", look)
        self._known = chosen
        self._launched |= {one.machine.launch_id for one in chosen.values()}
        waiting = [one.machine.native_id for one in doubles if one.machine.phase is Phase.QUEUED]
        if waiting:
            # Of two that run the one that has not joined ends by itself: nobody here knows which it is.
            await self._call("scancel", lambda: self._backend.cancel(waiting, self._identity))
        return rows

    def _jobs(self) -> list[Job]:
        uid = self._identity.cluster_uid
        return [one for one in self._backend.listed() if one.members[0].identity.cluster_uid == uid]

    def _row(self, member: Member) -> BackendInstance:
        machine, job = member.machine, member.job
        state = self._state(machine)
        waits = state is BackendState.QUEUED
        lease_s = self._backend.scenario.lease_s
        return BackendInstance(
            machine.instance_id,
            machine.native_id,
            machine.node_type,
            state,
            shape_id=machine.shape_id,
            allocation_id=machine.allocation_id,
            detail=_words(machine) if machine.is_over else self._reason(job) if waits else None,
            slot=self.name,
            expected_start_s=self._dates.known(job.eligible_s)
            if waits and job.eligible_s > self._now_s()
            else None,
            started_at_s=None if waits else self._dates.known(machine.started_s),
            expires_at_s=None if waits or machine.is_over else self._dates.known(machine.expires_s),
            notice_s=self._notice_s(lease_s),
            throttled=waits and job.is_throttled,
        )

    def _state(self, machine: Machine) -> BackendState:
        if machine.is_over:
            return BackendState.ENDED if machine.cause in WELL else BackendState.FAILED
        if machine.instance_id in self._stops or machine.phase is Phase.STOPPING:
            return BackendState.STOPPING
        return BackendState.QUEUED if machine.phase is Phase.QUEUED else BackendState.RUNNING

    def _reason(self, job: Job) -> str:
        if job.is_throttled:
            return "JobArrayTaskLimit"
        return "BeginTime" if job.eligible_s > self._now_s() else "Resources"

    def _notice_s(self, lease_s: float | None) -> float | None:
        notice_s = self._backend.scenario.notice_s
        return notice_s if notice_s is None or lease_s is None else min(notice_s, lease_s * NOTICE_PART)

    def _now_s(self) -> float:
        return self._backend.agenda.now_s()

    # -- ending -----------------------------------------------------------------------

    async def _end(self, members: dict[str, Member]) -> None:
        """Tell what is to end what is due: cancel what waits, TERM to what runs, later the end for good."""
        machines = [members[one].machine for one in sorted(self._stops & members.keys())]
        machines = [one for one in machines if not one.is_over]
        now_s = self._now_s()
        late = [
            one for one in machines if now_s - self._told_s.get(one.instance_id, now_s) > TERMINATE_GRACE_S
        ]
        for_good = [one for one in machines if one.phase is Phase.QUEUED or one in late]
        fresh = [one for one in machines if one not in for_good and one.instance_id not in self._told_s]
        if fresh:
            ids = [one.native_id for one in fresh]
            await self._call("scancel", lambda: self._backend.terminate(ids, self._identity))
            self._told_s.update(dict.fromkeys((one.instance_id for one in fresh), now_s))
        if for_good:
            last = [one.native_id for one in for_good]
            await self._call("scancel", lambda: self._backend.cancel(last, self._identity))

    async def _terminate(self, instance_ids: Iterable[str]) -> dict[str, ProviderError]:
        wanted = list(instance_ids)
        if not wanted:
            return {}
        self._stops.update(wanted)
        try:
            if self._known is None:
                await self._look()
            await self._end(self._known or {})
        except ProviderError as error:
            return dict.fromkeys(wanted, error)
        return {}

    # -- launching --------------------------------------------------------------------

    async def _apply(self, change: Change) -> Outcome:
        terminations = await self._terminate(change.terminate)
        await self._let_go(change.unthrottle)
        new = {one.launch_id: one for one in change.launch if one.launch_id not in self._launched}
        if new and self._known is None:
            # A controller before this one may have asked for them: jobs carry their launches' names.
            try:
                await self._look()
            except ProviderError as error:
                return Outcome(dict.fromkeys(new, error), {}, terminations)
        launches: dict[str, ProviderError] = {}
        members: dict[str, ProviderError] = {}
        for request in new.values():
            if request.launch_id in self._launched:
                continue
            failed = await self._launch(request)
            if len(failed) == request.count:
                launches[request.launch_id] = failed[request.instance_ids[0]]
            else:
                members.update(failed)
        return Outcome(launches, members, terminations)

    async def _launch(self, request: LaunchRequest) -> dict[str, ProviderError]:
        failed = await self._submit(request, list(range(request.count)))
        if len(failed) < request.count or any(isinstance(one, Unavailable) for one in failed.values()):
            # What did not answer may have acted: it is not asked again, the listing tells.
            self._launched.add(request.launch_id)
        return failed

    async def _submit(self, request: LaunchRequest, indexes: list[int]) -> dict[str, ProviderError]:
        """Submit these members; above a limit half of them, and the rest is reported."""
        try:
            await self._call("sbatch", lambda: self._backend.submit(request, self._identity, indexes))
        except QuotaExceeded as error:
            half = len(indexes) // 2
            if request.together or half == 0:
                return _failed(request, indexes, error)
            found = await self._submit(request, indexes[:half])
            return found | _failed(request, indexes[half:], error)
        except ProviderError as error:
            return _failed(request, indexes, error)
        return {}

    async def _let_go(self, node_types: Sequence[str]) -> None:
        """Lift the throttle of these types' arrays. What fails is asked again."""
        members = (self._known or {}).values()
        mine = [one.job for one in members if one.machine.node_type in node_types and one.job.is_throttled]
        for array in {job.array.array_id: job.array for job in mine if job.array is not None}.values():
            try:
                await self._call("scontrol", partial(self._backend.unthrottle, array.array_id))
            except ProviderError:
                continue

    # -- forecast -----------------------------------------------------------------------

    def _offer(self, query: OfferQuery) -> Offer:
        node_type, scenario = query.node_type, self._backend.scenario
        if node_type.resources.units().get("CPU", 0) > LARGEST_CPUS:
            return Offer(node_type.name, 0, why="no node has so many CPUs")
        soon = self._backend.free > 0 and not self._backend.is_shut
        wait_s = (sum(scenario.queue_s) + sum(scenario.boot_s)) / 2
        return Offer(
            node_type.name,
            query.count,
            ready_at_s=self._dates.known(self._now_s() + wait_s) if soon else None,
            price_usd_per_h=node_type.price_usd_per_h or None,
            lease_s=scenario.lease_s,
        )


def _chosen(members: Iterable[Member]) -> tuple[dict[str, Member], list[Member]]:
    """Return one member for each instance, and the other living ones."""
    chosen: dict[str, Member] = {}
    doubles: list[Member] = []
    for one in members:
        known = chosen.setdefault(one.machine.instance_id, one)
        if known is not one:
            # A sort keeps the older first where both stand the same.
            first, other = sorted((known, one), key=lambda each: each.standing)
            chosen[one.machine.instance_id] = first
            doubles += [] if other.machine.is_over else [other]
    return chosen, doubles


def _words(machine: Machine) -> str:
    return machine.detail or (machine.cause.value if machine.cause else "over")


def _failed(request: LaunchRequest, indexes: Iterable[int], error: ProviderError) -> dict[str, ProviderError]:
    return {request.instance_ids[index]: error for index in indexes}
