"""Heliostat's planner with the interface of Ray's own scheduler (docs/ray-scheduler.md).

For those who run Ray's monitor, and to run what is written for Ray's scheduler against ours.
"""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from ray.autoscaler.v2.scheduler import IResourceScheduler

from heliostat.model.history import History
from heliostat.model.plan import Plan
from heliostat.planner import fold, plan
from heliostat.raylink.scheduling_reply import Answer
from heliostat.raylink.scheduling_request import Asked, asked

_logger = logging.getLogger(__name__)

BELIEVED = 1_000
"""So many reports in a row are taken as read: Ray's scheduler acts on a node's first idle report."""


class HeliostatScheduler(IResourceScheduler):  # type: ignore[misc]
    """Answers Ray's `SchedulingRequest` with what the planner decides.

    Keeps the history of its calls; one object serves one cluster. `now_s` returns Unix seconds,
    `new_id` ids for Ray's requests, unique for ever. `event_logger` is Ray's, for the lines that
    drivers print.
    """

    def __init__(
        self,
        event_logger: Any | None = None,
        *,
        now_s: Callable[[], float] = time.time,
        new_id: Callable[[], str] = lambda: str(uuid.uuid4()),
    ) -> None:
        self._event_logger = event_logger
        self._now_s = now_s
        self._new_id = new_id
        self._history: History | None = None

    def schedule(self, request: Any) -> Any:
        """Return a `SchedulingReply`; as in Ray, it holds only what no earlier call has asked for.

        The caller has to act on it, and to show in the next request what became of it.
        """
        found = asked(request, now_s=self._now_s())
        self._history = fold(_prepared(self._history, found), found.snapshot, found.policy)
        planned = plan(found.snapshot, self._history, found.policy)
        reply = Answer(found, planned, self._history, self._new_id).reply()
        self._tell(planned, reply)
        return reply

    def _tell(self, planned: Plan, reply: Any) -> None:
        for action in planned.actions:
            _logger.info("%s", action.reason.text)
        if self._event_logger is not None:
            self._event_logger.log_cluster_scheduling_update(
                launch_requests=reply.to_launch,
                terminate_requests=reply.to_terminate,
                infeasible_requests=reply.infeasible_resource_requests,
                infeasible_gang_requests=reply.infeasible_gang_resource_requests,
                infeasible_cluster_resource_constraints=reply.infeasible_cluster_resource_constraints,
                cluster_resources=reply.cluster_resources,
            )


def _prepared(history: History | None, found: Asked) -> History:
    """Return the history with what Ray's monitor sees to by itself taken as settled.

    Idle time is Ray's own count, believed at once; no type has to prove itself. What runs at the
    first call has not just joined.
    """
    if history is None:
        running = (key for key, one in found.members.items() if one.node is not None)
        history = History(joined_at=dict.fromkeys(running, 0.0))
    idle = (node.node_id for node in found.ray.nodes)
    return replace(
        history,
        idle_since={},
        reports=dict.fromkeys(idle, BELIEVED),
        rounds_at_s=found.snapshot.now_s,
        proven={one.name: one.shape_id for one in found.policy.node_types},
    )


def use_in(autoscaler: Any) -> HeliostatScheduler:
    """Let a Ray `Autoscaler` (of `ray.autoscaler.v2`) decide with the planner from its next round on.

    Ray has no setting for this. Its `Autoscaler` hands `_scheduler` to every round, and that one
    attribute of the given object is set; nothing of Ray's own modules is changed.
    """
    if not isinstance(getattr(autoscaler, "_scheduler", None), IResourceScheduler):
        raise TypeError(f"{type(autoscaler).__name__} keeps no scheduler where Ray 2.60's Autoscaler does")
    scheduler = HeliostatScheduler(autoscaler._event_logger)
    autoscaler._scheduler = scheduler
    return scheduler
