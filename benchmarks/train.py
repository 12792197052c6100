"""What `heliostat.train` costs and loses: a group on declared GPUs that grows, is killed at, and is drained.

    python benchmarks/train.py [--kills 50] [--drains 5] [--syncs 500] [--json] [--check]

One cluster of the local backend, one group, one run. A step is `ITEMS` items of a fixed sleep each. Prints
throughput_1 and throughput_3 (items a second with one member and with three, over whole steps with their
`sync`) and their ratio, sync_ms and sync_p95_ms (`sync()` when nothing changed), join_to_first_step_s (a
node RUNNING in the GCS → the first step with a result of its member; the slowest), the steps that were
lost over so many kill -9 of members' processes, each at another moment of a step (lost_by_kills, and
lost_per_kill_max), and over so many drains with a deadline (lost_by_drains). A lost step is one that had to
be made again. --check: the exit code is 1 if a target is missed.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ray

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.measuring import end_on_term, p95, run_with_token
from heliostat.api.client import ControllerClient
from heliostat.cli.driver import driver_variables
from heliostat.cli.start import UID_TAG, StartOptions, start_cluster, stop_cluster
from heliostat.cli.system import tagged_processes
from heliostat.config.record import ClusterRecord
from heliostat.model.instance import NodeStatus
from heliostat.raylink.reader import GcsReader
from heliostat.raylink.token import read_token
from heliostat.train import ElasticGroup, Failure, MemberLost

MEMBERS = 3
ITEMS = 6
ITEM_S = 0.1
STEPS = 30
"""For each of the two throughputs."""
DRAIN_S = 20.0
WAIT_S = 120.0
LOOK_S = 0.01
LEAST_RATIO, MOST_SYNC_MS, MOST_LOST_PER_KILL = 2.6, 5.0, 1

CLUSTER = f"""
cluster_name: bench-train
max_workers: {MEMBERS + 1}
idle_timeout_minutes: 10
provider:
  type: external
  module: heliostat.launcher.NodeProvider
  backends: {{local: {{gpus: {MEMBERS + 1}, cpus: {2 * MEMBERS + 2}}}}}
available_node_types:
  head: {{resources: {{CPU: 0}}, node_config: {{backend: local}}}}
  gpu: {{resources: {{CPU: 1, GPU: 1}}, min_workers: 0, node_config: {{backend: local}}}}
head_node_type: head
"""


class Sleeper:
    """Stands for a trainer: each item takes the same time wherever it is done."""

    def work(self, item: tuple[int, int]) -> tuple[tuple[int, int], str]:
        """Return the item, to see that each result is the one that was asked for, and the node."""
        time.sleep(ITEM_S)
        return item, ray.get_runtime_context().get_node_id()

    def pid(self) -> int:
        return os.getpid()


@dataclass
class Joins:
    """When each worker was first seen RUNNING in the GCS, and when the first step on it was done."""

    running_s: dict[str, float] = field(default_factory=dict)
    used_s: dict[str, float] = field(default_factory=dict)

    def waits_s(self, but: Sequence[str]) -> list[float]:
        return [
            used_s - self.running_s[one]
            for one, used_s in self.used_s.items()
            if one in self.running_s and one not in but
        ]


@contextmanager
def watching(record: ClusterRecord, joins: Joins) -> Iterator[None]:
    """Look at the GCS all the time while the block runs, and note which nodes are there."""
    over = threading.Event()

    def look() -> None:
        with GcsReader(record.address, read_token(Path(record.token_path))) as reader:
            while not over.wait(LOOK_S):
                for node in reader.facts().state.nodes:
                    if node.status is not NodeStatus.DEAD and not node.is_head:
                        joins.running_s.setdefault(node.node_id, time.monotonic())

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


class Run:
    """The group and its steps."""

    def __init__(self, joins: Joins) -> None:
        self.joins = joins
        self.done = 0
        self.lost = 0
        self.group = ElasticGroup(
            Sleeper,
            bundle={"GPU": 1, "CPU": 1},
            min_size=1,
            max_size=MEMBERS,
            name="bench",
            target=1,
            timeout_s=WAIT_S,
            # Each kill is a restart, and there are many on purpose.
            max_restarts=1_000_000,
        )

    def step(self) -> float:
        """Make one step and return its seconds. A step in which a member is lost is made again."""
        began_s = time.monotonic()
        while True:
            self.group.sync()
            items = [(self.done, index) for index in range(ITEMS)]
            try:
                found = self.group.map("work", items, on_failure=Failure.RAISE, timeout_s=WAIT_S)
            except MemberLost:
                self.lost += 1
                continue
            assert [item for item, _ in found] == items, "each item counts once, in its place"
            self.done += 1
            ended_s = time.monotonic()
            for _, node_id in found:
                self.joins.used_s.setdefault(node_id, ended_s)
            return ended_s - began_s

    def until(self, what: str, there: Callable[[], bool]) -> None:
        """Make steps until it is so."""
        deadline_s = time.monotonic() + WAIT_S
        while not there():
            if time.monotonic() > deadline_s:
                raise SystemExit(f"no {what} within {WAIT_S:.0f} s, but {len(self.group)} members")
            self.step()

    def grow(self, size: int) -> None:
        self.group.target = size
        self.until(f"{size} members", lambda: len(self.group) == size)

    def throughput(self) -> float:
        """Return items a second, over whole steps with their `sync`."""
        return ITEMS * STEPS / sum(self.step() for _ in range(STEPS))

    def syncs_ms(self, count: int) -> list[float]:
        """Return what `sync` takes, in ms, each time without anything that has changed."""
        found = []
        while len(found) < count:
            began_s = time.perf_counter()
            change = self.group.sync()
            took_s = time.perf_counter() - began_s
            found += [] if change else [took_s * 1_000]
        return found


def killed(run: Run, cluster_uid: str, count: int) -> list[int]:
    """Return the steps lost by each kill -9 of a member's process; each comes at another moment of a step."""
    lost = []
    for number in range(count):
        run.grow(MEMBERS)
        pids = run.group.call("pid")
        victim = pids[number % MEMBERS]
        assert victim in tagged_processes(UID_TAG, cluster_uid), "only what is this cluster's own"
        before = run.lost
        at_s = (number + 0.5) / count * ITEM_S * ITEMS / MEMBERS
        timer = threading.Timer(at_s, os.kill, (victim, signal.SIGKILL))
        timer.start()
        run.step()
        timer.join()
        run.until("new member", lambda gone=victim: gone not in _pids(run))
        lost.append(run.lost - before)
    return lost


def _pids(run: Run) -> list[int]:
    try:
        found: list[int] = run.group.call("pid")
    except MemberLost:
        return []
    return found


def drained(run: Run, client: ControllerClient, count: int) -> int:
    """Return the steps lost by so many drains with a deadline, each of the member longest there."""
    before = run.lost
    for _ in range(count):
        run.grow(MEMBERS)
        node_id = run.group.members[0].node_id
        client.remove(node_id, deadline_s=DRAIN_S)
        run.until("leave", lambda gone=node_id: gone not in {one.node_id for one in run.group.members})
    run.grow(MEMBERS)
    return run.lost - before


def measure(
    record: ClusterRecord, arguments: argparse.Namespace, say: Callable[[str], None]
) -> dict[str, Any]:
    joins = Joins()
    client = ControllerClient(Path(record.runtime_dir, "control.sock"))
    run = Run(joins)
    with watching(record, joins), run.group:
        first = [one.node_id for one in run.group.members]
        one = run.throughput()
        say(f"one member: {one:.1f} items/s")
        run.grow(MEMBERS)
        waits_s = joins.waits_s(but=first)
        three = run.throughput()
        say(f"{MEMBERS} members: {three:.1f} items/s; joined to first step {max(waits_s):.1f} s")
        syncs_ms = run.syncs_ms(arguments.syncs)
        say(f"sync: {statistics.median(syncs_ms):.2f} ms")
        by_kill = killed(run, record.cluster_uid, arguments.kills)
        say(f"{sum(by_kill)} steps lost by {len(by_kill)} kills")
        by_drains = drained(run, client, arguments.drains)
        say(f"{by_drains} steps lost by {arguments.drains} drains")
    return {
        "throughput_1": round(one, 2),
        "throughput_3": round(three, 2),
        "ratio": round(three / one, 3),
        "sync_ms": round(statistics.median(syncs_ms), 3),
        "sync_p95_ms": round(p95(syncs_ms), 3),
        "syncs": len(syncs_ms),
        "join_to_first_step_s": round(max(waits_s), 2),
        "kills": len(by_kill),
        "lost_by_kills": sum(by_kill),
        "lost_per_kill_max": max(by_kill, default=0),
        "drains": arguments.drains,
        "lost_by_drains": by_drains,
        "steps": run.done,
    }


def missed(found: dict[str, Any]) -> list[str]:
    """Return a sentence for each target that was missed."""
    told = [
        (found["ratio"] >= LEAST_RATIO, f"ratio {found['ratio']}, at least {LEAST_RATIO}"),
        (found["sync_ms"] <= MOST_SYNC_MS, f"sync_ms {found['sync_ms']}, at most {MOST_SYNC_MS}"),
        (
            found["lost_per_kill_max"] <= MOST_LOST_PER_KILL,
            f"lost_per_kill_max {found['lost_per_kill_max']}, at most {MOST_LOST_PER_KILL}",
        ),
        (found["lost_by_drains"] == 0, f"lost_by_drains {found['lost_by_drains']}, must be 0"),
    ]
    return [text for is_met, text in told if not is_met]


def _arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--kills", type=int, default=50, help="kill -9 of members' processes (50)")
    parser.add_argument("--drains", type=int, default=5, help="drains with a deadline (5)")
    parser.add_argument("--syncs", type=int, default=500, help="calls of sync() without a change (500)")
    parser.add_argument("--json", action="store_true", help="print JSON alone")
    parser.add_argument("--check", action="store_true", help="exit code 1 if a target is missed")
    return parser.parse_args(argv)


def main() -> None:
    arguments = _arguments()
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
            # Ray tells of each process that was killed, and would do so between the figures.
            with contextlib.redirect_stdout(sys.stderr):
                ray.init(address=record.address, log_to_driver=False, logging_level="ERROR")
                result = measure(record, arguments, say)
                ray.shutdown()
        finally:
            stop_cluster(record, say=say)
    print(json.dumps(result) if arguments.json else "\n".join(f"{k:22} {v}" for k, v in result.items()))
    for text in missed(result):
        print(f"missed: {text}", file=sys.stderr)
    if arguments.check and missed(result):
        sys.exit(1)


if __name__ == "__main__":
    main()
