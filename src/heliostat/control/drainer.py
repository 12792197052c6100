"""Ask Ray to drain nodes, off the loop's path, and remember its answers. Ray's refusal stands."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog

from heliostat.control.memory import Memory, Refusal
from heliostat.model.plan import Drain
from heliostat.ports.cluster import Cluster
from heliostat.ports.errors import ClusterError

log = structlog.get_logger(__name__)

Say = Callable[[str, str, str], None]
"""(kind, text, instance id): writes one event."""


class Drainer:
    """Asks for each drain once, and again only after `ask_again_s`: Ray may have changed its mind.

    A drain for another reason is another question: who was refused as idle is told of a preemption at once.
    """

    def __init__(self, cluster: Cluster, memory: Memory, *, ask_again_s: float, say: Say) -> None:
        self._cluster = cluster
        self._memory = memory
        self._ask_again_s = ask_again_s
        self._say = say
        self._tasks: set[asyncio.Task[None]] = set()

    def submit(self, drain: Drain, now_s: float) -> None:
        """Start asking, unless it was asked lately; `now_s` is monotonic."""
        known = self._memory.drains.get(drain.instance_id)
        same = known is not None and known.reason is drain.drain_reason
        if known is not None and same and now_s - known.at_s < self._ask_again_s:
            return
        self._memory.drains[drain.instance_id] = Refusal(
            now_s, known.text if known else "", drain.drain_reason, drain.reason.why
        )
        task = asyncio.create_task(self._ask(drain))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _ask(self, drain: Drain) -> None:
        try:
            reply = await self._cluster.drain(
                drain.node_id,
                reason=drain.drain_reason,
                message=drain.reason.text,
                deadline_s=drain.deadline_s,
            )
        except ClusterError as error:
            log.warning("drain not heard", instance=drain.instance_id, error=str(error))
            return
        refusal = self._memory.drains.get(drain.instance_id)
        text = "" if reply.accepted else reply.message
        if reply.accepted:
            self._say("drain", f"Ray agrees: {drain.reason.text}", drain.instance_id)
        elif refusal is None or refusal.text != text:
            self._say("refused", f"Ray keeps it: {text}", drain.instance_id)
        if refusal is not None:
            refusal.text = text
