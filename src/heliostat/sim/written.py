"""The journal as a simulated controller sees it: a dead one writes nothing, and may die of a write."""

from __future__ import annotations

from collections.abc import Sequence

from heliostat.model.history import History
from heliostat.model.instance import InstanceIntent
from heliostat.model.snapshot import OperatorSettings
from heliostat.ports.errors import JournalError
from heliostat.ports.journal import Event, Journal, Lifetime, ProviderCall, UsageRow
from heliostat.sim.membranes import Surroundings


class JournalMembrane:
    """`ports.journal.Journal`; the witness hears of every intent that was committed."""

    def __init__(self, inner: Journal, around: Surroundings) -> None:
        self._inner = inner
        self._around = around

    def intents(self) -> tuple[InstanceIntent, ...]:
        self._around.process.check()
        found = self._inner.intents()
        self._around.witness.began(found, self._around.loop.time())
        return found

    def record_intents(
        self,
        intents: Sequence[InstanceIntent],
        events: Sequence[Event],
        *,
        calls: Sequence[ProviderCall] = (),
        operator: OperatorSettings | None = None,
    ) -> None:
        self._around.process.check()
        for one in intents:
            self._around.trace.add(
                "journal", one.intent.value, one.instance_id, one.release_reason or one.reason
            )
        self._traced(events)
        try:
            self._inner.record_intents(intents, events, calls=calls, operator=operator)
        except JournalError as error:
            self._around.trace.add("journal", "refuses", error)
            raise
        self._around.witness.wrote(intents, self._around.loop.time())
        if intents:
            self._around.dies("crash between journal and act")

    def note_intents(self, intents: Sequence[InstanceIntent]) -> None:
        self._around.process.check()
        self._inner.note_intents(intents)
        self._around.witness.noted(intents, self._around.loop.time())

    def commit(self) -> None:
        self._around.process.check()
        self._inner.commit()

    def forget_intents(self, instance_ids: Sequence[str]) -> None:
        self._around.process.check()
        self._around.trace.add("journal", "forgets", *instance_ids)
        self._inner.forget_intents(instance_ids)
        self._around.witness.forgot(instance_ids)

    def record_events(self, events: Sequence[Event]) -> None:
        self._around.process.check()
        self._traced(events)
        self._inner.record_events(events)

    def record_call(self, call: ProviderCall) -> None:
        self._around.process.check()
        self._inner.record_call(call)

    def calls(self, *, limit: int = 1000) -> tuple[ProviderCall, ...]:
        self._around.process.check()
        return self._inner.calls(limit=limit)

    def record_lifetimes(self, lifetimes: Sequence[Lifetime]) -> None:
        self._around.process.check()
        self._inner.record_lifetimes(lifetimes)

    def lifetimes(self, *, limit: int = 1000) -> tuple[Lifetime, ...]:
        self._around.process.check()
        return self._inner.lifetimes(limit=limit)

    def events(
        self, *, after_seq: int = 0, limit: int = 1000, instance_id: str | None = None
    ) -> tuple[Event, ...]:
        self._around.process.check()
        return self._inner.events(after_seq=after_seq, limit=limit, instance_id=instance_id)

    def history(self) -> History:
        self._around.process.check()
        return self._inner.history()

    def record_history(self, history: History) -> None:
        self._around.process.check()
        self._inner.record_history(history)

    def operator(self) -> OperatorSettings:
        self._around.process.check()
        return self._inner.operator()

    def record_operator(self, settings: OperatorSettings) -> None:
        self._around.process.check()
        self._inner.record_operator(settings)

    def note_operator(self, settings: OperatorSettings) -> None:
        self._around.process.check()
        self._inner.note_operator(settings)

    def add_usage(self, rows: Sequence[UsageRow]) -> None:
        self._around.process.check()
        self._inner.add_usage(rows)

    def usage(self) -> tuple[UsageRow, ...]:
        self._around.process.check()
        return self._inner.usage()

    def close(self) -> None:
        """Leave the database to the next controller."""

    def _traced(self, events: Sequence[Event]) -> None:
        self._around.witness.told(events)
        for one in events:
            self._around.trace.add("event", one.kind, one.instance_id, one.text)
            if one.kind == "down":
                self._around.witness.down_s = self._around.loop.time()
