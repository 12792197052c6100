"""Which launches an earlier controller wrote down of which nobody knows whether they were ever asked for."""

from __future__ import annotations

from typing import Any

from heliostat.control.record import AGAIN, LAUNCH
from heliostat.model.instance import Intent
from heliostat.model.plan import Launch, Reason, Why
from heliostat.ports.journal import ANSWERED, FAILED, Event, Journal

AGAIN_AT_MOST = 3
"""So often a launch is asked for again. After that it is given up like any that is in no listing."""


def unanswered(journal: Journal) -> dict[str, Launch]:
    """Return the launches, by id, that are wanted, were never listed, and have no answer in the journal.

    Their controller died after it wrote them down. Without a call they were surely not sent; with one to
    which nobody heard an answer they may have been.
    """
    listed = journal.history().first_listed
    wanted = {
        one.launch_id: f"{one.launch_id}.0"
        for one in journal.intents()
        if one.intent is Intent.WANTED and not one.adopted and one.instance_id not in listed
    }
    heard = _heard(journal) if wanted else frozenset()
    events = {key: _launch_event(journal, first) for key, first in wanted.items() if key not in heard}
    planned = {key: _as_planned(one) for key, one in events.items() if one is not None}
    return {key: one for key, one in planned.items() if one is not None}


def _heard(journal: Journal) -> frozenset[str]:
    """Return the ids of the launches that had an answer.

    A call that does not name them so that we understand it (another version's) says nothing: what it asked
    for is asked for again, by the same id.
    """
    asked = [one.asked.get("launch") for one in journal.calls() if one.ended in {ANSWERED, FAILED}]
    launches = [one for several in asked if isinstance(several, list) for one in several]
    ids = [one.get("launch_id") for one in launches if isinstance(one, dict)]
    return frozenset(one for one in ids if isinstance(one, str))


def _launch_event(journal: Journal, first: str) -> Event | None:
    """Return a launch's event, which is written with it, under its first member's id.

    None for one that was asked for again so often that it may be what its controllers die of.
    """
    events = journal.events(instance_id=first)
    if sum(one.kind == AGAIN for one in events) >= AGAIN_AT_MOST:
        return None
    return next((one for one in events if one.kind == LAUNCH), None)


def _as_planned(event: Event) -> Launch | None:
    """Return what was to be launched; None where the event does not say it so that we understand it.

    Then it counts as asked for: a listing has it, or it is lost.
    """
    data: dict[str, Any] = dict(event.data)
    try:
        count, why = int(data["count"]), Why(data["why"])
    except (KeyError, TypeError, ValueError):
        return None
    return Launch(event.node_type, count, Reason(why, event.text, data))
