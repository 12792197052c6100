"""How fast the local backend brings a first worker, against `ray start` by hand in the same run.

    python benchmarks/local.py [--runs 5] [--json]

Prints first_worker_s (tasks submitted → worker RUNNING in the GCS, median), floor_s (`ray start`
by hand of the same worker → RUNNING, median), over_s (the median of the differences of
neighbouring runs), react_p95_s (demand visible in the GCS → worker's process started),
quiet_round_ms and busy_round_ms (the controller's round without and with 5,000 pending tasks,
median) and controller_rss_mb. Runs of both kinds alternate, so that a noisy machine hits both.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import ray

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.measuring import end_on_term, p95, run_with_token, until
from heliostat.api.client import ControllerClient
from heliostat.cli.driver import driver_variables
from heliostat.cli.start import StartOptions, start_cluster, stop_cluster
from heliostat.cli.system import tagged_processes
from heliostat.config.record import ClusterRecord
from heliostat.model.instance import NodeStatus
from heliostat.raylink.reader import GcsReader
from heliostat.raylink.token import read_token

PENDING_TASKS = 5000
ROUNDS_SAMPLED = 12

BY_HAND = (
    *(sys.executable, "-m", "ray.scripts.scripts", "start", "--block", "--num-cpus=0"),
    *("--dashboard-agent-listen-port=0", "--min-worker-port=0", "--max-worker-port=0"),
    '--resources={"by_hand": 1}',
)
"""The same worker as ours, but for a resource that the benchmark's tasks do not ask for."""

CLUSTER = """
cluster_name: bench
max_workers: 1
idle_timeout_minutes: 1
provider:
  type: external
  module: heliostat.launcher.NodeProvider
  backends: {local: {cpus: 1}}
available_node_types:
  head: {resources: {CPU: 0}, node_config: {backend: local}}
  worker:
    resources: {CPU: 1}
    min_workers: 0
    max_workers: 1
    idle_timeout_s: 2
    node_config: {backend: local}
head_node_type: head
"""


class Bench:
    def __init__(self, record: ClusterRecord) -> None:
        self.record = record
        self.client = ControllerClient(Path(record.runtime_dir, "control.sock"))
        self.token = read_token(Path(record.token_path))

    @contextmanager
    def reader(self) -> Iterator[GcsReader]:
        with GcsReader(self.record.address, self.token) as reader:
            yield reader

    def workers(self, reader: GcsReader) -> int:
        alive = [node for node in reader.facts().state.nodes if node.status is not NodeStatus.DEAD]
        return sum(not node.is_head for node in alive)

    def wait_empty(self) -> None:
        with self.reader() as reader:
            until("scale-down", lambda: time.time() if self.workers(reader) == 0 else None)
        until("the last process's end", lambda: None if self.processes() else time.time())
        until("an empty cluster", lambda: None if self.client.status().instances else time.time())

    def processes(self) -> list[int]:
        ours = set(tagged_processes("HELIOSTAT_CLUSTER_UID", self.record.cluster_uid))
        return [pid for pid in ours if b"HELIOSTAT_INSTANCE_ID=" in _environment(pid)]

    def ours(self) -> tuple[float, float]:
        """Return (tasks submitted → RUNNING, demand visible → process started), in seconds."""

        @ray.remote(num_cpus=1)
        def nothing() -> None:
            return None

        with self.reader() as reader:
            submitted_s = time.time()
            reference = nothing.remote()
            visible_s = until("demand", lambda: time.time() if reader.facts().state.demands else None)
            started_s = until(
                "a worker's process", lambda: min(map(_started_s, self.processes()), default=None)
            )
            running_s = until("a worker", lambda: time.time() if self.workers(reader) else None)
        ray.get(reference)
        return running_s - submitted_s, started_s - visible_s

    def floor(self) -> float:
        """Return `ray start` by hand → RUNNING, in seconds; the node is ended afterwards."""
        with tempfile.TemporaryDirectory(prefix="hb-", dir="/tmp") as folder, self.reader() as reader:
            began_s = time.time()
            process = subprocess.Popen(
                [*BY_HAND, f"--address={self.record.address}", f"--temp-dir={folder}"],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
            try:
                running_s = until("a worker by hand", lambda: time.time() if self.workers(reader) else None)
            finally:
                process.send_signal(signal.SIGTERM)
                process.wait(60)
            until("its end", lambda: None if self.workers(reader) else time.time())
        return running_s - began_s

    def rounds_ms(self) -> float:
        """Return the median of the controller's next rounds, in ms."""
        samples = []
        seen = self.client.status().measures["round_ms"]["count"]
        while len(samples) < ROUNDS_SAMPLED:
            measured = self.client.status().measures["round_ms"]
            if measured["count"] > seen:
                seen = measured["count"]
                samples.append(measured["last"])
            time.sleep(0.2)
        return statistics.median(samples)

    def busy_rounds_ms(self) -> float:
        @ray.remote(num_cpus=1)
        def hold(path: str) -> None:
            while os.path.exists(path):
                time.sleep(0.1)

        with tempfile.NamedTemporaryFile() as flag:
            tasks = [hold.remote(flag.name) for _ in range(PENDING_TASKS)]
            with self.reader() as reader:
                until("a worker", lambda: time.time() if self.workers(reader) else None)
                until("5,000 pending tasks", lambda: _enough(reader))
            result = self.rounds_ms()
            for task in tasks:
                ray.cancel(task, force=True)
        return result

    def controller_rss_mb(self) -> float:
        pid = self.client.status().controller_pid
        fields = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
        return int(fields["VmRSS"].split()[0]) / 1024


def _enough(reader: GcsReader) -> float | None:
    waiting = sum(demand.count for demand in reader.facts().state.demands)
    return time.time() if waiting >= PENDING_TASKS * 0.9 else None


def _environment(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return b""


def _started_s(pid: int) -> float:
    """Return when a process started, in Unix seconds (field 22 of /proc/PID/stat, in ticks since boot)."""
    try:
        ticks = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    except OSError:
        return time.time()
    boot_s = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
    return boot_s + ticks / os.sysconf("SC_CLK_TCK")


def measure(bench: Bench, runs: int) -> dict[str, float]:
    ours, floors, reacts = [], [], []
    for _ in range(runs):
        floors.append(bench.floor())
        first_s, react_s = bench.ours()
        ours.append(first_s)
        reacts.append(react_s)
        bench.wait_empty()
    quiet_ms = bench.rounds_ms()
    return {
        "first_worker_s": statistics.median(ours),
        "floor_s": statistics.median(floors),
        "over_s": statistics.median(a - b for a, b in zip(ours, floors, strict=True)),
        "react_p95_s": p95(reacts),
        "quiet_round_ms": quiet_ms,
        "busy_round_ms": bench.busy_rounds_ms(),
        "controller_rss_mb": bench.controller_rss_mb(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--runs", type=int, default=5, help="runs of each kind (5)")
    parser.add_argument("--json", action="store_true", help="print JSON alone")
    arguments = parser.parse_args()
    run_with_token()
    end_on_term()
    say: Callable[[str], None] = (lambda _: None) if arguments.json else print
    with tempfile.TemporaryDirectory(prefix="hel-bench-", dir="/tmp") as folder:
        os.environ |= {"HELIOSTAT_STATE_DIR": f"{folder}/s", "HELIOSTAT_RUNTIME_DIR": f"{folder}/r"}
        path = Path(folder, "cluster.yaml")
        path.write_text(CLUSTER)
        record = start_cluster(path, options=StartOptions(), say=say)
        try:
            os.environ |= driver_variables(record)
            ray.init(address=record.address, log_to_driver=False, logging_level="ERROR")
            result = measure(Bench(record), arguments.runs)
            ray.shutdown()
        finally:
            stop_cluster(record, say=say)
    rounded = {name: round(value, 3) for name, value in result.items()}
    print(json.dumps(rounded) if arguments.json else "\n".join(f"{k:20} {v}" for k, v in rounded.items()))


if __name__ == "__main__":
    main()
