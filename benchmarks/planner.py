"""Our planner against Ray's own scheduler on the same input, in one run, and against a lower bound.

    python benchmarks/planner.py [--json] [--seed 1] [--runs 5] [--case A B …] [--no-ray]
    python benchmarks/planner.py --curve

Needs the extra `bench` (highspy). The cases are in planner_cases/cases.py. Every measurement is a child
process of its own, with nothing else in its memory. Ray takes minutes for B, C and E: `--ray-from` takes its
figures from an earlier run's JSON where the case is the very same, `--ray-limit` ends it early (then
`ratio_at_least` is all that is known), `--no-ray` leaves it out.

Our clock starts at Ray's message and the backends' rows: conversion, snapshot, fold and plan; the median
of the runs (`first_s`: the first one, with nothing warm). Ray's starts at its own SchedulingRequest; once,
or up to three times where that is quick. Cost is the price of what is launched.

`unmet` is what the plan itself says it does not serve, checked by a judge that knows nothing of either
planner (`unplaced`: what it could not place; see planner_cases/placer.py). Where the judge finds less room
than the plan claims, the LP decides: if no plan at all could serve that much with these nodes (`lacking`, a
proof), the judge's number counts as unmet; if not, the claim stands.

`bound` is a lower bound on the cost of serving everything (planner_cases/bound.py); where a plan leaves
something unmet it may cost less. `peak_mb` is the most memory that a fresh child held from the input on
(VmHWM; `ru_maxrss` would keep what the parent held before the exec) less what it held before the input.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.planner_cases import cases, memory, table
from benchmarks.planner_cases.messages import state_bytes
from benchmarks.planner_cases.spec import Case

RAY_LIMIT_S = {"F": 120.0}
RAY_LIMIT_ELSE_S = 7200.0
OURS_LIMIT_S = 600.0
NO_BOUND = {"F", "H"}
ENOUGH_S = 20.0
"""No further run begins when those so far took so long in sum."""

RAY_RUNS = 3


def repeated(run: Callable[[], Any], *, runs: int) -> list[Any]:
    """Run up to `runs` times, fewer where that is slow; the plans must be equal."""
    found: list[Any] = []
    while len(found) < runs and sum(one.total_s for one in found) < ENOUGH_S:
        found.append(run())
    assert len({tuple(one.launched.items()) for one in found}) == 1, "the same input gave different plans"
    return found


def child_ours(case: Case, *, runs: int) -> dict[str, Any]:
    from benchmarks.planner_cases import ours

    data, world = state_bytes(case), ours.world(case)
    found = repeated(lambda: ours.run(data, world), runs=runs)
    parts = {name: statistics.median(getattr(one, name) for one in found) for name in PARTS}
    total_s = statistics.median(one.total_s for one in found)
    times = {"s": total_s, "first_s": found[0].total_s, **parts, **_cpu(found)}
    return {**times, "runs": len(found), **_outcome(found[0])}


PARTS = ("convert_s", "fold_s", "plan_s")


def child_memory(case: Case) -> dict[str, Any]:
    from benchmarks.planner_cases import ours

    return {
        "peak_mb": memory.peak_mb(lambda: (state_bytes(case), ours.world(case)), lambda got: ours.run(*got))
    }


def child_ray(case: Case, *, runs: int) -> dict[str, Any]:
    from benchmarks.planner_cases import rays

    data = state_bytes(case)
    found = repeated(lambda: rays.run(case, data), runs=runs)
    times = {"s": statistics.median(one.total_s for one in found), **_cpu(found)}
    return {**times, "runs": len(found), **_outcome(found[0])}


def _cpu(found: Sequence[Any]) -> dict[str, float]:
    return {"cpu_s": statistics.median(one.cpu_s for one in found)}


def _outcome(run: Any) -> dict[str, Any]:
    return {"launched": dict(run.launched), "words": run.unmet}


@dataclasses.dataclass(frozen=True)
class Ended:
    """How a child ended: with figures, or with why there are none. `late_s`: it was killed after so long."""

    figures: dict[str, Any] | None = None
    note: str = ""
    late_s: float | None = None


def child(kind: str, name: str, *, seed: int, runs: int, limit_s: float) -> Ended:
    """Measure in a process of its own. Without figures the other cases are still worth having."""
    command = [sys.executable, __file__, "--child", kind, "--case", name, f"--seed={seed}", f"--runs={runs}"]
    try:
        ended = subprocess.run(command, stdout=subprocess.PIPE, timeout=limit_s, check=True)
    except subprocess.TimeoutExpired:
        return Ended(note=f"did not finish within {limit_s:g} s", late_s=limit_s)
    except subprocess.CalledProcessError as error:
        # What it said is on stderr already.
        print(f"{name}: {kind}: {error}", file=sys.stderr, flush=True)
        return Ended(note=f"failed with status {error.returncode}")
    return Ended(json.loads(ended.stdout.splitlines()[-1]))


def of_ray(case: Case, arguments: argparse.Namespace) -> Ended:
    """Return Ray's figures: an earlier run's, if they are of this very case, else new ones."""
    known = earlier(arguments.ray_from, case.name, digest(case))
    if known:
        return Ended(known, "from an earlier run")
    if arguments.no_ray:
        return Ended(note="not asked")
    limit_s = min(arguments.ray_limit, RAY_LIMIT_S.get(case.name, arguments.ray_limit))
    return child("ray", case.name, seed=arguments.seed, runs=RAY_RUNS, limit_s=limit_s)


def measure(name: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """Return all figures of one case."""
    case = cases.make(name, arguments.seed)
    of_ours, of_peak = (
        child(kind, name, seed=arguments.seed, runs=arguments.runs, limit_s=OURS_LIMIT_S)
        for kind in ("ours", "memory")
    )
    rays = of_ray(case, arguments)
    ours, peak, ray = of_ours.figures, of_peak.figures, rays.figures
    bound = None if name in NO_BOUND or arguments.no_bound else _bound(case)
    return {
        "title": case.title,
        "ours_s": ours and ours["s"],
        "ray_s": ray and ray["s"],
        "ratio": ours and ray and ray["s"] / ours["s"],
        "ratio_at_least": rays.late_s / ours["s"] if ours and rays.late_s else None,
        **_judged("ours", case, ours),
        **_judged("ray", case, ray),
        "bound": bound,
        "over_bound": over(case, ours, bound),
        "ray_over_bound": over(case, ray, bound),
        "peak_mb": peak and peak["peak_mb"],
        **{key: ours and ours[key] for key in ("first_s", *PARTS, "runs")},
        "ours_cpu_s": ours and ours["cpu_s"],
        "ray_cpu_s": ray and ray["cpu_s"],
        "ours_note": of_ours.note,
        "ray_note": rays.note,
        "ray": ray,
        "states": case.states,
        "shapes": case.shapes,
        "bundles": case.bundles,
        "digest": digest(case),
    }


def _bound(case: Case) -> float | None:
    from benchmarks.planner_cases import bound

    found = bound.of_case(case)
    return found.value if found else None


def over(case: Case, outcome: dict[str, Any] | None, bound: float | None) -> float | None:
    """Return by what share the cost is above the bound."""
    return cost(case, outcome["launched"]) / bound - 1 if outcome and bound else None


def cost(case: Case, launched: dict[str, int]) -> float:
    prices = {one.name: one.price for one in case.types}
    return sum(prices[name] * count for name, count in sorted(launched.items()))


def _judged(who: str, case: Case, outcome: dict[str, Any] | None) -> dict[str, Any]:
    from benchmarks.planner_cases.judge import judge

    if outcome is None:
        return {f"{who}_{key}": None for key in ("cost", "unmet", "words", "unplaced", "lacking", "launched")}
    judged = judge(case, outcome["launched"], words=outcome["words"])
    return {
        f"{who}_cost": cost(case, outcome["launched"]),
        **{f"{who}_{key}": value for key, value in dataclasses.asdict(judged).items()},
        f"{who}_launched": outcome["launched"],
    }


def digest(case: Case) -> str:
    return hashlib.sha256(state_bytes(case) + repr(case.types).encode()).hexdigest()[:16]


def earlier(path: Path | None, name: str, wanted: str) -> dict[str, Any] | None:
    """Return Ray's figures for the very same case from an earlier run's JSON, if it has them."""
    known = json.loads(path.read_text())["cases"].get(name, {}) if path else {}
    found: dict[str, Any] | None = known.get("ray") if known.get("digest") == wanted else None
    return found


def curve(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Return ours on more and more nodes."""
    rows = []
    for nodes in cases.CURVE:
        case = cases.make(f"N{nodes}", arguments.seed)
        ended = child("ours", case.name, seed=arguments.seed, runs=arguments.runs, limit_s=OURS_LIMIT_S)
        found = ended.figures
        per = found and found["s"] / (nodes * case.shapes)
        rows.append(
            {"nodes": nodes, "states": case.states, "shapes": case.shapes, "ours_s": found and found["s"]}
        )
        rows[-1] |= {key: found and found[key] for key in PARTS} | {"s_per_node_shape": per}
    return rows


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print JSON alone")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--runs", type=int, default=5, help="runs of ours, of which the median counts (5)")
    parser.add_argument("--case", nargs="+", default=list(cases.MAKERS), metavar="A", help="only these cases")
    parser.add_argument("--curve", action="store_true", help="ours alone, from 1,000 to 30,000 nodes")
    parser.add_argument("--no-ray", action="store_true", help="leave Ray's scheduler out")
    parser.add_argument("--no-bound", action="store_true", help="leave the lower bound out")
    parser.add_argument(
        "--ray-limit", type=float, default=RAY_LIMIT_ELSE_S, metavar="S", help="seconds a case"
    )
    parser.add_argument("--ray-from", type=Path, help="take Ray's figures from an earlier --json output")
    parser.add_argument("--child", choices=("ours", "memory", "ray"), help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    if arguments.child:
        print(json.dumps(_in_child(arguments)))
    elif arguments.curve:
        rows = curve(arguments)
        print(json.dumps({"curve": rows}) if arguments.json else table.of_curve(rows))
    else:
        _run_cases(arguments)


def _in_child(arguments: argparse.Namespace) -> dict[str, Any]:
    case = cases.make(arguments.case[0], arguments.seed)
    if arguments.child == "ours":
        return child_ours(case, runs=arguments.runs)
    return child_memory(case) if arguments.child == "memory" else child_ray(case, runs=arguments.runs)


def _run_cases(arguments: argparse.Namespace) -> None:
    found = {}
    for name in arguments.case:
        began_s = time.perf_counter()
        found[name] = measure(name, arguments)
        took_s = time.perf_counter() - began_s
        # Ray takes minutes for some: whoever waits for the JSON sees on stderr how far it is.
        to = sys.stderr if arguments.json else sys.stdout
        print(table.of_case(name, found[name]), f"  ({took_s:.0f} s in all)", file=to, flush=True)
    if arguments.json:
        print(json.dumps({"seed": arguments.seed, "cases": found}))
    else:
        print(table.targets(found))


if __name__ == "__main__":
    main()
