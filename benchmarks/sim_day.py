"""A simulated day of a cluster of 100 nodes: how long it takes, all rules checked after every step.

    python benchmarks/sim_day.py [--json] [--hours 24] [--nodes 100] [--round-s 9]

Half of the nodes are a batch system's, with leases of eight hours, half a cloud's. Work keeps them busy all
day; nodes fail, and are taken back as markets do. The controller, the planner and the journal are the
production ones; between two rounds they wait `--round-s` (less than the 10 s after which idle time is counted
anew) where a real one waits a second. The status is 1 where a rule broke.
"""

from __future__ import annotations

import argparse
import json
import sys
import time

from heliostat.model.demand import Bundle
from heliostat.model.node_type import ClusterSpec, NodeType, Policy
from heliostat.model.resources import Resources
from heliostat.sim.run import run
from heliostat.sim.scenario import BackendScenario, Scenario, WorkloadScenario, WorkShape

HOUR_S = 3_600.0
CPUS = 8


def scenario(*, hours: float, nodes: int, round_s: float) -> Scenario:
    """Return a day: tasks of half a node for some minutes, as many as keep the nodes busy."""
    types = tuple(
        NodeType(name, name, Resources.of({"CPU": CPUS}), f"shape-{name}", max_workers=nodes // 2)
        for name in ("batch", "cloud")
    )
    head = NodeType("head", "batch", Resources.of({}), "shape-head")
    policy = Policy(types, max_workers=nodes, idle_timeout_s=300.0)
    backends = (
        BackendScenario("batch", "batch", machines=nodes, lease_s=8 * HOUR_S, dies_per_h=0.01),
        BackendScenario("cloud", "cloud", machines=nodes, preempts_per_h=0.02, dies_per_h=0.01),
    )
    work = WorkShape("task", Bundle(Resources.of({"CPU": CPUS / 2})), (1, 20), (300.0, 1_800.0))
    return Scenario(
        seed=1,
        spec=ClusterSpec("sim", policy, head, {one.name: {} for one in backends}, head_timeout_s=60.0),
        backends=backends,
        workload=WorkloadScenario((work,), every_s=(10.0, 100.0), unfinished_most=3 * nodes),
        safety_s=hours * HOUR_S,
        steps_most=10**9,
        round_s=round_s,
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--json", action="store_true", help="one JSON object and nothing else")
    parser.add_argument("--hours", type=float, default=24.0, help="how long the simulated day is")
    parser.add_argument("--nodes", type=int, default=100, help="how many nodes there are at most")
    parser.add_argument("--round-s", type=float, default=9.0, help="the pause between two rounds")
    options = parser.parse_args()
    began_s = time.perf_counter()
    result = run(scenario(hours=options.hours, nodes=options.nodes, round_s=options.round_s))
    found = {
        "hours": round(result.seconds / HOUR_S, 2),
        "nodes": result.machines_most,
        "steps": result.steps,
        "faults": dict(sorted(result.faults.items())),
        "violation": result.violation.text if result.violation else None,
        "took_s": round(time.perf_counter() - began_s, 2),
    }
    if options.json:
        print(json.dumps(found, indent=1))
    else:
        for name, value in found.items():
            print(f"{name}: {value}")
    return 0 if result.violation is None else 1


if __name__ == "__main__":
    sys.exit(main())
