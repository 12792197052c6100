"""What a backend is asked beside the plan: to end what it lists still, to let go what it holds back. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from heliostat.control.memory import Memory
from heliostat.model.instance import BackendInstance, Change, Intent
from heliostat.model.snapshot import BackendView


def follow_up(memory: Memory, view: BackendView, *, before_s: float) -> Change:
    """Return the released instances that are still listed, and the types whose shape has come up and of
    which some are still held back, each last asked for before `before_s`."""
    asked = memory.asked
    released = {one.instance_id for one in memory.intents.values() if one.intent is Intent.RELEASED}
    listed = [row.instance_id for row in view.rows if row.instance_id in released]
    held = sorted({row.node_type for row in view.rows if row.throttled and _has_come_up(memory, row)})
    return Change(
        terminate=tuple(one for one in listed if asked.get(one, float("-inf")) <= before_s),
        unthrottle=tuple(one for one in held if asked.get(letting_go(one), float("-inf")) <= before_s),
    )


def _has_come_up(memory: Memory, row: BackendInstance) -> bool:
    intent = memory.intents.get(row.instance_id)
    return intent is not None and memory.history.has_come_up(intent.node_type, intent.shape_id)


def letting_go(node_type: str) -> str:
    return f"unthrottle {node_type}"


def follow_ups(memory: Memory, views: Mapping[str, BackendView], *, before_s: float) -> dict[str, Change]:
    """Return the same for each backend."""
    return {name: follow_up(memory, view, before_s=before_s) for name, view in views.items()}
