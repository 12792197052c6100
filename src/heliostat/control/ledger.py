"""What the loop writes down, one transaction a round, and what it does while it can't.

A launch that is not in the journal is not made. All else goes on: a drain asks Ray, who refuses for the
sake of work; a release ends what is known, and is written as soon as it can be. A controller that dies
before then leaves an instance WANTED that is gone, which the next one finds out from the listings.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from itertools import count

import structlog

from heliostat.control.record import Recorded, without_launches
from heliostat.model.instance import Change
from heliostat.ports.clock import Clock
from heliostat.ports.errors import JournalError, ProviderError
from heliostat.ports.journal import ANSWERED, FAILED, UNANSWERED, Event, Journal, ProviderCall
from heliostat.ports.provider import Outcome
from heliostat.ports.telemetry import Telemetry

NAMED_AT_MOST = 50
"""So many instance ids of one change are written down; all are counted."""
ERRORS_AT_MOST = 3

log = structlog.get_logger(__name__)


class Ledger:
    """The journal as the loop uses it. `trouble` says why it can't be written; empty when it can."""

    def __init__(self, journal: Journal, *, clock: Clock, telemetry: Telemetry) -> None:
        self._journal = journal
        self._clock = clock
        self._telemetry = telemetry
        self.trouble = ""
        last = journal.calls(limit=1)
        self._numbers = count(last[-1].seq + 1 if last else 1)
        self._opened: dict[str, ProviderCall] = {}

    def write(self, recorded: Recorded, seen: Sequence[Event], *, idle: Collection[str]) -> Recorded:
        """Write a round down and return what of it may be done: without launches where it can't be written.

        `idle` are the backends that have no call under way: theirs begin with this round.
        """
        began_s = self._clock.monotonic_s()
        due = {name: one for name, one in recorded.changes.items() if one and name in idle}
        calls = {name: self._call(name, one) for name, one in due.items()}
        events = [*seen, *recorded.events]
        try:
            self._journal.record_intents(
                recorded.intents, events, calls=list(calls.values()), operator=recorded.operator
            )
        except JournalError as error:
            self._fails(error)
            recorded = without_launches(recorded)
            self._journal.note_intents(recorded.intents)
            self._journal.record_events([*seen, *recorded.events])
            return recorded
        self._opened = calls
        self._works()
        if recorded.intents or events:
            self._telemetry.observe("journal_ms", (self._clock.monotonic_s() - began_s) * 1000)
        return recorded

    def commit(self) -> None:
        """Write what is noted, if that can be done."""
        try:
            self._journal.commit()
        except JournalError as error:
            self._fails(error)

    def began(self, backend: str, change: Change) -> ProviderCall:
        """Return the call that begins now; it is on disk already if this round's transaction held it."""
        call = self._opened.pop(backend, None) or self._call(backend, change)
        call = replace(call, asked=asked(change))
        self._journal.record_call(call)
        return call

    def ended(self, call: ProviderCall, outcome: Outcome | ProviderError | None, *, took_s: float) -> None:
        """Note how a call ended: by an answer, an error, or (None) by neither within its deadline."""
        if isinstance(outcome, Outcome):
            how, error = ANSWERED, refusals(outcome)
        else:
            how, error = (FAILED, str(outcome)) if outcome is not None else (UNANSWERED, "")
        self._journal.record_call(replace(call, ended=how, took_s=took_s, error=error))

    def _call(self, backend: str, change: Change) -> ProviderCall:
        return ProviderCall(next(self._numbers), backend, self._clock.now_s(), asked(change))

    def _fails(self, error: JournalError) -> None:
        if not self.trouble:
            log.error("journal", error=str(error))
            self._say(f"nothing is launched until the journal can be written: {error}")
        self.trouble = str(error)

    def _works(self) -> None:
        if self.trouble:
            self.trouble = ""
            self._say("the journal can be written again: launches go on")

    def _say(self, text: str) -> None:
        log.info(text, kind="journal")
        self._journal.record_events([Event(self._clock.now_s(), "journal", text)])


def asked(change: Change) -> Mapping[str, object]:
    """Return what a change asks, JSON-ready and of bounded size."""
    launches = [
        {"launch_id": one.launch_id, "node_type": one.node_type.name, "count": one.count}
        for one in change.launch
    ]
    found: dict[str, object] = {"launch": launches} if launches else {}
    if change.terminate:
        found |= {"terminate": list(change.terminate[:NAMED_AT_MOST]), "terminated": len(change.terminate)}
    return found | ({"unthrottle": list(change.unthrottle)} if change.unthrottle else {})


def refusals(outcome: Outcome) -> str:
    """Return what an answer refuses, in the backend's words, each once; empty if it refuses nothing."""
    parts = {
        "launches": outcome.failed_launches,
        "instances": outcome.failed_instances,
        "terminations": outcome.failed_terminations,
    }
    texts = []
    for what, failed in parts.items():
        words = list(dict.fromkeys(map(str, failed.values())))
        more = f" and {len(words) - ERRORS_AT_MOST} more" if len(words) > ERRORS_AT_MOST else ""
        texts += [f"{len(failed)} {what}: {'; '.join(words[:ERRORS_AT_MOST])}{more}"] if failed else []
    return "; ".join(texts)
