"""From a seed to a scenario: a cluster, its work, and a random choice of what goes wrong.

Each seed leaves out most kinds of fault (swarm testing): a run with all of them would end each story
early. Sizes are small, since most mistakes need two or three machines and not a hundred.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import get_args

from heliostat.model.demand import Bundle, GangStrategy, LabelConstraint, LabelOperator
from heliostat.model.drain_limit import DrainLimit
from heliostat.model.node_type import ClusterSpec, NodeType, Policy
from heliostat.model.resources import Resources
from heliostat.sim.dice import Dice, Stream
from heliostat.sim.faults import CALLS, MOMENTS, RACES, STEPS
from heliostat.sim.people import KINDS
from heliostat.sim.scenario import (
    BackendScenario,
    RayScenario,
    Scenario,
    Span,
    WorkKind,
    WorkloadScenario,
    WorkShape,
)

ZONE = "zone"
DRAIN_LIMITS = (DrainLimit(1), DrainLimit(5), DrainLimit(20), DrainLimit(percent=40))
CALL_RATES = (0.01, 0.15)
CHANGE_RATES = (0.05, 0.5)
RATES: Mapping[str, Span] = {
    "late request": CHANGE_RATES,
    "duplicate": (0.3, 1.0),
    "partial launch": CHANGE_RATES,
    "rate limit": CHANGE_RATES,
    "crash between journal and act": CHANGE_RATES,
    "crash between call and reply": CHANGE_RATES,
    "crash between drain and reply": CHANGE_RATES,
}
"""Calls that change something are few, those that look are many: what strikes only the former is likelier,
and what takes two machines that start together the most."""

RACE_RATES = (0.2, 0.8)
STEP_RATES = (0.0005, 0.01)
MOMENT_RATES_PER_H = (20.0, 240.0)
PEOPLE_RATES_PER_H = (20.0, 240.0)
RARE = {"head loss": 0.1, "clock jump": 0.3, "journal loss": 0.2}
"""What ends a run's story, or hides others: how much less often it is among a seed's faults."""


def scenario(seed: int) -> Scenario:
    """Return the scenario of a seed: the same for ever, as long as this file does not change."""
    dice = Dice(seed)
    chance = dice.stream("scenario")
    kinds = chance.choice((("batch",), ("cloud",), ("batch", "cloud")))
    backends = tuple(_backend(chance, kind) for kind in kinds)
    types = _node_types(chance, backends)
    backends = tuple(_with_dead_types(chance, one, types) for one in backends)
    return Scenario(
        seed=seed,
        spec=_spec(chance, backends, types),
        backends=backends,
        workload=_workload(chance, types),
        ray=RayScenario(report_s=chance.choice(((0.05, 0.2), (0.1, 1.0), (0.5, 3.0)))),
        faults=_faults(dice.stream("scenario faults")),
        people=_people(dice.stream("scenario people")),
        shuffled=chance.random() < 0.5,
        safety_s=chance.choice((60.0, 120.0, 300.0)),
        steps_most=1_500 if chance.random() < 0.95 else 10_000,
    )


def _spec(chance: Stream, backends: Sequence[BackendScenario], types: tuple[NodeType, ...]) -> ClusterSpec:
    policy = Policy(
        types,
        max_workers=chance.choice((2, 4, 8, 20)),
        idle_timeout_s=chance.choice((5.0, 15.0, 60.0)),
        upscaling_speed=chance.choice((0.0, 1.0, 1.0, 4.0)),
        max_cost_usd_per_h=chance.choice((None, None, 3.0, 10.0)),
        max_surge=chance.choice((0, 0, 1, 2)),
        max_draining=(chance.choice(DRAIN_LIMITS),),
        gangs_across_backends=chance.random() < 0.2,
    )
    head = NodeType("head", backends[0].name, Resources.of({}), "shape-head")
    return ClusterSpec(
        "sim",
        policy,
        head,
        {one.name: {} for one in backends},
        orphan_timeout_s=chance.choice((30.0, 300.0, 1_200.0)),
        head_timeout_s=60.0,
    )


# -- machines ---------------------------------------------------------------------------


def _backend(chance: Stream, kind: str) -> BackendScenario:
    common = BackendScenario(
        name="slurm" if kind == "batch" else "cloud",
        kind="batch" if kind == "batch" else "cloud",
        machines=chance.choice((4, 16, 64)),
        call_s=chance.choice(((0.005, 0.05), (0.05, 0.5), (0.5, 3.0))),
        boot_s=chance.choice(((1.0, 4.0), (2.0, 15.0), (10.0, 60.0))),
        stop_s=chance.choice(((0.2, 1.0), (1.0, 10.0))),
        strangers=chance.choice((0, 2, 5)),
        dies_per_h=_perhaps(chance, 0.3, (5.0, 40.0)),
        preempts_per_h=_perhaps(chance, 0.4, (10.0, 80.0)),
        stockouts_per_h=_perhaps(chance, 0.3, (20.0, 100.0)),
    )
    return _batch(chance, common) if kind == "batch" else _cloud(chance, common)


def _batch(chance: Stream, common: BackendScenario) -> BackendScenario:
    return replace(
        common,
        others=chance.choice((0.0, 0.0, 0.3, 0.7)),
        queue_s=chance.choice(((0.0, 2.0), (1.0, 15.0), (5.0, 60.0))),
        lease_s=chance.choice((None, 90.0, 200.0, 600.0)),
        notice_s=chance.choice((None, 20.0)),
        submitted_most=chance.choice((None, None, 5, 12)),
        forgets_s=chance.choice((30.0, 300.0)),
        throttles=chance.random() < 0.6,
        requeues=chance.choice((0.0, 0.5, 1.0)),
    )


def _cloud(chance: Stream, common: BackendScenario) -> BackendScenario:
    return replace(
        common,
        queue_s=(0.0, 0.0),
        lag_s=chance.choice((0.0, 0.0, 1.0, 5.0)),
        submitted_most=chance.choice((None, None, 5, 12)),
        forgets_s=chance.choice((30.0, 300.0)),
        reclaim_s=chance.choice((5.0, 60.0, 120.0)),
    )


def _node_types(chance: Stream, backends: Sequence[BackendScenario]) -> tuple[NodeType, ...]:
    count = chance.randint(len(backends), len(backends) + 2)
    return tuple(_node_type(chance, number, backends[number % len(backends)]) for number in range(count))


def _node_type(chance: Stream, number: int, backend: BackendScenario) -> NodeType:
    cpus, gpus = chance.choice((1, 2, 4, 4, 8, 16)), chance.choice((0, 0, 0, 1, 2))
    most = chance.choice((2, 4, 8, 20))
    name = f"t{number}-{cpus}c{f'{gpus}g' if gpus else ''}"
    return NodeType(
        name=name,
        backend=backend.name,
        resources=Resources.of({"CPU": cpus, "GPU": gpus, "memory": cpus * 2**31}),
        shape_id=f"shape-{name}",
        # Two floors at most: `max_workers` may be two.
        min_workers=chance.choice((0, 0, 0, 1)) if number < 2 else 0,
        max_workers=most,
        labels={ZONE: chance.choice("ab")},
        start_timeout_s=chance.choice((90.0, 300.0)),
        patience_s=chance.choice((0.0, 0.0, 20.0)),
        price_usd_per_h=chance.choice((0.0, 0.5, 2.0)),
        priority=chance.choice((0, 0, 1)),
        throttles=backend.throttles,
    )


def _with_dead_types(chance: Stream, backend: BackendScenario, types: Sequence[NodeType]) -> BackendScenario:
    """Let one type of the backend be broken, seldom, and never the first: something has to work."""
    names = [one.name for one in types[1:] if one.backend == backend.name]
    if names and chance.random() < 0.3:
        return replace(backend, dead_types=frozenset({chance.choice(names)}))
    return backend


# -- work -------------------------------------------------------------------------------


def _workload(chance: Stream, types: Sequence[NodeType]) -> WorkloadScenario:
    shapes = tuple(_shape(chance, chance.choice(types)) for _ in range(chance.randint(1, 4)))
    return WorkloadScenario(shapes, every_s=chance.choice(((0.5, 3.0), (2.0, 20.0), (10.0, 60.0))))


def _shape(chance: Stream, fits: NodeType) -> WorkShape:
    """Return work that a node of the type could hold."""
    kind: WorkKind = chance.choices(get_args(WorkKind), (6, 2, 2, 1))[0]
    units = {"CPU": chance.choice((0.5, 1, fits.resources.units()["CPU"]))}
    gpus = fits.resources.units().get("GPU", 0)
    if gpus:
        units["GPU"] = chance.choice((0.3, 1, gpus))
    labels = ((LabelConstraint(ZONE, LabelOperator.IN, (fits.labels[ZONE],)),),)
    bundle = Bundle(Resources.of(units), labels if chance.random() < 0.2 else ())
    return WorkShape(
        kind=kind,
        bundle=bundle,
        count=(1, chance.choice((1, 2, 4))) if kind == "gang" else (1, chance.choice((1, 4, 20))),
        work_s=chance.choice(((0.5, 5.0), (5.0, 30.0), (20.0, 90.0))),
        retries=chance.choice((0, 3, 3)),
        strategy=chance.choice(tuple(GangStrategy)),
        pins_s=chance.choice((0.0, 0.0, 20.0)),
        weight=chance.choice((1.0, 1.0, 4.0)),
    )


# -- what goes wrong ----------------------------------------------------------------------


def _faults(chance: Stream) -> dict[str, float]:
    """Choose the kinds of this run, none in one run of six, and their rates."""
    share = chance.choice((0.0, 0.15, 0.3, 0.3, 0.5, 0.7))
    found: dict[str, float] = {}
    groups = (CALLS, CALL_RATES), (STEPS, STEP_RATES), (MOMENTS, MOMENT_RATES_PER_H), (RACES, RACE_RATES)
    for kinds, rates in groups:
        for kind in kinds:
            if chance.random() < share * RARE.get(kind, 1.0):
                found[kind] = _between(chance, RATES.get(kind, rates))
    return found


def _people(chance: Stream) -> dict[str, float]:
    """Choose what people do, in one run of four, and how often."""
    if chance.random() < 0.75:
        return {}
    rates = {kind: _between(chance, PEOPLE_RATES_PER_H) for kind in KINDS if chance.random() < 0.5}
    return rates if chance.random() < 0.3 else {kind: rate for kind, rate in rates.items() if kind != "down"}


def _between(chance: Stream, span: Span) -> float:
    """Draw so that small and large values of the span are equally likely."""
    low, high = span
    return float(low * (high / low) ** chance.random())


def _perhaps(chance: Stream, share: float, span: Span) -> float:
    return _between(chance, span) if chance.random() < share else 0.0
