"""How long a job of three workers takes from zero: Ray's own autoscaler against Heliostat's, in the same run.

    python benchmarks/ray_up.py [--rounds 5] [--upscaling-speed 1.0] [--json]

Two clusters of the local backend are up, in whose files `provider.autoscaler` alone differs. In each round
the same job is sent to each of them (`ray submit`), in turns first to the one or to the other, each time from
zero workers. Prints for each the seconds from the start of that command to the job's checked result (median),
and their ratio.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.measuring import end_on_term, until
from heliostat.api.client import ControllerClient
from heliostat.cli.start import StartOptions, start_cluster, stop_cluster
from heliostat.config.record import ClusterRecord

AUTOSCALERS = ("ray", "heliostat")
WORKERS = 3
JOB_TIMEOUT_S = 180.0

CLUSTER = """
cluster_name: bench-{autoscaler}
max_workers: {workers}
idle_timeout_minutes: 0.1
upscaling_speed: {speed}
provider:
  type: external
  module: heliostat.launcher.NodeProvider
  autoscaler: {autoscaler}
  backends: {{local: {{cpus: {workers}}}}}
available_node_types:
  head: {{resources: {{CPU: 0}}, node_config: {{backend: local}}}}
  worker: {{resources: {{CPU: 1}}, max_workers: {workers}, node_config: {{backend: local}}}}
head_node_type: head
setup_commands: []
head_setup_commands: []
worker_setup_commands: []
"""

JOB = f"""
import ray
from ray.util.placement_group import placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy as On

ray.init(address="auto")
group = placement_group([{{"CPU": 1}}] * {WORKERS}, strategy="STRICT_SPREAD")
ray.get(group.ready())

@ray.remote(num_cpus=1)
def square(n):
    return n * n, ray.get_runtime_context().get_node_id()

places = [On(group, placement_group_bundle_index=n) for n in range({WORKERS})]
found = ray.get([square.options(scheduling_strategy=places[n]).remote(n) for n in range({WORKERS})])
print("sum", sum(n for n, _ in found), "nodes", len({{node for _, node in found}}))
"""
EXPECTED = f"sum {sum(n * n for n in range(WORKERS))} nodes {WORKERS}"


@contextmanager
def up(folder: Path, autoscaler: str, speed: float) -> Iterator[ClusterRecord]:
    path = folder / f"{autoscaler}.yaml"
    path.write_text(CLUSTER.format(autoscaler=autoscaler, workers=WORKERS, speed=speed), encoding="utf-8")
    record = start_cluster(path, options=StartOptions(detach=True), say=_say)
    try:
        yield record
    finally:
        stop_cluster(record, say=_say)


def job_s(record: ClusterRecord, script: Path) -> float:
    """Return how long the job takes from its submission to its result, in seconds; it begins at zero."""
    wait_empty(record)
    argv = [sys.executable, "-m", "ray.scripts.scripts", "submit", record.source, str(script)]
    began_s = time.monotonic()
    done = subprocess.run(
        argv,
        capture_output=True,
        text=True,
        timeout=JOB_TIMEOUT_S,
        check=False,
    )
    took_s = time.monotonic() - began_s
    if done.returncode or EXPECTED not in done.stdout:
        raise SystemExit(f"the job failed:\n{done.stdout}\n{done.stderr}")
    return took_s


def wait_empty(record: ClusterRecord) -> None:
    client = ControllerClient(Path(record.runtime_dir, "control.sock"), cluster=record.cluster_name)
    until("an empty cluster", lambda: None if client.status().instances else time.time())


def measure(records: dict[str, ClusterRecord], script: Path, rounds: int) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {name: [] for name in records}
    for number in range(rounds):
        for name in sorted(records, reverse=bool(number % 2)):
            found[name].append(job_s(records[name], script))
            # The other one is to have the machine for itself.
            wait_empty(records[name])
    return found


def _say(text: str) -> None:
    print(text, file=sys.stderr)


def _arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--upscaling-speed", type=float, default=1.0, help="of both; 1.0 is Ray's default")
    parser.add_argument("--json", action="store_true")
    return parser.parse_args(argv)


def main() -> None:
    arguments = _arguments()
    end_on_term()
    with tempfile.TemporaryDirectory(prefix="hb-", dir="/tmp") as name, ExitStack() as stack:
        folder = Path(name)
        (folder / "run").mkdir(mode=0o700)
        os.environ |= {
            "HELIOSTAT_STATE_DIR": str(folder / "state"),
            "HELIOSTAT_RUNTIME_DIR": str(folder / "run"),
            "RAY_AUTH_TOKEN_PATH": str(folder / "token"),
        }
        script = folder / "job.py"
        script.write_text(JOB, encoding="utf-8")
        records = {
            one: stack.enter_context(up(folder, one, arguments.upscaling_speed)) for one in AUTOSCALERS
        }
        runs = measure(records, script, arguments.rounds)
    ray_s, heliostat_s = (statistics.median(runs[one]) for one in AUTOSCALERS)
    found = {
        "ray_s": ray_s,
        "heliostat_s": heliostat_s,
        "ratio": heliostat_s / ray_s,
        "rounds": arguments.rounds,
        "upscaling_speed": arguments.upscaling_speed,
        "runs": runs,
    }
    plain = f"ray {ray_s:.1f} s, heliostat {heliostat_s:.1f} s, ratio {heliostat_s / ray_s:.2f}"
    print(json.dumps(found) if arguments.json else plain)


if __name__ == "__main__":
    main()
