"""What people may ask of a running controller; each request is journalled before it counts."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from heliostat.control.explain import (
    explain_cluster,
    explain_demand,
    explain_instance,
    explain_type,
)
from heliostat.control.loop import Controller
from heliostat.control.memory import Adding
from heliostat.control.ray_words import INSTEAD
from heliostat.control.spec_changes import changes
from heliostat.control.status import (
    Scene,
    backend_reports,
    demand_reports,
    failure_reports,
    foreign_nodes,
    head_report,
    instance_reports,
    next_lines,
    type_reports,
)
from heliostat.model.instance import ALIVE, Instance, OfferQuery
from heliostat.model.node_type import NodeType
from heliostat.model.report import StatusReport
from heliostat.model.snapshot import OperatorSettings
from heliostat.planner.failures import tried_anew
from heliostat.ports.errors import ConfigError, JournalError, ProviderError, Refused
from heliostat.ports.journal import Event, Lifetime, ProviderCall, UsageRow, added_up
from heliostat.ports.provider import Diagnose

FAILURES_SHOWN = 3
LOG_LINES_SHOWN = 8
ADD_AT_MOST = 1000


class Operations:
    """Fulfils `api.operations.Operations` on one controller. Raises Refused with one sentence."""

    def __init__(self, controller: Controller) -> None:
        self._controller = controller
        # One request at a time: each counts what is there before it changes it.
        self._turn = asyncio.Lock()

    async def status(self) -> StatusReport:
        controller, scene = self._controller, self._scene()
        identity, now_s = controller.identity, controller.ports.clock.monotonic_s()
        return StatusReport(
            cluster_name=identity.cluster_name,
            cluster_uid=identity.cluster_uid,
            phase=controller.phase,
            address=identity.address,
            dashboard_url=identity.dashboard_url,
            session_name=controller.session_name,
            controller_pid=identity.pid,
            at_s=scene.now_s + scene.ahead_s,
            uptime_s=now_s - controller.started_s,
            paused=controller.memory.operator.paused,
            cluster_idle_s=controller.idle_watch.idle_s(now_s),
            head=head_report(scene),
            instances=instance_reports(scene),
            foreign_nodes=foreign_nodes(scene),
            node_types=type_reports(scene),
            demands=demand_reports(scene),
            next=next_lines(scene),
            backends=backend_reports(scene),
            failures=failure_reports(scene, *await self._failures(scene)),
            measures=controller.ports.telemetry.summary(),
            journal=controller.ledger.trouble,
            version=identity.version,
            autoscaler="ray" if controller.policy.ray_decides else "heliostat",
        )

    async def explain(self, subject: str | None, /) -> dict[str, Any]:
        scene = self._scene()
        if not subject:
            return explain_cluster(scene)
        found = self._find(subject)
        instance_id = found.instance_id if found else subject
        events = self._controller.ports.journal.events(limit=50, instance_id=instance_id)
        answer = (
            explain_type(scene, subject)
            or explain_instance(scene, instance_id, events, launch=self._launch_of(instance_id))
            or explain_demand(scene, subject)
        )
        if answer is None:
            raise Refused("not_found", f"nothing is called «{subject}»: {self._names()}")
        return answer

    async def events(self, after: int, limit: int, instance: str | None, /) -> Sequence[Event]:
        named = self._find(instance) if instance else None
        instance_id = named.instance_id if named else instance
        found = self._controller.ports.journal.events(after_seq=after, limit=limit, instance_id=instance_id)
        ahead_s = self._ahead_s()
        return [replace(one, at_s=one.at_s + ahead_s) for one in found]

    async def calls(self, limit: int, /) -> Sequence[ProviderCall]:
        calls = self._controller.ports.journal.calls(limit=limit)
        ahead_s = self._ahead_s()
        return [replace(one, began_s=one.began_s + ahead_s) for one in calls]

    async def lifetimes(self, limit: int, /) -> Sequence[Lifetime]:
        ahead_s = self._ahead_s()
        return [one.moved(ahead_s) for one in self._controller.ports.journal.lifetimes(limit=limit)]

    async def cost(self) -> dict[str, Any]:
        rows = [*self._controller.ports.journal.usage(), *self._controller.accounts.unwritten()]
        added = _added(rows)
        return {"rows": [asdict(row) for row in added], "total": _total(added)}

    async def add(self, node_type: str | None, count: int, /) -> dict[str, Any]:
        """Launch `count` more at once, which stay until they are removed by hand."""
        self._refuse_where_ray_decides("add")
        async with self._turn:
            return await self._add(node_type, count)

    async def _add(self, node_type: str | None, count: int) -> dict[str, Any]:
        self._refuse_when_going_down()
        wanted = self._type_of(node_type)
        await self._controller.settled(wanted.backend)
        alive = [one for one in self._instances() if one.node_type == wanted.name]
        self._refuse_over_max(wanted, len(alive), count)
        await self._refuse_without_offer(wanted, count)
        memory = self._controller.memory
        known = set(memory.intents)
        memory.adding = Adding(wanted.name, count, len(alive) + count, memory.operator.added)
        try:
            await self._controller.round()
        finally:
            memory.adding = None
        ids = [one for one in memory.intents if one not in known and one in memory.operator.added]
        if not ids:
            if self._controller.ledger.trouble:
                raise JournalError(self._controller.ledger.trouble)
            why = [one.text for one in memory.plan.deferred]
            raise Refused("conflict", "; ".join(why) or f"{wanted.name}: nothing could be launched now")
        return {"instance_ids": ids, "names": ids, "node_type": wanted.name}

    async def remove(self, instance: str, deadline_s: float | None, /) -> dict[str, Any]:
        """Let one instance go: when Ray agrees that it is idle, or by `deadline_s` seconds from now."""
        self._refuse_where_ray_decides("remove")
        async with self._turn:
            return await self._remove(instance, deadline_s)

    async def _remove(self, instance: str, deadline_s: float | None) -> dict[str, Any]:
        found = self._existing(instance)
        settings = self._controller.memory.operator
        alive = sum(one.node_type == found.node_type for one in self._instances())
        floor = min(settings.floors.get(found.node_type, 0), alive - 1)
        until_s = None if deadline_s is None else self._controller.ports.clock.now_s() + deadline_s
        self._set(
            replace(
                settings.unprotected([found.instance_id]),
                floors={**settings.floors, found.node_type: max(0, floor)},
                removals={**settings.removals, found.instance_id: until_s},
            )
        )
        self._controller.event("remove", "removal asked for by hand", instance_id=found.instance_id)
        await self._controller.round()
        return {
            "instance_id": found.instance_id,
            "name": found.display_name,
            "until_s": self._scene().wall_s(until_s),
        }

    async def protect(self, instance: str, on: bool, /) -> dict[str, Any]:
        if on:
            self._refuse_where_ray_decides("protect")
        found = self._existing(instance)
        settings = self._controller.memory.operator.unprotected([found.instance_id])
        protected = settings.protected | {found.instance_id} if on else settings.protected
        removals = {k: v for k, v in settings.removals.items() if not (on and k == found.instance_id)}
        self._set(replace(settings, protected=protected, removals=removals))
        verb = "protected" if on else "no longer protected"
        self._controller.event("protect", f"{found.display_name} is {verb}", instance_id=found.instance_id)
        return {"instance_id": found.instance_id, "name": found.display_name, "protected": on}

    async def pause(self, on: bool, /) -> dict[str, Any]:
        if on:
            self._refuse_where_ray_decides("pause")
        self._set(replace(self._controller.memory.operator, paused=on))
        self._controller.event("pause", "deciding is paused" if on else "deciding goes on")
        return {"paused": on}

    async def apply(self) -> dict[str, Any]:
        """Take the cluster file as it is now; what a running node can't change, drifts.

        Whoever asks for it wants all that waits after failures to be tried again now.
        """
        controller = self._controller
        try:
            spec = controller.ports.config_source.load()
        except ConfigError as error:
            raise Refused("invalid", str(error)) from error
        sentences = changes(controller.spec, spec)
        fixed = [one for one in sentences if one.refused]
        if fixed:
            raise Refused("refused", "; ".join(one.text for one in fixed))
        # Where this fails nothing has changed yet.
        controller.ports.publish(spec)
        controller.use_spec(spec)
        memory = controller.memory
        memory.history, again = tried_anew(memory.history, spec.policy, now_s=controller.ports.clock.now_s())
        for text in (*(one.text for one in sentences), *again):
            controller.event("apply", text)
        await controller.tell_ray_what_could_be()
        await controller.round()
        return {"changes": [one.text for one in sentences], "again": again}

    async def down(self) -> dict[str, Any]:
        self._controller.go_down("asked by hand")
        return {"going_down": True}

    def _launch_of(self, instance_id: str) -> Event | None:
        """Return the event of the launch; it is written under its first member's id."""
        first = f"{instance_id.rpartition('.')[0]}.0"
        events = self._controller.ports.journal.events(instance_id=first)
        return next((one for one in events if one.kind == "launch"), None)

    # -- lookups ------------------------------------------------------------------

    def _scene(self) -> Scene:
        controller = self._controller
        return Scene(controller.policy, controller.memory, controller.ports.clock.now_s(), self._ahead_s())

    def _ahead_s(self) -> float:
        """Return how far the host's wall clock, which people look at, is ahead of the controller's.

        In whole milliseconds: what differs by less is how long it takes to read the one after the other.
        """
        return round(self._controller.ports.clock.host_time().ahead_s, 3)

    def _set(self, settings: OperatorSettings) -> None:
        self._controller.ports.journal.record_operator(settings)
        self._controller.memory.operator = settings

    def _instances(self) -> list[Instance]:
        return [one for one in self._controller.memory.instances if one.state in ALIVE]

    def _find(self, name: str) -> Instance | None:
        """Find by instance id, the backend's own name, launch id, or a node id's beginning."""
        for one in self._instances():
            if name in (one.instance_id, one.display_name, one.intent.launch_id):
                return one
            if one.node is not None and len(name) >= 6 and one.node.node_id.startswith(name):
                return one
        return None

    def _existing(self, name: str) -> Instance:
        found = self._find(name)
        if found is None:
            raise Refused("not_found", f"no instance is called «{name}»: {self._names()}")
        return found

    def _names(self) -> str:
        names = ", ".join(one.display_name for one in self._instances())
        types = ", ".join(one.name for one in self._controller.policy.node_types)
        return f"instances are {names or 'none'}; node types are {types}"

    def _type_of(self, name: str | None) -> NodeType:
        types = self._controller.policy.node_types
        if name is None and len(types) == 1:
            return types[0]
        found = self._controller.policy.node_type(name) if name else None
        if found is None:
            listed = ", ".join(one.name for one in types)
            said = f"no node type is called «{name}»" if name else "there are several node types, say which"
            raise Refused("not_found" if name else "invalid", f"{said}: the file has {listed}")
        return found

    def _refuse_where_ray_decides(self, verb: str) -> None:
        if self._controller.policy.ray_decides:
            raise Refused("refused", f"`heliostat {verb}` is not possible here: {INSTEAD[verb]}")

    def _refuse_when_going_down(self) -> None:
        if self._controller.going_down:
            raise Refused("conflict", f"the cluster goes down: {self._controller.going_down}")
        if self._controller.memory.operator.paused:
            raise Refused("conflict", "deciding is paused: `heliostat pause --off` lets it go on")

    def _refuse_over_max(self, wanted: NodeType, alive: int, count: int) -> None:
        if not 1 <= count <= ADD_AT_MOST:
            raise Refused("invalid", f"the count is {count}; 1 to {ADD_AT_MOST} is allowed")
        if alive + count > wanted.max_workers:
            raise Refused(
                "conflict",
                f"{wanted.name} has {alive} of at most {wanted.max_workers} (max_workers);"
                " raise it in the file and `heliostat apply` it",
            )
        everything = len(self._instances())
        if everything + count > self._controller.policy.max_workers:
            raise Refused(
                "conflict",
                f"the cluster has {everything} of at most {self._controller.policy.max_workers} workers"
                " (max_workers); raise it in the file and `heliostat apply` it",
            )

    async def _refuse_without_offer(self, wanted: NodeType, count: int) -> None:
        provider = self._controller.ports.providers[wanted.backend]
        try:
            offers = await provider.offers([OfferQuery(wanted, count)])
        except ProviderError as error:
            raise Refused("conflict", str(error)) from error
        offer = next((one for one in offers if one.node_type == wanted.name), None)
        if offer is not None and offer.count is not None and offer.count < count:
            some = f"only {offer.count} of {count} can be had: " if offer.count else ""
            raise Refused("conflict", some + (offer.why or f"{wanted.backend} has no room for {wanted.name}"))

    async def _failures(self, scene: Scene) -> tuple[Sequence[Any], Mapping[str, Sequence[str]]]:
        failures = scene.history.failures[-FAILURES_SHOWN:]
        logs: dict[str, Sequence[str]] = {}
        for failure in failures:
            node_type = scene.policy.node_type(failure.node_type)
            provider = self._controller.ports.providers.get(node_type.backend) if node_type else None
            if isinstance(provider, Diagnose):
                logs[failure.instance_id] = await provider.last_words(
                    failure.instance_id, lines=LOG_LINES_SHOWN
                )
        return failures, logs


def _added(rows: Sequence[UsageRow]) -> list[UsageRow]:
    return sorted(added_up(rows), key=lambda row: (row.day, row.node_type))


def _total(rows: Sequence[UsageRow]) -> dict[str, float]:
    fields = ("node_s", "idle_s", "core_s", "gpu_s", "cost_usd")
    return {name: sum(getattr(row, name) for row in rows) for name in fields}
