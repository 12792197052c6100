"""What the controllers of a run asked, and what they were told: what checks hold against the world."""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from heliostat.model.instance import Change, DrainReason, InstanceIntent, Intent
from heliostat.ports.journal import Event

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


@dataclass
class Witness:
    """Sees all calls, by the run's clock.

    intents         what the journal holds, by instance id; `forgotten` what it once held, `written`
                    what it holds or held; `unwritten` was asked for and was never in it
    refused         how many instances a backend did not accept
    recorded        every intent ever written; `releases` the last release of each instance
    troubled_at_s   when anything last stood between the controller and the world, by whom: a backend's
                    name, «ray», «controller»
    on_terminate    hears of each instance (backend, id) that a backend is about to be told to end
    """

    launches: dict[str, Asked] = field(default_factory=dict)
    drains: dict[str, list[Drained]] = field(default_factory=dict)
    intents: dict[str, InstanceIntent] = field(default_factory=dict)
    forgotten: set[str] = field(default_factory=set)
    written: set[str] = field(default_factory=set)
    unwritten: list[str] = field(default_factory=list)
    refused: int = 0
    recorded: list[Recorded] = field(default_factory=list)
    releases: dict[str, Recorded] = field(default_factory=dict)
    calls: dict[str, deque[float]] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)
    troubled_at_s: dict[str, float] = field(default_factory=dict)
    on_terminate: Callable[[str, str], None] = lambda *_: None

    def called(self, name: str, now_s: float) -> None:
        self.counts[name] += 1
        recent = self.calls.setdefault(name, deque())
        recent.append(now_s)
        while recent[0] < now_s - CALLS_KEPT_S:
            recent.popleft()

    def troubled(self, whose: str, now_s: float) -> None:
        self.troubled_at_s[whose] = now_s

    def untroubled_s(self, now_s: float, *whose: str) -> float:
        """Return for how long none of these has been in trouble; endless if none ever was."""
        return now_s - max(self.troubled_at_s.get(one, -math.inf) for one in whose)

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

    def drained(self, node_id: str, drain: Drained) -> None:
        self.drains.setdefault(node_id, []).append(drain)

    def wrote(self, intents: Sequence[InstanceIntent], events: Sequence[Event], now_s: float) -> None:
        """Hear of intents that are in the journal now."""
        self.written.update(one.instance_id for one in intents)
        self.noted(intents, events, now_s)

    def noted(self, intents: Sequence[InstanceIntent], events: Sequence[Event], now_s: float) -> None:
        """Hear of intents that the controller knows, and that may be lost with it."""
        whys = {one.instance_id: str(one.data.get("why", "")) for one in events if "why" in one.data}
        for one in intents:
            text, why = one.release_reason or one.reason, whys.get(one.instance_id, "")
            launch = one.intent is Intent.WANTED
            found = Recorded(now_s, one.instance_id, one.node_type, launch, why, text)
            self.intents[one.instance_id] = one
            self.recorded.append(found)
            if not launch:
                self.releases[one.instance_id] = found

    def forgot(self, instance_ids: Sequence[str]) -> None:
        self.forgotten.update(instance_ids)
        for one in instance_ids:
            self.intents.pop(one, None)
