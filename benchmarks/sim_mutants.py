"""How many seeds the simulator takes to tell each deliberate bug of tests/unit/sim/mutants.

    python benchmarks/sim_mutants.py [--json] [--most 300] [--jobs 2] [NAME …]

Seeds are tried from 1 on until one breaks a rule. The status is 1 where one is not told within
`--most` seeds, or by a check that it is not known to break.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.unit.sim.mutants.catalogue import MUTANTS

SEEDED = [name for name, one in MUTANTS.items() if one.seed is not None]
"""Each of the others has a scenario of its own (tests/unit/sim/pinned.py)."""


def measured(name: str, most: int) -> dict[str, object]:
    """Return how one mutant was told; `seed` is None where it was not."""
    mutant, began_s = MUTANTS[name], time.perf_counter()
    found = mutant.search(range(1, most + 1))
    seed, violation = found or (None, None)
    return {
        "name": name,
        "says": mutant.says,
        "seed": seed,
        "check": violation.check if violation else None,
        "text": violation.text if violation else None,
        "told": violation is not None and violation.check in mutant.checks,
        "took_s": round(time.perf_counter() - began_s, 2),
    }


def shown(one: dict[str, object]) -> str:
    if one["seed"] is None:
        return f"{one['name']}: not told, {one['took_s']} s"
    return f"{one['name']}: seed {one['seed']}, {one['check']}, {one['took_s']} s: {one['text']}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help="some mutants only; default: all")
    parser.add_argument("--json", action="store_true", help="one JSON object at the end, and nothing else")
    parser.add_argument("--most", type=int, default=300, help="seeds to try at most")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    options = parser.parse_args()
    unknown = sorted(set(options.names) - MUTANTS.keys())
    if unknown:
        parser.error(f"no such mutants: {', '.join(unknown)}; there are {', '.join(MUTANTS)}")
    found = []
    with ProcessPoolExecutor(options.jobs) as pool:
        runs = [pool.submit(measured, name, options.most) for name in options.names or SEEDED]
        for run in as_completed(runs):
            found.append(run.result())
            if not options.json:
                print(shown(found[-1]), flush=True)
    if options.json:
        print(json.dumps({"mutants": found, "most": options.most}, indent=1))
    return 0 if all(one["told"] for one in found) else 1


if __name__ == "__main__":
    sys.exit(main())
