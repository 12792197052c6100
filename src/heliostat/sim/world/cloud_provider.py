"""A provider for the simulated cloud: launch ids are its idempotency keys, listings lag behind."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from heliostat.model.instance import BackendInstance, BackendState, Change, Offer, OfferQuery
from heliostat.ports.errors import ProviderError
from heliostat.ports.provider import ClusterIdentity, Outcome
from heliostat.sim.clock import Dates
from heliostat.sim.world.cloud import LARGEST_CPUS, CloudBackend, Look
from heliostat.sim.world.link import Link
from heliostat.sim.world.machine import Machine

OVER = frozenset({BackendState.ENDED, BackendState.FAILED})


class CloudProvider:
    """`ports.provider.Provider`. What it was told to end it never shows as alive again."""

    def __init__(self, backend: CloudBackend, identity: ClusterIdentity, link: Link, *, dates: Dates) -> None:
        self._backend = backend
        self._identity = identity
        self._link = link
        self._dates = dates
        self._ended: set[str] = set()

    @property
    def name(self) -> str:
        return self._backend.name

    async def offers(self, queries: Sequence[OfferQuery]) -> Sequence[Offer]:
        return await self._link.call("prices", lambda: [self._offer(one) for one in queries])

    async def instances(self) -> Sequence[BackendInstance]:
        return await self._link.call("list", self._rows)

    async def aclose(self) -> None:
        """Let go of nothing: there is no connection."""

    async def apply(self, change: Change) -> Outcome:
        terminations = await self._terminate(change.terminate)
        launches: dict[str, ProviderError] = {}
        members: dict[str, ProviderError] = {}
        for request in change.launch:
            try:
                run = partial(self._backend.run, request, self._identity)
                failed = await self._link.call("run", run)
            except ProviderError as error:
                launches[request.launch_id] = error
                continue
            if len(failed) == request.count:
                launches[request.launch_id] = failed[request.instance_ids[0]]
            else:
                members.update(failed)
        return Outcome(launches, members, terminations)

    async def _terminate(self, instance_ids: Sequence[str]) -> dict[str, ProviderError]:
        """End what the cluster has under these ids."""
        wanted = set(instance_ids)
        if not wanted:
            return {}

        def end() -> None:
            # By its tags the cloud finds what no listing shows yet.
            tagged = [one for one in self._backend.living.values() if one.identity == self._identity]
            listed = [machine for machine, _ in self._listed()]
            ids = {one.native_id: None for one in (*tagged, *listed) if one.instance_id in wanted}
            self._backend.terminate(ids, self._identity)
            self._ended |= ids.keys()

        try:
            await self._link.call("terminate", end)
        except ProviderError as error:
            return dict.fromkeys(instance_ids, error)
        return {}

    def _rows(self) -> list[BackendInstance]:
        return [self._row(machine, look) for machine, look in self._listed()]

    def _listed(self) -> list[tuple[Machine, Look]]:
        uid = self._identity.cluster_uid
        return [(one, look) for one, look in self._backend.listed() if one.identity.cluster_uid == uid]

    def _row(self, machine: Machine, look: Look) -> BackendInstance:
        assert look.state is not None
        ending = machine.native_id in self._ended and look.state not in OVER
        begun = look.state is not BackendState.STARTING
        return BackendInstance(
            machine.instance_id,
            machine.native_id,
            machine.node_type,
            BackendState.STOPPING if ending else look.state,
            shape_id=machine.shape_id,
            detail=look.detail,
            slot=self.name,
            started_at_s=self._dates.known(machine.started_s) if begun else None,
            expires_at_s=self._dates.known(look.expires_s),
            notice_s=self._backend.scenario.notice_s,
        )

    def _offer(self, query: OfferQuery) -> Offer:
        node_type, scenario = query.node_type, self._backend.scenario
        if node_type.resources.units().get("CPU", 0) > LARGEST_CPUS:
            return Offer(node_type.name, 0, why="no such machine type")
        room = self._backend.room(self._identity.owner)
        return Offer(
            node_type.name,
            min(room, query.count),
            ready_at_s=self._dates.of(self._backend.agenda.now_s() + sum(scenario.boot_s) / 2),
            price_usd_per_h=node_type.price_usd_per_h or None,
            why=str(self._backend.refusal(self._identity.owner)) if room < query.count else None,
        )
