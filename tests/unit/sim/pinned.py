"""Scenarios of defects that were found, written out: what a seed stands for changes with sim/seeds.py."""

from __future__ import annotations

from dataclasses import replace

from heliostat.model.demand import Bundle
from heliostat.model.drain_limit import DrainLimit
from heliostat.model.node_type import ClusterSpec, NodeType, Policy
from heliostat.model.resources import Resources
from heliostat.sim.scenario import (
    BackendScenario,
    RayScenario,
    Scenario,
    Span,
    WorkKind,
    WorkloadScenario,
    WorkShape,
)


def node_type(
    name: str, backend: str, *, patience_s: float = 0.0, min_workers: int = 0, start_timeout_s: float = 90.0
) -> NodeType:
    units = {"CPU": 4, "GPU": 1, "memory": 2**33}
    return NodeType(
        name,
        backend,
        Resources.of(units),
        f"shape-{name}",
        min_workers=min_workers,
        max_workers=20 if backend == "slurm" else 2,
        start_timeout_s=start_timeout_s,
        patience_s=patience_s,
    )


def work(
    kind: WorkKind, units: dict[str, float], count: tuple[int, int], *, work_s: Span, weight: float = 1.0
) -> WorkShape:
    return WorkShape(kind, Bundle(Resources.of(units)), count, work_s, weight=weight)


def spec(*types: NodeType) -> ClusterSpec:
    policy = Policy(
        types,
        max_workers=20,
        idle_timeout_s=60.0,
        upscaling_speed=0.0,
        max_surge=2,
        max_draining=(DrainLimit(1),),
    )
    head = NodeType("head", types[0].backend, Resources.of({}), "shape-head")
    return ClusterSpec("sim", policy, head, {one.backend: {} for one in types}, head_timeout_s=60.0)


SMALL = WorkloadScenario((work("task", {"CPU": 1}, (1, 4), work_s=(5.0, 30.0)),), every_s=(2.0, 20.0))

STRANGERS_HEAD = Scenario(
    seed=1,
    spec=spec(node_type("fast", "cloud", min_workers=1)),
    backends=(BackendScenario("cloud", "cloud"),),
    workload=SMALL,
    faults={"head loss": 240.0},
    safety_s=60.0,
)
"""Where another session answered, rounds followed each other without a pause."""

FULL_CLOUD = Scenario(
    seed=113,
    spec=spec(
        node_type("slow", "slurm", patience_s=20.0, min_workers=1),
        node_type("fast", "cloud", start_timeout_s=300.0),
    ),
    backends=(
        BackendScenario("slurm", "batch", machines=4, queue_s=(5.0, 60.0), boot_s=(10.0, 60.0), strangers=0),
        BackendScenario(
            "cloud",
            "cloud",
            machines=4,
            call_s=(0.5, 3.0),
            boot_s=(10.0, 60.0),
            strangers=0,
            dead_types=frozenset({"fast"}),
        ),
    ),
    workload=WorkloadScenario(
        (
            work("task", {"CPU": 1, "GPU": 0.3}, (1, 20), work_s=(5.0, 30.0)),
            work("gang", {"CPU": 0.5, "GPU": 1}, (1, 1), work_s=(20.0, 90.0)),
            work("task", {"CPU": 4, "GPU": 1}, (1, 4), work_s=(20.0, 90.0), weight=4.0),
        ),
        every_s=(0.5, 3.0),
    ),
    ray=RayScenario(report_s=(0.5, 3.0)),
    safety_s=300.0,
    steps_most=375,
)
"""Gangs that could be had from a late queue and from a full cloud were asked for and given back for ever."""

FLOOR_OF_A_GANG = Scenario(
    seed=1,
    spec=spec(replace(node_type("fast", "cloud", min_workers=1), max_workers=4)),
    backends=(BackendScenario("cloud", "cloud", strangers=0),),
    workload=WorkloadScenario(
        (work("gang", {"CPU": 4}, (4, 4), work_s=(5.0, 30.0)),), every_s=(0.1, 0.2), unfinished_most=1
    ),
    safety_s=30.0,
    round_s=5.0,
)
"""A floor of a type that never came up and a gang that wanted the same node held each other back for ever."""

UNHEARD_BACKEND = Scenario(
    seed=6,
    spec=spec(node_type("slow", "slurm", min_workers=1, start_timeout_s=300.0)),
    backends=(
        BackendScenario("slurm", "batch", machines=4, queue_s=(5.0, 60.0), boot_s=(10.0, 60.0), strangers=0),
    ),
    workload=SMALL,
    faults={"backend outage": 240.0, "journal loss": 120.0},
    safety_s=60.0,
    people={"down": 120.0},
)
"""A cluster was down at once where the journal was lost and the backend, where it had a worker, was away."""

LATE_LAUNCHES = Scenario(
    seed=7,
    spec=replace(spec(node_type("fast", "cloud")), orphan_timeout_s=1_200.0),
    backends=(BackendScenario("cloud", "cloud", strangers=0),),
    workload=SMALL,
    faults={"late request": 1.0},
    safety_s=30.0,
    people={"down": 300.0},
)
"""A cluster was down before a request that seemed lost was carried out, and its worker stayed."""

UNSEEN = Scenario(
    seed=1,
    spec=spec(node_type("fast", "cloud")),
    backends=(
        BackendScenario("cloud", "cloud", lag_s=5.0, boot_s=(60.0, 80.0), stop_s=(8.0, 9.0), strangers=0),
    ),
    workload=WorkloadScenario((work("task", {"CPU": 4}, (4, 8), work_s=(5.0, 30.0)),), every_s=(1.0, 3.0)),
    safety_s=60.0,
    people={"remove": 1_800.0},
)
"""Of a cloud whose listings lag more came than `max_workers`: what was removed at once did not count."""

DIED_YOUNG = Scenario(
    seed=3,
    spec=spec(node_type("fast", "cloud")),
    backends=(
        BackendScenario(
            "cloud",
            "cloud",
            lag_s=6.0,
            boot_s=(1.0, 2.0),
            stop_s=(8.0, 9.0),
            reclaim_s=1.0,
            preempts_per_h=1_800.0,
            strangers=0,
        ),
    ),
    workload=WorkloadScenario((work("task", {"CPU": 4}, (4, 8), work_s=(5.0, 30.0)),), every_s=(1.0, 3.0)),
    safety_s=60.0,
)
"""Of a cloud whose listings lag more came than `max_workers`: what it took back at once did not count."""
