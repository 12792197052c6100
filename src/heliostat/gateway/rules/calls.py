"""The calls in flight and those that ended lately: who, what, since when, how it ended. In memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Protocol

from heliostat.gateway.caller import Caller
from heliostat.gateway.work.port import Needs
from heliostat.model.gateway import Right

LATELY_MAX = 200

WAITING = "waiting"
"""How a line begins that says that a call has no node yet."""


class Ask(Protocol):
    """What somebody wants to do, as far as the rules look at it.

    `function` is the service's, such as run_python; `published` an owner's function, with the right CALL.
    `right` None is for whoever may do anything at all. `needs` None: it takes nothing of the cluster's, so it
    counts for no limit. `script` is the text of what will run.
    """

    @property
    def call_id(self) -> str: ...
    @property
    def function(self) -> str: ...
    @property
    def right(self) -> Right | None: ...
    @property
    def published(self) -> str | None: ...
    @property
    def payload_bytes(self) -> int: ...
    @property
    def needs(self) -> Needs | None: ...
    @property
    def script(self) -> str | None: ...


@dataclass(frozen=True)
class Call:
    """One call of some cost, as the owner and administrators see it; times are Unix seconds.

    `who` is for people, `account` is whose it is; `sign_ins` are the ids under which the caller may be known
    to the server. `note` is the last line that was said of it. `outcome` is "ok" or a code; empty: it has
    not ended.
    """

    call_id: str
    who: str
    account: str
    sign_ins: frozenset[str]
    function: str
    published: str | None
    needs: Needs
    since_s: float
    note: str = ""
    outcome: str = ""
    ended_at_s: float | None = None
    gpu_s: float = 0.0

    @property
    def is_waiting(self) -> bool:
        return not self.outcome and self.note.startswith(WAITING)

    def is_of(self, who: str) -> bool:
        """Say whether an e-mail address or one of the server's ids is this caller's."""
        return who in self.sign_ins or who.lower() in (self.account, self.who)

    def facts(self) -> dict[str, Any]:
        """Return plain values, for people and programs."""
        plain = {**vars(self), "needs": vars(self.needs), "is_waiting": self.is_waiting}
        del plain["sign_ins"]
        return plain


def call_of(caller: Caller, ask: Ask, *, needs: Needs, now_s: float) -> Call:
    """Return the call that begins now; `needs` are what it asks for within its limits."""
    return Call(
        call_id=ask.call_id,
        who=caller.name,
        account=caller.account,
        sign_ins=frozenset(filter(None, (caller.id, caller.parent))),
        function=ask.function,
        published=ask.published,
        needs=needs,
        since_s=now_s,
    )


class CallRegister:
    """What is in flight, in the order in which it began, and the last `LATELY_MAX` that ended."""

    def __init__(self) -> None:
        self._open: dict[str, Call] = {}
        self._waiting: set[str] = set()
        self._stops: dict[str, Callable[[], object]] = {}
        self._why: dict[str, str] = {}
        self._ended: deque[Call] = deque(maxlen=LATELY_MAX)

    def begin(self, call: Call) -> None:
        self._open[call.call_id] = call

    def note(self, call_id: str, line: str) -> None:
        """Keep the last line that was said of a call; one that has ended is passed over."""
        if call_id in self._open:
            call = self._open[call_id] = replace(self._open[call_id], note=line)
            (self._waiting.add if call.is_waiting else self._waiting.discard)(call_id)

    def on_stop(self, call_id: str, stop: Callable[[], object]) -> None:
        """Say what ends the call's work; it is done at once if the call was stopped before."""
        self._stops[call_id] = stop
        if call_id in self._why:
            stop()

    def forget(self, call_id: str) -> None:
        """Take back a call that could not begin, or that goes on without this gateway."""
        del self._open[call_id]
        self._waiting.discard(call_id)
        self._stops.pop(call_id, None)
        self._why.pop(call_id, None)

    def end(self, call_id: str, outcome: str, *, gpu_s: float, now_s: float) -> Call:
        call = replace(self._open.pop(call_id), outcome=outcome, gpu_s=gpu_s, ended_at_s=now_s)
        self._waiting.discard(call_id)
        self._stops.pop(call_id, None)
        self._why.pop(call_id, None)
        self._ended.append(call)
        return call

    def stop(self, call_id: str, why: str) -> bool:
        """End a call's work; `why` is told to its caller. Say whether there was such a call."""
        if call_id not in self._open:
            return False
        self._why.setdefault(call_id, why)
        if call_id in self._stops:
            self._stops[call_id]()
        return True

    def why_stopped(self, call_id: str) -> str | None:
        return self._why.get(call_id)

    def call(self, call_id: str) -> Call | None:
        return self._open.get(call_id)

    def counts(self) -> tuple[int, int]:
        """Return how many calls are in flight, and how many of these wait for a node. For any thread."""
        return len(self._open), len(self._waiting)

    def in_flight(self, account: str | None = None) -> list[Call]:
        return list(_of(account, iter(self._open.values())))

    def lately(self, account: str | None = None, *, limit: int = LATELY_MAX) -> list[Call]:
        """Return the calls that ended last, the latest first."""
        return list(_of(account, reversed(self._ended)))[:limit]


def _of(account: str | None, calls: Iterator[Call]) -> Iterator[Call]:
    return (one for one in calls if account is None or one.account == account)
