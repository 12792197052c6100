"""What the controllers of a run asked, and what they were told: what checks hold against the world."""

from __future__ import annotations

import contextlib
import math
from bisect import bisect_right
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from heliostat.control.record import AGAIN, LAUNCH
from heliostat.control.wiring import Timing
from heliostat.model.instance import Change, DrainReason, InstanceIntent, Intent, LaunchRequest
from heliostat.model.plan import Why
from heliostat.planner.limits import BACKOFF_FIRST_S, BREAKER_FAILURES, BREAKER_FIRST_S
from heliostat.ports.errors import ProviderError, Unavailable
from heliostat.ports.journal import Event
from heliostat.ports.provider import Outcome

WRITTEN_S = Timing().history_s + 2.0
"""What a controller has known for so long is on the disk: a round and a slow answer of Ray's come on top."""

CALLS_KEPT_S = 60.0
"""Calls are counted over the last minute."""


def lies_of(backend: str) -> str:
    """Return the name of a backend's listings, where they show less than there is, in `troubled_at_s`."""
    return f"lies of {backend}"


@dataclass(frozen=True)
class Asked:
    """One launch that reached a backend, first at `at_s` (seconds of the run)."""

    at_s: float
    backend: str
    node_type: str
    instance_ids: tuple[str, ...]
    together: bool
    at_once: int | None


@dataclass(frozen=True)
class Drained:
    """Ray's answer to a drain, whether the controller heard it or not."""

    at_s: float
    reason: DrainReason
    accepted: bool
    deadline_s: float | None


@dataclass(frozen=True)
class Recorded:
    """One intent that was written: `why` is a launch's or release's reason as data, `text` in words."""

    at_s: float
    instance_id: str
    node_type: str
    is_launch: bool
    why: str
    text: str


@dataclass(frozen=True)
class Quiet:
    """A controller heard at `since_s` that it may ask no more before `until_s` (seconds of the run)."""

    since_s: float
    until_s: float


@dataclass
class Witness:
    """Sees all calls, by the run's clock.

    drains          Ray's answers by node id; `answered` the same in their order
    intents         what the journal holds, by instance id; `forgotten` what it once held, `buried` the same
                    in the order in which it went; `written` what it holds or held; `unwritten` was asked
                    for and was never in it; `under_way` is being asked for by a controller that lives
    durable         what is in the journal for good; `vanished` was, and the next controller did not find it
    losses          how often the journal went; `before_loss` was asked for before the last time
    refused         how many instances a backend did not accept
    denied          instances of which a controller heard from their backend that it did not accept them
    quiet           until when a node type, or a whole backend, must not be launched, by its name
    unanswered      how many calls of each backend wait for an answer that is late, or never comes
    listings        when each honest listing of a backend began, and when it was given
    recorded        every intent ever written; `releases` the last release of each instance,
                    `launched_s` when each was first wanted, `whys` the reason last told of each,
                    `gangs` how many a gang's launch was said to have, by launch id; `agains` how often one
                    was asked for again
    answers         the launches to which a controller heard an answer
    inherited       the launches with neither an answer nor a backend that got them, which the living
                    controller found in the journal at `began_s` and has not asked for, with the members
                    that it found
    troubled_at_s   when anything last stood between the controller and the world, by whom: a backend's
                    name, «ray», «controller»
    asked_by_hand   how often people asked for something; `added` how many workers, `removed` which are to go
                    (`due_s`: by when; `timed` ever were to go by a time), `protected` which are to stay,
                    since when; `paused_s` since when nothing is to be decided, `applied_s` when the file
                    last changed
    full_s          since when the disk is full, endless where it is not
    down_s          when a controller last began to take the cluster down
    on_terminate    hears of each instance (backend, id) that a backend is about to be told to end
    """

    launches: dict[str, Asked] = field(default_factory=dict)
    drains: dict[str, list[Drained]] = field(default_factory=dict)
    answered: list[tuple[str, Drained]] = field(default_factory=list)
    intents: dict[str, InstanceIntent] = field(default_factory=dict)
    forgotten: set[str] = field(default_factory=set)
    buried: list[str] = field(default_factory=list)
    written: set[str] = field(default_factory=set)
    under_way: set[str] = field(default_factory=set)
    unwritten: list[str] = field(default_factory=list)
    durable: dict[str, Intent] = field(default_factory=dict)
    vanished: list[str] = field(default_factory=list)
    losses: int = 0
    before_loss: set[str] = field(default_factory=set)
    refused: int = 0
    denied: set[str] = field(default_factory=set)
    quiet: dict[str, Quiet] = field(default_factory=dict)
    failed_calls: Counter[str] = field(default_factory=Counter)
    recorded: list[Recorded] = field(default_factory=list)
    releases: dict[str, Recorded] = field(default_factory=dict)
    whys: dict[str, str] = field(default_factory=dict)
    gangs: dict[str, int] = field(default_factory=dict)
    agains: Counter[str] = field(default_factory=Counter)
    answers: set[str] = field(default_factory=set)
    inherited: dict[str, list[InstanceIntent]] = field(default_factory=dict)
    began_s: float = -math.inf
    launched_s: dict[str, float] = field(default_factory=dict)
    unanswered: Counter[str] = field(default_factory=Counter)
    listings: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    calls: dict[str, deque[float]] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)
    troubled_at_s: dict[str, float] = field(default_factory=dict)
    asked_by_hand: int = 0
    added: int = 0
    removed: set[str] = field(default_factory=set)
    due_s: dict[str, float] = field(default_factory=dict)
    timed: set[str] = field(default_factory=set)
    protected: dict[str, float] = field(default_factory=dict)
    paused_s: float | None = None
    applications: int = 0
    applied_s: float = -math.inf
    full_s: float = math.inf
    down_s: float = math.inf
    on_terminate: Callable[[str, str], None] = lambda *_: None

    def called(self, name: str, now_s: float) -> None:
        self.counts[name] += 1
        recent = self.calls.setdefault(name, deque())
        recent.append(now_s)
        while recent[0] < now_s - CALLS_KEPT_S:
            recent.popleft()

    def troubled(self, whose: str, now_s: float) -> None:
        self.troubled_at_s[whose] = now_s

    @contextlib.contextmanager
    def waiting(self, backend: str) -> Iterator[None]:
        """Count a call that is not answered: its backend is in trouble for so long."""
        self.unanswered[backend] += 1
        try:
            yield
        finally:
            self.unanswered[backend] -= 1

    def untroubled_s(self, now_s: float, *whose: str) -> float:
        """Return for how long none of these has been in trouble; endless if none ever was."""
        return now_s - max(self.troubled_at_s.get(one, -math.inf) for one in whose)

    def sent(self, change: Change) -> None:
        """Hear of a change that a controller asks for, whether or not it will ever reach the backend."""
        for one in change.launch:
            self.inherited.pop(one.launch_id, None)

    def asked(self, backend: str, change: Change, now_s: float) -> None:
        """Hear of a change that is about to reach a backend."""
        for one in change.launch:
            self.unwritten += [key for key in one.instance_ids if key not in self.written]
            if one.launch_id not in self.launches:
                self.launches[one.launch_id] = Asked(
                    now_s, backend, one.node_type.name, one.instance_ids, one.together, one.at_once
                )
        for instance_id in change.terminate:
            self.on_terminate(backend, instance_id)

    def heard(self, backend: str, change: Change, answer: Outcome | ProviderError, now_s: float) -> None:
        """Hear what a controller is told of a change: what was refused is let wait, what was accepted not.

        A type waits for the first backoff at least, or as long as its backend asks; a backend of which
        several calls in a row failed for `BREAKER_FIRST_S`.
        """
        self.answers.update(one.launch_id for one in change.launch)
        for one in change.launch:
            self.denied.difference_update(one.instance_ids)
            self.denied.update(_denied(one, answer))
        errors = [(one, _refusal(one, answer)) for one in change.launch]
        for request, error in errors:
            if error is None:
                self.quiet.pop(request.node_type.name, None)
            elif not isinstance(error, Unavailable):
                self._refused(request, error, now_s)
        if errors:
            down = all(isinstance(error, Unavailable) for _, error in errors)
            self.failed_calls[backend] = self.failed_calls[backend] + 1 if down else 0
        if not self.failed_calls[backend]:
            self.quiet.pop(backend, None)
        elif errors and self.failed_calls[backend] >= BREAKER_FAILURES:
            self._calm_down(backend, BREAKER_FIRST_S, now_s)

    def _refused(self, request: LaunchRequest, error: ProviderError, now_s: float) -> None:
        """Let a type wait, unless nobody wants the refused ones any more: nobody looks at these."""
        wanted = [one for one in request.instance_ids if self._is_wanted(one)]
        known = self.quiet.get(request.node_type.name, Quiet(-math.inf, -math.inf))
        # What was asked for before the last refusal is no other attempt.
        again = any(self.launched_s[one] > known.since_s for one in wanted)
        wait_s = max(BACKOFF_FIRST_S if again else 0.0, error.retry_after_s or 0.0)
        if wanted and wait_s:
            self._calm_down(request.node_type.name, wait_s, now_s)

    def _is_wanted(self, instance_id: str) -> bool:
        found = self.intents.get(instance_id)
        return found is not None and found.intent is Intent.WANTED

    def died(self, now_s: float) -> None:
        """Hear that the controller is dead: the next one knows what was written, and not the latest."""
        self.troubled("controller", now_s)
        self.under_way.clear()
        self.unanswered.clear()
        self.failed_calls.clear()
        last_s = min(now_s, self.full_s) - WRITTEN_S
        self.quiet = {name: one for name, one in self.quiet.items() if one.since_s <= last_s}

    def unwritable(self, now_s: float, *, full: bool) -> None:
        """Hear that the disk is full from now on, or no longer: what was heard last may not be written."""
        self.troubled("controller", now_s)
        self.full_s = now_s if full else math.inf
        self.quiet.clear()

    def _calm_down(self, name: str, wait_s: float, now_s: float) -> None:
        known = self.quiet.get(name)
        if known is None or now_s + wait_s > known.until_s:
            self.quiet[name] = Quiet(now_s, now_s + wait_s)

    def began(self, intents: Sequence[InstanceIntent], now_s: float) -> None:
        """Hear what the journal holds that a controller begins with."""
        self.began_s = now_s
        self.inherited = {}
        for one in intents:
            if not one.adopted and one.launch_id not in self.launches and one.launch_id not in self.answers:
                self.inherited.setdefault(one.launch_id, []).append(one)
        held = {one.instance_id: one.intent for one in intents}
        for instance_id, intent in self.durable.items():
            if instance_id not in held or (intent is Intent.RELEASED and held[instance_id] is Intent.WANTED):
                self.vanished.append(f"{instance_id}, {intent.value}")

    def paused(self, now_s: float) -> None:
        """Hear that a controller has said that it decides nothing."""
        self.paused_s = now_s
        self.troubled("controller", now_s)

    def goes_on(self, now_s: float) -> None:
        self.paused_s = None
        self.troubled("controller", now_s)

    def applied(self, now_s: float) -> None:
        """Hear that the file was changed: whoever has to wait is tried again."""
        self.applications += 1
        self.applied_s = now_s
        self.quiet.clear()
        self.failed_calls.clear()

    def lost_journal(self) -> None:
        """Hear that the journal is gone with all that was in it."""
        self.losses += 1
        self.quiet.clear()
        self.protected.clear()
        self.due_s.clear()
        self.paused_s = None
        self.before_loss.update(self.launched_s)
        self.forgotten.update(self.intents)
        self.intents.clear()
        self.durable.clear()

    def listed(self, backend: str, began_s: float, now_s: float) -> None:
        """Hear that a controller was given a listing that began at `began_s` and kept nothing back."""
        self.listings.setdefault(backend, []).append((began_s, now_s))

    def known_s(self, backend: str, since_s: float) -> float:
        """Return when a controller was first given a listing from after that time; endless if never."""
        listings = self.listings.get(backend, [])
        index = bisect_right(listings, (since_s, math.inf))
        return listings[index][1] if index < len(listings) else math.inf

    def drained(self, node_id: str, drain: Drained) -> None:
        self.drains.setdefault(node_id, []).append(drain)
        self.answered.append((node_id, drain))

    def wrote(self, intents: Sequence[InstanceIntent], now_s: float) -> None:
        """Hear of intents that are in the journal now."""
        self.written.update(one.instance_id for one in intents)
        self.durable.update({one.instance_id: one.intent for one in intents})
        self.noted(intents, now_s)

    def told(self, events: Sequence[Event]) -> None:
        """Hear of events that are to be written. Where the journal refuses, the intents come without them."""
        self.whys.update({one.instance_id: str(one.data["why"]) for one in events if "why" in one.data})
        for one in events:
            if one.kind == LAUNCH and one.data.get("why") == Why.GANG.value:
                self.gangs[str(one.data["launch_id"])] = int(str(one.data["count"]))
        self.agains.update(str(one.data["launch_id"]) for one in events if one.kind == AGAIN)

    def noted(self, intents: Sequence[InstanceIntent], now_s: float) -> None:
        """Hear of intents that the controller knows, and that may be lost with it."""
        for one in intents:
            text, why = one.release_reason or one.reason, self.whys.get(one.instance_id, "")
            launch = one.intent is Intent.WANTED and not one.adopted
            found = Recorded(now_s, one.instance_id, one.node_type, launch, why, text)
            self.intents[one.instance_id] = one
            self.recorded.append(found)
            if one.intent is Intent.WANTED:
                self.launched_s.setdefault(one.instance_id, now_s)
            else:
                self.releases[one.instance_id] = found

    def forgot(self, instance_ids: Sequence[str]) -> None:
        self.forgotten.update(instance_ids)
        self.buried += instance_ids
        for one in instance_ids:
            self.intents.pop(one, None)
            self.durable.pop(one, None)


def _denied(request: LaunchRequest, answer: Outcome | ProviderError) -> list[str]:
    """Return the members that the backend says it did not accept. Out of reach it says nothing."""
    whole = answer if isinstance(answer, ProviderError) else answer.failed_launches.get(request.launch_id)
    if whole is not None:
        return [] if isinstance(whole, Unavailable) else list(request.instance_ids)
    assert isinstance(answer, Outcome)
    return [one for one in request.instance_ids if one in answer.failed_instances]


def _refusal(request: LaunchRequest, answer: Outcome | ProviderError) -> ProviderError | None:
    """Return why a launch, or a member of it, did not come; None where all of it was accepted."""
    if isinstance(answer, ProviderError):
        return answer
    whole = answer.failed_launches.get(request.launch_id)
    members = (answer.failed_instances.get(one) for one in request.instance_ids)
    return whole or next((one for one in members if one is not None), None)
