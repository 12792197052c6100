"""Many seeds, several processes, and the figures of all of them together."""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field

from heliostat.sim.run import Result, run
from heliostat.sim.seeds import scenario

CHUNK = 10
"""So many seeds go to a process at a time: some runs take a hundred times as long as others."""


@dataclass(frozen=True)
class Summary:
    """What is kept of one run."""

    seed: int
    steps: int
    digest: str
    faults: Counter[str]
    failure: dict[str, object] | None


@dataclass
class Campaign:
    """Figures of all runs so far. `took_s` is real time, all processes at once."""

    runs: int = 0
    steps: int = 0
    took_s: float = 0.0
    faults: Counter[str] = field(default_factory=Counter)
    violations: list[dict[str, object]] = field(default_factory=list)

    def add(self, one: Summary) -> None:
        self.runs += 1
        self.steps += one.steps
        self.faults += one.faults
        if one.failure is not None:
            self.violations.append(one.failure)

    def as_json(self) -> dict[str, object]:
        return {
            "runs": self.runs,
            "steps": self.steps,
            "took_s": round(self.took_s, 2),
            "steps_per_s": round(self.steps / self.took_s) if self.took_s else 0,
            "faults": dict(sorted(self.faults.items())),
            "violations": self.violations,
        }


def campaign(
    seeds: Iterable[int],
    *,
    jobs: int,
    stopwatch: Callable[[], float],
    heard: Callable[[Summary], None] = lambda _: None,
    begin: Callable[[], None] | None = None,
) -> Campaign:
    """Run all seeds in `jobs` processes, each of which calls `begin`, a function that can be pickled, first.

    `heard` is told of each run, in the seeds' order; `stopwatch` gives real seconds.
    """
    found, began_s = Campaign(), stopwatch()
    for one in _summaries(list(seeds), jobs, begin):
        found.add(one)
        heard(one)
    found.took_s = stopwatch() - began_s
    return found


def _summaries(seeds: list[int], jobs: int, begin: Callable[[], None] | None) -> Iterator[Summary]:
    if jobs == 1:
        yield from map(summary, seeds)
        return
    with ProcessPoolExecutor(jobs, initializer=begin) as pool:
        yield from pool.map(summary, seeds, chunksize=CHUNK)


def summary(seed: int) -> Summary:
    """Run one seed."""
    found = summarised(run(scenario(seed)))
    # A run is one knot of references; no other is left, so the whole of it goes now.
    gc.collect()
    return found


def summarised(result: Result) -> Summary:
    violation = result.violation
    failure: dict[str, object] | None = None
    if violation is not None:
        failure = {
            "seed": result.seed,
            "check": violation.check,
            "text": violation.text,
            "at_s": violation.at_s,
            "step": violation.step,
            "trace_hash": result.digest,
        }
    return Summary(result.seed, result.steps, result.digest, result.faults, failure)
