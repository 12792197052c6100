"""What Ray's own autoscaler may ask of a controller, where it decides.

It asks for so many of a type and gives instances back by their ids. All else (limits, launches, the journal,
failures, leases) is the controller's, as always.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from heliostat.control.loop import Controller
from heliostat.control.memory import Asking
from heliostat.model.instance import ALIVE, GOING, HEAD_INSTANCE_ID, Instance, InstanceState, Intent
from heliostat.ports.errors import JournalError, Refused

ASK_AT_MOST = 10_000


class RayProvision:
    """Fulfils `api.operations.Provision` on one controller. Raises Refused with one sentence."""

    def __init__(self, controller: Controller) -> None:
        self._controller = controller
        # One at a time: each counts what is there before it asks for more.
        self._turn = asyncio.Lock()
        self._said: dict[str, str] = {}

    async def instances(self) -> dict[str, Any]:
        """Return the head and all that is wanted and not over, with Ray's node where there is one."""
        self._refuse_unless_asked_for()
        controller = self._controller
        if controller.memory.snapshot is None:
            raise Refused("conflict", "the controller has just begun and has not looked around yet")
        return {"head": self._head(), "instances": [_row(one) for one in _there(controller)]}

    async def create(self, node_type: str, count: int, /) -> dict[str, Any]:
        """Launch as many of `count` as the limits allow; `why` says what holds back the others."""
        self._refuse_unless_asked_for()
        wanted = self._controller.policy.node_type(node_type)
        if wanted is None:
            raise Refused("not_found", f"no node type is called «{node_type}»")
        if not 1 <= count <= ASK_AT_MOST:
            raise Refused("invalid", f"the count is {count}; 1 to {ASK_AT_MOST} are allowed")
        async with self._turn:
            await self._controller.settled(wanted.backend)
            ids, why = await self._asked(node_type, count)
        self._say(node_type, count, len(ids), why)
        return {"instance_ids": list(ids), "refused": count - len(ids), "why": why}

    async def terminate(self, instance_ids: Sequence[str], /) -> dict[str, Any]:
        """Let these go: what is not up at once, a node when it is idle. What is not known is gone already."""
        self._refuse_unless_asked_for()
        controller = self._controller
        known = {one.instance_id for one in _there(controller)}
        ids = [one for one in instance_ids if one in known]
        async with self._turn:
            old = controller.memory.operator
            new = {one: None for one in ids if one not in old.removals}
            if new:
                settings = replace(old.unprotected(ids), removals={**old.removals, **new})
                controller.ports.journal.record_operator(settings)
                controller.memory.operator = settings
                for one in new:
                    controller.event("give back", "Ray's autoscaler gives it back", instance_id=one)
                await controller.round()
        return {"instance_ids": ids}

    async def _asked(self, node_type: str, count: int) -> tuple[Sequence[str], str]:
        controller, memory = self._controller, self._controller.memory
        if controller.going_down:
            return (), f"the cluster goes down: {controller.going_down}"
        asking = memory.asking = Asking(node_type, count)
        try:
            await controller.round()
        finally:
            memory.asking = None
        if controller.ledger.trouble:
            raise JournalError(controller.ledger.trouble)
        ids = asking.ids or ()
        silent = "nothing can be launched while Ray does not answer"
        return ids, (asking.why or silent) if len(ids) < count else ""

    def _say(self, node_type: str, count: int, launched: int, why: str) -> None:
        """Show a refusal, and note it once: Ray asks again every five seconds."""
        controller = self._controller
        if why:
            text = f"Ray's autoscaler asks for {count} of {node_type} and gets {launched}: {why}"
            controller.memory.denied[node_type] = (controller.ports.clock.now_s(), text)
            if self._said.get(node_type) != why:
                controller.event("refused", text, node_type=node_type)
        self._said[node_type] = why

    def _head(self) -> dict[str, Any]:
        snapshot = self._controller.memory.snapshot
        nodes = snapshot.ray.nodes if snapshot and snapshot.ray else ()
        node = next((one for one in nodes if one.is_head), None)
        return {
            "instance_id": HEAD_INSTANCE_ID,
            "node_type": self._controller.spec.head_type.name,
            "running": node is not None,
            "node_id": node.node_id if node else "",
            "ip": node.ip if node else "",
        }

    def _refuse_unless_asked_for(self) -> None:
        if not self._controller.policy.ray_decides:
            raise Refused("refused", "Heliostat decides here; write provider.autoscaler: ray")


def _there(controller: Controller) -> list[Instance]:
    """Return what Ray may count on: what has been given up or has failed is not among it."""
    return [
        one
        for one in controller.memory.instances
        if one.intent.intent is Intent.WANTED and one.state in ALIVE
    ]


def _row(one: Instance) -> dict[str, Any]:
    joined = one.node is not None and (one.state is InstanceState.RUNNING or one.state in GOING)
    return {
        "instance_id": one.instance_id,
        "node_type": one.node_type,
        "state": one.state.value,
        "running": joined,
        "node_id": one.node.node_id if one.node and joined else "",
        "ip": one.node.ip if one.node and joined else "",
        "detail": (one.row.detail or "") if one.row else "",
    }
