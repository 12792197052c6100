"""What a seed decides, as one frozen value: the cluster, its backends, its work, what goes wrong.

Everything that happens later is drawn from streams named after what is drawn (sim/dice.py), so a
scenario and its seed are a whole run. Shrinking edits the scenario and keeps the seed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from heliostat.control.wiring import Timing
from heliostat.model.demand import Bundle, GangStrategy
from heliostat.model.node_type import ClusterSpec, Policy

Span = tuple[float, float]
"""Seconds from … to …: each draw is uniform between both."""


@dataclass(frozen=True)
class BackendScenario:
    """One source of machines; times in seconds, rates per hour.

    machines        how many run at once, whoever's they are (cloud: the stock)
    others          batch: which share of them other users' jobs take on the average, 0 to 1
    call_s          how long a call takes
    lag_s           for so long a listing may lack what is new and show what has ended
    queue_s         batch: what the scheduler takes at least, ahead of other users' load
    boot_s          from the machine's start to its node in Ray
    stop_s          from terminate to over
    lease_s         batch: the walltime; None: endless
    notice_s        how long before its end work is to be told; None: as the planner thinks right
    submitted_most  batch: submit limit; cloud: quota; in instances not yet over. None: no limit
    forgets_s       what ended leaves the listing so long after; endless: until it is terminated
    throttles       batch: an array lets `at_once` of a new type run until it is let go
    dead_types      node types whose machines start and never join (a broken image, a wrong path)
    strangers       machines of other clusters and other users, never to be touched
    preempts_per_h  for each machine: the site (batch) or the market (cloud) takes it back
    requeues        which share of preempted batch jobs comes back as the same instance, 0 to 1
    reclaim_s       cloud: the notice ahead of a reclaim
    dies_per_h      for each machine: the hardware fails without a word
    stockouts_per_h, stockout_s   the backend has no machine left for a while
    """

    name: str
    kind: Literal["batch", "cloud"]
    machines: int = 16
    others: float = 0.0
    call_s: Span = (0.01, 0.1)
    lag_s: float = 0.0
    queue_s: Span = (0.0, 5.0)
    boot_s: Span = (2.0, 10.0)
    stop_s: Span = (0.5, 5.0)
    lease_s: float | None = None
    notice_s: float | None = None
    submitted_most: int | None = None
    forgets_s: float = 300.0
    throttles: bool = False
    dead_types: frozenset[str] = frozenset()
    strangers: int = 2
    preempts_per_h: float = 0.0
    requeues: float = 0.5
    reclaim_s: float = 30.0
    dies_per_h: float = 0.0
    stockouts_per_h: float = 0.0
    stockout_s: Span = (10.0, 60.0)


WorkKind = Literal["task", "actor", "gang", "constraint"]


@dataclass(frozen=True)
class WorkShape:
    """One kind of work that arrives.

    `count`: how many tasks or actors, or members of a gang (each of `bundle`), one arrival brings;
    for a constraint, how many bundles `request_resources` asks for. `work_s`: how long a task works,
    an actor lives, a gang stays, a constraint stands. `retries`: a task's `max_retries`. `pins_s`: how
    long a result in the object store keeps the node after the task.
    """

    kind: WorkKind
    bundle: Bundle
    count: tuple[int, int] = (1, 4)
    work_s: Span = (1.0, 20.0)
    retries: int = 3
    strategy: GangStrategy = GangStrategy.PACK
    pins_s: float = 0.0
    weight: float = 1.0


@dataclass(frozen=True)
class WorkloadScenario:
    """Arrivals `every_s`, each of one of `shapes`, drawn by weight, until the safety phase ends.

    Nothing arrives while `unfinished_most` pieces of work wait or run.
    """

    shapes: tuple[WorkShape, ...]
    every_s: Span = (1.0, 20.0)
    unfinished_most: int = 12


@dataclass(frozen=True)
class RayScenario:
    """`report_s`: how old the GCS's word on nodes and demand may be. `call_s`: how long a call takes."""

    report_s: Span = (0.05, 0.5)
    call_s: Span = (0.001, 0.02)


@dataclass(frozen=True)
class Scenario:
    """A whole run. `spec` is what a cluster file would be; its backends are those of `backends`, by name.

    `faults` maps a kind of `sim.faults.KINDS` to how often it strikes: for a fault of a call the
    chance for each call, for one of a moment how often in an hour. What is absent never strikes.
    `people` maps a command of `sim.people.KINDS` to how often it is given in an hour.
    `round_s` is the controller's pause between rounds; all other times of its own are the production ones.
    `safety_s` is how long faults and arrivals go on; `steps_most` ends that phase too.
    """

    seed: int
    spec: ClusterSpec
    backends: tuple[BackendScenario, ...]
    workload: WorkloadScenario
    ray: RayScenario = RayScenario()
    faults: Mapping[str, float] = field(default_factory=dict)
    shuffled: bool = False
    safety_s: float = 120.0
    steps_most: int = 1_500
    people: Mapping[str, float] = field(default_factory=dict)
    round_s: float = Timing().round_s

    @property
    def policy(self) -> Policy:
        return self.spec.policy
