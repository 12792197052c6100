"""When each instance was asked for, started, joined and ended, as the journal keeps it. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from heliostat.model.history import History
from heliostat.model.instance import Instance, InstanceState
from heliostat.ports.journal import Lifetime

_BEGUN = frozenset({InstanceState.STARTING, InstanceState.RUNNING, InstanceState.DRAINING})
_OVER = frozenset({InstanceState.GONE, InstanceState.FAILED})


def lifetimes(changed: Sequence[Instance], history: History, *, now_s: float) -> list[Lifetime]:
    """Return the times of instances whose state has changed in this round, as far as they are known now.

    The machine's start is the backend's own time where it says one, else when it was first seen.
    """
    return [_lifetime(one, history, now_s) for one in changed]


def _lifetime(one: Instance, history: History, now_s: float) -> Lifetime:
    over = one.state in _OVER
    return Lifetime(
        one.instance_id,
        one.node_type,
        one.intent.backend,
        one.intent.requested_at_s,
        native_id=one.row.native_id if one.row else "",
        started_at_s=_started_at_s(one, now_s),
        joined_at_s=history.joined_at.get(one.instance_id),
        ended_at_s=now_s if over else None,
        end=_end(one) if over else "",
    )


def _started_at_s(one: Instance, now_s: float) -> float | None:
    said = one.row.started_at_s if one.row else None
    return said if said is not None else now_s if one.state in _BEGUN else None


def _end(one: Instance) -> str:
    words = one.row.detail if one.row else ""
    return one.intent.release_reason or words or "it is in no listing any more"
