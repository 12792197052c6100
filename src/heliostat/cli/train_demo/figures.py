"""What was seen of one training, and the figures that follow from it. Pure.

Times are seconds of one clock that all processes of this machine share.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

SIZES_COMPARED = (1, 3)


@dataclass(frozen=True)
class Step:
    """One step that counted. `quiet`: nobody joined or left just before it."""

    at_s: float
    number: int
    size: int
    samples_per_s: float
    loss: float
    sync_s: float
    quiet: bool


@dataclass(frozen=True)
class Change:
    """A member that joined or left, and why, in a word and in several; `size` is the group's after it."""

    at_s: float
    joined: bool
    member: str
    node_id: str
    size: int
    reason: str = ""
    detail: str = ""


@dataclass
class Record:
    """Everything that the driver told, in order. `waits_s`: from a node's join to the first step on it."""

    steps: list[Step] = field(default_factory=list)
    changes: list[Change] = field(default_factory=list)
    waits_s: dict[str, float] = field(default_factory=dict)
    lost_steps: int = 0
    final_accuracy: float | None = None
    fixed_accuracy: float | None = None

    @property
    def size(self) -> int:
        """The group's size after the last change."""
        return self.changes[-1].size if self.changes else 0

    @property
    def steps_at_size(self) -> int:
        """Steps since the last change."""
        since_s = self.changes[-1].at_s if self.changes else 0.0
        return sum(one.at_s > since_s for one in self.steps)

    def take(self, fact: Mapping[str, Any]) -> Step | Change | None:
        """Take in one line of the driver's; return what is new to be shown, if it is a step or a change."""
        kind = fact["kind"]
        if kind == "step":
            return self._step(fact)
        elif kind in ("join", "leave"):
            return self._change(fact, joined=kind == "join")
        elif kind == "first step":
            self.waits_s.setdefault(fact["node_id"], fact["since_joined_s"])
        elif kind == "trained":
            self.lost_steps, self.final_accuracy = fact["lost"], fact["accuracy"]
        elif kind == "fixed":
            self.fixed_accuracy = fact["accuracy"]
        return None

    def _step(self, fact: Mapping[str, Any]) -> Step:
        step = Step(
            at_s=fact["at_s"],
            number=fact["number"],
            size=fact["size"],
            samples_per_s=fact["samples_per_s"],
            loss=fact["loss"],
            sync_s=fact["sync_s"],
            quiet=not fact["changed"],
        )
        self.steps.append(step)
        return step

    def _change(self, fact: Mapping[str, Any], *, joined: bool) -> Change:
        change = Change(
            at_s=fact["at_s"],
            joined=joined,
            member=fact["member"],
            node_id=fact["node_id"],
            size=self.size + (1 if joined else -1),
            reason=fact.get("reason", ""),
            detail=fact.get("detail", ""),
        )
        self.changes.append(change)
        return change


def figures(record: Record) -> dict[str, Any]:
    """Return what `--json` prints; None for what was not seen, like the speed of a size never reached.

    Throughput is in samples a second, the median over the quiet steps at that size. `sync_ms` is the
    median where nothing changed, `join_to_first_step_s` that of all nodes but the first, which
    joined before there was a training.
    """
    quiet_ms = [one.sync_s * 1_000 for one in record.steps if one.quiet]
    return {
        "steps": len(record.steps),
        "lost_steps": record.lost_steps,
        "sizes": sizes(record.steps),
        "throughput": {str(size): _rounded(throughput(record.steps, size), 1) for size in SIZES_COMPARED},
        "sync_ms": _rounded(_median(quiet_ms), 3),
        "join_to_first_step_s": _rounded(_median(list(record.waits_s.values())[1:]), 2),
        "final_accuracy": _rounded(record.final_accuracy, 4),
        "fixed_accuracy": _rounded(record.fixed_accuracy, 4),
    }


def sizes(steps: Sequence[Step]) -> list[int]:
    """Return the sizes that steps were made with, each change once: 1, 2, 3, 2."""
    found: list[int] = []
    for step in steps:
        if found[-1:] != [step.size]:
            found.append(step.size)
    return found


def throughput(steps: Sequence[Step], size: int) -> float | None:
    """Return the median samples a second of the quiet steps with `size` members; None if there are none."""
    return _median([one.samples_per_s for one in steps if one.size == size and one.quiet])


def _median(values: Sequence[float]) -> float | None:
    return statistics.median(values) if values else None


def _rounded(value: float | None, digits: int) -> float | None:
    return None if value is None else round(value, digits)
