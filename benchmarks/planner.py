"""Our planner against Ray's own scheduler on the same input, in one run, and against a lower bound.

    python benchmarks/planner.py [--json] [--check] [--seed 1] [--runs 5] [--case A B …] [--no-ray]
    python benchmarks/planner.py --curve

Needs the extra `bench` (highspy). Every measurement is a child process of its own, with nothing else in its
memory. Ray takes minutes for B, C and E: `--ray-from` takes its figures from an earlier run's JSON where
the case is the very same, `--ray-limit` ends it early (then `ratio_at_least` is all that is known),
`--no-ray` leaves it out.

Our clock starts at Ray's message and the backends' rows: conversion, snapshot, fold and plan; the median
of the runs (`first_s`: the first one, with nothing warm). Ray's starts at its own SchedulingRequest; once,
or up to three times where that is quick. Ours runs with the garbage collector set as in our controller
(control/garbage.py), Ray's with Python's own settings, as in Ray's monitor. `adapter_s` is our planner behind
Ray's interface (raylink/scheduler.py), with Ray's clock and settings. Cost is the price of what is launched.

`unmet` is what the plan itself says it does not serve, unless that is proven wrong. A judge that knows
nothing of either planner looks for a place for everything (planner_cases/placer.py, repair.py): `unplaced` is
what it found none for, asked for only until it is no more than the plan says. Where it is more, a proof is
looked for that no plan could serve as much with these nodes: `lacking` have no place for sure. If that is
more than the plan says, `unplaced` counts as unmet; if not, the plan's claim stands, confirmed by nobody.

`bound` is a lower bound on the cost of serving everything (planner_cases/bound.py); where a plan leaves
something unmet it may cost less. For F it takes two minutes; `--no-bound` leaves it out. `peak_mb` is the
most memory that a fresh child held from the input on (VmHWM; `ru_maxrss` would keep what the parent held
before the exec) less what it held before the input.

The status is 1 where a measurement failed, with `--check` also where a target is missed; 2 for wrong options.
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
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.planner_cases import cases, memory, table
from benchmarks.planner_cases.messages import state_bytes
from benchmarks.planner_cases.spec import Case

RAY_LIMIT_S = {"F": 120.0}
RAY_LIMIT_ELSE_S = 7200.0
OURS_LIMIT_S = 600.0
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
    from ray.autoscaler.v2.scheduler import ResourceDemandScheduler

    from benchmarks.planner_cases import rays

    data = state_bytes(case)
    found = repeated(lambda: rays.run(case, data, ResourceDemandScheduler()), runs=runs)
    times = {"s": statistics.median(one.total_s for one in found), **_cpu(found)}
    return {**times, "runs": len(found), **_outcome(found[0])}


def child_adapter(case: Case, *, runs: int) -> dict[str, Any]:
    from benchmarks.planner_cases import rays
    from heliostat.planner.cover import cover
    from heliostat.raylink.scheduler import HeliostatScheduler

    data = state_bytes(case)

    def run() -> rays.Run:
        cover.cache_clear()
        return rays.run(case, data, HeliostatScheduler())

    found = repeated(run, runs=runs)
    return {"s": statistics.median(one.total_s for one in found)}


def _cpu(found: Sequence[Any]) -> dict[str, float]:
    return {"cpu_s": statistics.median(one.cpu_s for one in found)}


def _outcome(run: Any) -> dict[str, Any]:
    return {"launched": dict(run.launched), "words": run.unmet}


@dataclasses.dataclass(frozen=True)
class Ended:
    """How a child ended: with figures, or with why there are none. `late_s`: it was killed after so long.

    `failed`: figures were asked for, and there are none because something is wrong.
    """

    figures: dict[str, Any] | None = None
    note: str = ""
    late_s: float | None = None
    failed: bool = False


def child(kind: str, name: str, *, seed: int, runs: int, limit_s: float) -> Ended:
    """Measure in a process of its own. Without figures the other cases are still worth having."""
    command = [sys.executable, __file__, "--child", kind, "--case", name, f"--seed={seed}", f"--runs={runs}"]
    try:
        ended = subprocess.run(command, stdout=subprocess.PIPE, timeout=limit_s, check=True)
    except subprocess.TimeoutExpired:
        # Ray's may take longer than anybody wants to wait; what is ours may not.
        note = f"did not finish within {limit_s:g} s"
        return Ended(note=note, late_s=limit_s, failed=kind != "ray")
    except subprocess.CalledProcessError as error:
        # What it said is on stderr already.
        print(f"{name}: {kind}: {error}", file=sys.stderr, flush=True)
        return Ended(note=f"failed with status {error.returncode}", failed=True)
    return Ended(json.loads(ended.stdout.splitlines()[-1]))


def of_ray(case: Case, arguments: argparse.Namespace) -> Ended:
    """Return Ray's figures: an earlier run's, if they are of this very case, else new ones."""
    known = earlier(arguments.ray_from or {}, case.name, digest(case))
    if known:
        return Ended(known, "from an earlier run")
    if arguments.no_ray:
        return Ended(note=table.NOT_ASKED)
    limit_s = min(arguments.ray_limit, RAY_LIMIT_S.get(case.name, arguments.ray_limit))
    return child("ray", case.name, seed=arguments.seed, runs=RAY_RUNS, limit_s=limit_s)


def measure(name: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """Return all figures of one case."""
    case = cases.make(name, arguments.seed)

    def ask(kind: str) -> Ended:
        return child(kind, name, seed=arguments.seed, runs=arguments.runs, limit_s=OURS_LIMIT_S)

    of_ours, of_peak = ask("ours"), ask("memory")
    of_adapter = ask("adapter") if arguments.adapter else Ended(note=table.NOT_ASKED)
    rays = of_ray(case, arguments)
    ours, peak, ray, adapter = of_ours.figures, of_peak.figures, rays.figures, of_adapter.figures
    bound = None if arguments.no_bound else _bound(case)
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
        "adapter_s": adapter and adapter["s"],
        **{key: ours and ours[key] for key in ("first_s", *PARTS, "runs")},
        "ours_cpu_s": ours and ours["cpu_s"],
        "ray_cpu_s": ray and ray["cpu_s"],
        "ours_note": of_ours.note,
        "ray_note": rays.note,
        "bound_note": table.NOT_ASKED if arguments.no_bound else "",
        "adapter_note": of_adapter.note,
        "failed": any(one.failed for one in (of_ours, of_peak, rays, of_adapter)),
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


def earlier(run: Mapping[str, Any], name: str, wanted: str) -> dict[str, Any] | None:
    """Return Ray's figures for the very same case from an earlier run's cases, if it has them."""
    known = run.get(name, {})
    found: dict[str, Any] | None = known.get("ray") if known.get("digest") == wanted else None
    return found


def curve(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Return ours on more and more nodes."""
    rows = []
    for nodes in cases.CURVE:
        case = cases.make(f"N{nodes}", arguments.seed)
        ended = child("ours", case.name, seed=arguments.seed, runs=arguments.runs, limit_s=OURS_LIMIT_S)
        found, failed = ended.figures, ended.failed
        per = found and found["s"] / (nodes * case.shapes)
        rows.append(
            {"nodes": nodes, "states": case.states, "shapes": case.shapes, "ours_s": found and found["s"]}
        )
        rows[-1] |= {key: found and found[key] for key in PARTS} | {"s_per_node_shape": per, "failed": failed}
    return rows


def parser() -> argparse.ArgumentParser:
    """Return the options, with the cases told at the end of the help."""
    made = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawTextHelpFormatter,
        epilog="cases:\n" + "\n".join(f"  {name}  {title}" for name, title in cases.TITLES.items()),
    )
    made.add_argument("--json", action="store_true", help="print JSON alone; targets go to stderr")
    made.add_argument("--check", action="store_true", help="status 1 where a target is missed")
    made.add_argument("--seed", type=int, default=1, metavar="N", help="another seed, other cases (1)")
    made.add_argument("--runs", type=_count, default=5, metavar="N", help="ours, the median counts (5)")
    made.add_argument(
        "--case",
        type=_case,
        nargs="+",
        default=list(cases.MAKERS),
        metavar="A",
        help="only these cases (all)",
    )
    made.add_argument("--curve", action="store_true", help="ours alone, from 1,000 to 30,000 nodes")
    made.add_argument("--adapter", action="store_true", help="also our planner behind Ray's interface")
    made.add_argument("--no-ray", action="store_true", help="leave Ray's scheduler out")
    made.add_argument("--no-bound", action="store_true", help="leave the lower bound out")
    limits = ", ".join(f"{name} at most {limit_s:g}" for name, limit_s in RAY_LIMIT_S.items())
    made.add_argument(
        "--ray-limit",
        type=_seconds,
        default=RAY_LIMIT_ELSE_S,
        metavar="S",
        help=f"seconds a case of Ray's ({RAY_LIMIT_ELSE_S:g}; {limits})",
    )
    made.add_argument(
        "--ray-from",
        type=_earlier_run,
        metavar="FILE",
        help="take Ray's figures from an earlier --json output",
    )
    made.add_argument("--child", choices=tuple(CHILDREN), help=argparse.SUPPRESS)
    return made


def _case(text: str) -> str:
    name = text.upper()
    if name not in {*cases.MAKERS, *(f"N{nodes}" for nodes in cases.CURVE)}:
        raise argparse.ArgumentTypeError(f"there is no case {text!r}; allowed are {' '.join(cases.MAKERS)}")
    return name


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of runs; allowed are 1, 2, 3, …")
    return int(text)


def _seconds(text: str) -> float:
    with suppress(ValueError):
        if float(text) > 0:
            return float(text)
    raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds above 0")


def _earlier_run(text: str) -> dict[str, Any]:
    """Return the cases of an earlier run's JSON."""
    found: dict[str, Any] = {}
    try:
        found = json.loads(Path(text).read_text())["cases"]
        usable = all(map(_usable, found.values()))
    except OSError as error:
        raise argparse.ArgumentTypeError(f"cannot read {text}: {error.strerror}") from error
    except (ValueError, LookupError, TypeError, AttributeError):
        usable = False
    if not usable:
        raise argparse.ArgumentTypeError(f"{text} is no output of --json")
    return found


def _usable(one: dict[str, Any]) -> bool:
    return "digest" in one and (
        one["ray"] is None or {"s", "cpu_s", "launched", "words"} <= one["ray"].keys()
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Return the exit status: 1 where a measurement failed, or a target that was to be checked."""
    arguments = parser().parse_args(argv)
    if arguments.child:
        case = cases.make(arguments.case[0], arguments.seed)
        print(json.dumps(CHILDREN[arguments.child](case, arguments.runs)))
        return 0
    if arguments.curve:
        rows = curve(arguments)
        print(json.dumps({"curve": rows}) if arguments.json else table.of_curve(rows))
        return int(any(row["failed"] for row in rows))
    return _run_cases(arguments)


CHILDREN: Mapping[str, Callable[[Case, int], dict[str, Any]]] = {
    "ours": lambda case, runs: child_ours(case, runs=runs),
    "memory": lambda case, _: child_memory(case),
    "ray": lambda case, runs: child_ray(case, runs=runs),
    "adapter": lambda case, runs: child_adapter(case, runs=runs),
}


def _run_cases(arguments: argparse.Namespace) -> int:
    found = {}
    # Ray takes minutes for some: whoever waits for the JSON sees on stderr how far it is.
    to = sys.stderr if arguments.json else sys.stdout
    for name in arguments.case:
        began_s = time.perf_counter()
        found[name] = measure(name, arguments)
        took_s = time.perf_counter() - began_s
        print(table.of_case(name, found[name]), f"  ({took_s:.0f} s in all)", file=to, flush=True)
    print(table.targets(found), file=to, flush=True)
    if arguments.json:
        print(json.dumps({"seed": arguments.seed, "cases": found}))
    missed = arguments.check and not table.all_met(found)
    return int(missed or any(one["failed"] for one in found.values()))


if __name__ == "__main__":
    sys.exit(main())
