"""How the Slurm backend does on a real Slurm of its own on this machine (root; Debian's slurm-wlm, munge).

    python benchmarks/slurm.py [--part react one launch calls churn] [--json] [--check]

react   react_p95_s: demand visible in the GCS → sbatch has returned
one     one_worker_s: tasks submitted → worker RUNNING in the GCS, against floor_s: `sbatch` of a
        script with `ray start` by hand, both in turn, medians; four_workers_s and floor_four_s: four
        at once; cpu_s_per_min: CPU seconds of the idle controller in a minute, its commands included
launch  launch_500: 500 instances on 64 nodes, sbatch calls and seconds until all are in Slurm,
        against a loop of one sbatch each (naive_s)
calls   calls_per_min: Slurm commands in a minute with nothing for a while, in the minute from a launch
        of 10, 100 and 500 jobs on (scaling), and in a minute once they all run
churn   churn: jobs cancelled and killed, a node down and up, walltimes of two minutes, slurmctld
        stopped and started; tasks lost, jobs of ours that outlive the cluster, others' jobs touched

With --check the exit code is 1 where a target is missed, which is then named.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.measuring import end_on_term, run_with_token
from benchmarks.slurm_parts import churn, cluster, scale
from tests import slurm_site

PARTS = ("react", "one", "launch", "calls", "churn")
REACT_P95_MOST_S = 1.5
OVER_FLOOR_MOST_S = 1.5
SBATCH_MOST = 5
QUIET_MOST = 2.0


def measured(arguments: argparse.Namespace, folder: Path, found: dict[str, Any]) -> None:
    """Run the parts that were asked for, one after another, each kind on a site of its own, into `found`."""
    parts = frozenset(arguments.part)
    if parts & {"react", "one"}:
        place = _made(folder / "cluster")
        with slurm_site.start(folder / "site") as site, cluster.started(site, place) as running:
            found |= cluster.measure(running, parts=parts, runs=arguments.runs, asks=arguments.asks)
    if parts & {"launch", "calls"}:
        place = _made(folder / "scale")
        with slurm_site.start(folder / "large", nodes=scale.NODES, cpus=scale.CPUS) as site:
            if "launch" in parts:
                found["launch_500"] = scale.launch_many(site, place)
            if "calls" in parts:
                scale.calls_per_min(site, place, found.setdefault("calls_per_min", {}))
    if "churn" in parts:
        found["churn"] = churned(folder, minutes=arguments.churn_minutes)


def churned(folder: Path, *, minutes: float) -> dict[str, float]:
    place = _made(folder / "churn")
    with slurm_site.start(folder / "shaken") as site:
        with cluster.started(site, place, minutes=churn.WALLTIME_MIN, idle_s=churn.IDLE_S) as running:
            foreign = churn.foreign_job(site, running)
            counts = churn.work(running, place, minutes=minutes)
        leaked, touched = churn.left_over(site, foreign)
    return {"minutes": minutes, **counts, "leaked": leaked, "foreign": touched}


def missed(found: Mapping[str, Any]) -> Iterator[str]:
    """Yield a sentence for every target that was missed by what was measured."""
    if found.get("react_p95_s", 0) > REACT_P95_MOST_S:
        yield f"react_p95_s is {found['react_p95_s']:.2f}, more than {REACT_P95_MOST_S}"
    if "floor_s" in found and (over_s := found["one_worker_s"] - found["floor_s"]) > OVER_FLOOR_MOST_S:
        yield f"one_worker_s is {over_s:.2f} s over floor_s, more than {OVER_FLOOR_MOST_S}"
    if found.get("launch_500", {}).get("sbatch_calls", 0) > SBATCH_MOST:
        yield f"launch_500 took {found['launch_500']['sbatch_calls']} sbatch calls, more than {SBATCH_MOST}"
    calls = dict(found.get("calls_per_min", {}))
    if calls.pop("quiet", 0) > QUIET_MOST:
        yield f"calls_per_min quiet is {found['calls_per_min']['quiet']:g}, more than {QUIET_MOST:g}"
    for counts in (calls.pop("scaling", {}), calls):
        if len(set(counts.values())) > 1:
            yield f"calls_per_min grows with the jobs: {counts}"
    for name in ("lost", "leaked", "foreign"):
        if count := found.get("churn", {}).get(name):
            yield f"churn: {count} {name}, not 0"


def main(argv: Sequence[str] | None = None) -> int:
    arguments = _arguments(argv)
    if obstacle := slurm_site.obstacle():
        raise SystemExit(obstacle)
    run_with_token()
    end_on_term()
    with tempfile.TemporaryDirectory(prefix="hel-bench-", dir="/tmp") as folder:
        # Jobs are of any user.
        Path(folder).chmod(0o711)
        found: dict[str, Any] = {}
        try:
            measured(arguments, Path(folder), found)
        except BaseException:
            # A part that fails takes nothing with it that was measured before.
            print(json.dumps(_rounded(found)), file=sys.stderr)
            raise
    found = _rounded(found)
    print(json.dumps(found) if arguments.json else "\n".join(f"{k:16} {v}" for k, v in found.items()))
    wrong = list(missed(found)) if arguments.check else []
    print(*wrong, sep="\n", end="\n" if wrong else "", file=sys.stderr)
    return 1 if wrong else 0


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--part", nargs="+", choices=PARTS, default=list(PARTS), help="only these (all)")
    parser.add_argument("--runs", type=_count, default=5, help="workers of each kind for `one` (5)")
    parser.add_argument("--asks", type=_count, default=20, help="asks for `react` (20)")
    parser.add_argument("--churn-minutes", type=_minutes, default=20.0, help="how long `churn` shakes (20)")
    parser.add_argument("--json", action="store_true", help="print JSON alone")
    parser.add_argument("--check", action="store_true", help="end with 1 where a target is missed")
    return parser.parse_args(argv)


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r}: a whole number from 1 on was expected")
    return int(text)


def _minutes(text: str) -> float:
    try:
        minutes = float(text)
    except ValueError:
        minutes = -1.0
    if not 0 < minutes <= 1440:
        raise argparse.ArgumentTypeError(f"{text!r}: minutes above 0, 1440 at most, were expected")
    return minutes


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _rounded(one) for key, one in value.items()}
    return round(value, 3) if isinstance(value, float) else value


if __name__ == "__main__":
    sys.exit(main())
