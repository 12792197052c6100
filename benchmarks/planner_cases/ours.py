"""Heliostat's planner on a case. The clock runs from Ray's message and the backends' rows to the plan."""

from __future__ import annotations

import gc
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from benchmarks.planner_cases.messages import parsed
from benchmarks.planner_cases.spec import NOW_S, Case, Node, Type
from heliostat.control.garbage import collect_rarely
from heliostat.model.demand import Demand, Gang
from heliostat.model.history import History
from heliostat.model.instance import (
    BackendInstance,
    BackendState,
    InstanceIntent,
    InstanceState,
    Intent,
    Offer,
)
from heliostat.model.node_type import NodeType, Policy
from heliostat.model.plan import Launch, Plan
from heliostat.model.resources import Resources
from heliostat.model.snapshot import BackendView, Snapshot
from heliostat.planner import fold, plan
from heliostat.planner.cover import cover
from heliostat.raylink.convert import ray_state

JOINED_S_AGO = 3_600.0
NO_LIMIT = 1_000_000


@dataclass(frozen=True)
class World:
    """What stands before the clock starts: the journal's intents, the backends' rows, policy and history."""

    views: Mapping[str, BackendView]
    intents: tuple[InstanceIntent, ...]
    policy: Policy
    history: History


@dataclass(frozen=True)
class Run:
    """One measured run, in seconds, and what came of it. `cpu_s` is what a busy machine spoils least."""

    convert_s: float
    fold_s: float
    plan_s: float
    cpu_s: float
    launched: Mapping[str, int]
    unmet: int

    @property
    def total_s(self) -> float:
        return self.convert_s + self.fold_s + self.plan_s


def world(case: Case) -> World:
    """Return our part of the input: throttles off, every type known to work, every node long joined."""
    types = tuple(map(_node_type, case.types))
    ids = [node.instance_id for node in case.nodes]
    joined_s = NOW_S - JOINED_S_AGO
    history = History(
        joined_at=dict.fromkeys(ids, joined_s),
        first_listed=dict.fromkeys(ids, joined_s),
        states=dict.fromkeys(ids, InstanceState.RUNNING),
        proven={one.name: one.shape_id for one in types},
        rounds_at_s=NOW_S - 1,
    )
    policy = Policy(types, max_workers=NO_LIMIT, idle_timeout_s=60.0, upscaling_speed=0.0)
    return World(_views(case), tuple(map(_intent, case.nodes)), policy, history)


def _node_type(one: Type) -> NodeType:
    return NodeType(
        name=one.name,
        backend=one.backend,
        resources=Resources.of(one.amounts),
        shape_id=f"shape-{one.name}",
        max_workers=NO_LIMIT,
        labels=one.labels,
        patience_s=one.patience_s,
        price_usd_per_h=one.price,
    )


def _views(case: Case) -> dict[str, BackendView]:
    rows: dict[str, list[BackendInstance]] = {one.backend: [] for one in case.types}
    for node in case.nodes:
        rows[node.type.backend].append(
            BackendInstance(
                instance_id=node.instance_id,
                native_id=f"i-{node.index:08x}",
                node_type=node.type.name,
                state=BackendState.RUNNING,
                shape_id=f"shape-{node.type.name}",
                host=node.ip,
                started_at_s=NOW_S - JOINED_S_AGO - 60,
            )
        )
    return {
        name: BackendView(tuple(several), NOW_S - 0.5, fresh=True, offers=_offers(case, name))
        for name, several in rows.items()
    }


def _offers(case: Case, backend: str) -> tuple[Offer, ...]:
    return tuple(
        Offer(one.name, ready_at_s=NOW_S + one.ready_in_s, price_usd_per_h=one.price)
        for one in case.types
        if one.backend == backend and one.ready_in_s is not None
    )


def _intent(node: Node) -> InstanceIntent:
    return InstanceIntent(
        instance_id=node.instance_id,
        launch_id=node.instance_id.partition(".")[0],
        node_type=node.type.name,
        backend=node.type.backend,
        shape_id=f"shape-{node.type.name}",
        intent=Intent.WANTED,
        requested_at_s=NOW_S - JOINED_S_AGO - 120,
        reason="demand",
    )


def run(data: bytes, there: World) -> Run:
    """Plan once, from a message that nobody has read yet, as the controller's process does."""
    collect_rarely()
    # Answers are kept from round to round; here each round is the first that asks.
    cover.cache_clear()
    message = parsed(data)
    gc.collect()
    began_s, cpu_s = time.perf_counter(), time.process_time()
    ray = ray_state(message)
    converted_s = time.perf_counter()
    snapshot = Snapshot(NOW_S, ray, there.views, there.intents)
    history = fold(there.history, snapshot, there.policy)
    folded_s = time.perf_counter()
    made = plan(snapshot, history, there.policy)
    planned_s = time.perf_counter()
    cpu_s = time.process_time() - cpu_s
    return Run(
        convert_s=converted_s - began_s,
        fold_s=folded_s - converted_s,
        plan_s=planned_s - folded_s,
        cpu_s=cpu_s,
        launched=_launched(made),
        unmet=_unmet(made),
    )


def _launched(made: Plan) -> dict[str, int]:
    counts: Counter[str] = Counter()
    for action in made.actions:
        if isinstance(action, Launch):
            counts[action.node_type] += action.count
    return dict(sorted(counts.items()))


def _unmet(made: Plan) -> int:
    """Count the bundles that the plan itself says it does not serve."""
    wanted = [one.wanted for one in made.deferred] + [one.wanted for one in made.infeasible]
    return sum(map(_bundles, wanted))


def _bundles(wanted: Demand | Gang) -> int:
    return wanted.count if isinstance(wanted, Demand) else sum(demand.count for demand in wanted.demands)
