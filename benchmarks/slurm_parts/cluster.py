"""A real Ray cluster whose workers are Slurm jobs: how soon they are asked for, and how soon they are there.

The floor is what a person would write: a job script with `ray start`, given to `sbatch`.
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray

from benchmarks.measuring import p95, until
from heliostat.api.client import ControllerClient
from heliostat.cli.driver import driver_variables
from heliostat.cli.start import StartOptions, start_cluster, stop_cluster
from heliostat.config.record import ClusterRecord
from heliostat.model.instance import NodeStatus
from heliostat.raylink.reader import GcsReader
from heliostat.raylink.token import read_token
from tests.slurm_site import SlurmSite

QUIET_S = 60.0
FOUR = 4

CLUSTER = """
cluster_name: bench
max_workers: 8
idle_timeout_minutes: 1
upscaling_speed: 0
provider:
  type: external
  module: heliostat.launcher.NodeProvider
  orphan_timeout_s: 60
  backends:
    local: {{}}
    slurm: {{partition: main, time_limit: {minutes}, network: 127.0.0.0/8}}
available_node_types:
  head: {{resources: {{CPU: 0}}, node_config: {{backend: local}}}}
  worker:
    resources: {{CPU: 1, memory: 300000000, object_store_memory: 100000000}}
    min_workers: 0
    max_workers: 4
    idle_timeout_s: {idle_s}
    node_config: {{backend: slurm}}
  later:
    resources: {{CPU: 0, later: 1, memory: 100000000, object_store_memory: 100000000}}
    min_workers: 0
    max_workers: 1
    node_config: {{backend: slurm, sbatch: [--begin=now+1hour]}}
head_node_type: head
"""
"""`later` is for asking alone: its jobs never start, so that another ask can follow soon."""

BY_HAND = """#!/bin/bash
exec {python} -m ray.scripts.scripts start --block --num-cpus=0 --address={address} --temp-dir={folder} \\
    --dashboard-agent-listen-port=0 --min-worker-port=0 --max-worker-port=0 --resources='{{"by_hand": 1}}'
"""
"""The same worker as ours, but for a resource that the benchmark's tasks do not ask for."""

SBATCH = """#!/bin/sh
{sbatch} "$@"
code=$?
date +%s.%N >> {stamps}
exit $code
"""


@contextmanager
def started(site: SlurmSite, folder: Path, *, minutes: int = 30, idle_s: int = 2) -> Iterator[Cluster]:
    """Run a cluster with its head on this machine while the block runs; `sbatch` notes when it returned.

    Its workers have `minutes` of walltime and go when idle for `idle_s`.
    """
    stamps, wrappers = folder / "stamps", folder / "bin"
    wrappers.mkdir()
    stamps.touch()
    wrapper = wrappers / "sbatch"
    wrapper.write_text(SBATCH.format(sbatch=shutil.which("sbatch"), stamps=stamps))
    wrapper.chmod(0o755)
    # The controller inherits it.
    os.environ |= {
        **site.environment,
        "PATH": f"{wrappers}:{site.environment['PATH']}",
        "HELIOSTAT_STATE_DIR": f"{folder}/s",
        "HELIOSTAT_RUNTIME_DIR": f"{folder}/r",
    }
    path = folder / "cluster.yaml"
    path.write_text(CLUSTER.format(minutes=minutes, idle_s=idle_s))
    record = start_cluster(path, options=StartOptions(), say=lambda _: None)
    try:
        yield Cluster(site, record, stamps)
    finally:
        stop_cluster(record, say=lambda _: None)


class Cluster:
    """A running cluster, and what can be measured on it."""

    def __init__(self, site: SlurmSite, record: ClusterRecord, stamps: Path) -> None:
        self.site = site
        self.record = record
        self.client = ControllerClient(Path(record.runtime_dir, "control.sock"))
        self._stamps = stamps
        self._token = read_token(Path(record.token_path))

    @contextmanager
    def driver(self) -> Iterator[None]:
        """Be a driver of the cluster while the block runs."""
        os.environ |= driver_variables(self.record)
        ray.init(address=self.record.address, log_to_driver=False, logging_level="ERROR")
        try:
            yield
        finally:
            ray.shutdown()

    @contextmanager
    def reader(self) -> Iterator[GcsReader]:
        with GcsReader(self.record.address, self._token) as reader:
            yield reader

    def workers(self, reader: GcsReader) -> int:
        alive = [node for node in reader.facts().state.nodes if node.status is not NodeStatus.DEAD]
        return sum(not node.is_head for node in alive)

    def our_jobs(self) -> list[str]:
        return [row.id for row in self.site.jobs(ended=False) if row.comment.startswith("heliostat:")]

    def wait_empty(self) -> None:
        with self.reader() as reader:
            until("scale-down", lambda: None if self.workers(reader) else time.time())
        until("an empty cluster", lambda: None if self.client.status().instances else time.time())
        until("the last job's end", lambda: None if self.our_jobs() else time.time())

    def react(self) -> float:
        """Return demand visible in the GCS → `sbatch` has returned, in seconds."""

        @ray.remote(num_cpus=0, resources={"later": 1})
        def nothing() -> None:
            return None

        known = len(self._submitted())
        with self.reader() as reader:
            reference = nothing.remote()
            visible_s = until("demand", lambda: time.time() if reader.facts().state.demands else None)
        submitted_s = until("sbatch", lambda: next(iter(self._submitted()[known:]), None))
        ray.cancel(reference)
        self.wait_empty()
        return max(0.0, submitted_s - visible_s)

    def first(self, count: int = 1) -> float:
        """Return tasks submitted → so many workers RUNNING in the GCS, in seconds."""

        @ray.remote(num_cpus=1)
        def hold(path: str) -> None:
            while os.path.exists(path):
                time.sleep(0.1)

        with tempfile.NamedTemporaryFile() as flag, self.reader() as reader:
            submitted_s = time.time()
            tasks = [hold.remote(flag.name) for _ in range(count)]
            running_s = until(
                f"{count} workers", lambda: time.time() if self.workers(reader) >= count else None
            )
        ray.get(tasks)
        self.wait_empty()
        return running_s - submitted_s

    def floor(self, count: int = 1) -> float:
        """Return `sbatch` of scripts by hand → so many RUNNING, in seconds; they are ended afterwards."""
        with tempfile.TemporaryDirectory(prefix="hb-", dir="/tmp") as folder, self.reader() as reader:
            options = ("--parsable", "--partition=main", "--time=30", "--output=/dev/null", "--chdir=/tmp")
            began_s = time.time()
            jobs = [_by_hand(self.record.address, f"{folder}/{number}", options) for number in range(count)]
            try:
                running_s = until(
                    f"{count} by hand", lambda: time.time() if self.workers(reader) >= count else None
                )
            finally:
                for job in jobs:
                    self.site.run("scancel", "--signal=TERM", "--batch", job, check=False)
            until("their end", lambda: None if self.workers(reader) else time.time())
            until("their jobs' end", lambda: None if self.site.jobs(ended=False) else time.time())
        return running_s - began_s

    def cpu_s_per_min(self) -> float:
        """Return what the controller uses of a CPU while nothing happens, its commands included."""
        pid = self.client.status().controller_pid
        before_s = _cpu_s(pid)
        time.sleep(QUIET_S)
        return (_cpu_s(pid) - before_s) * 60 / QUIET_S

    def _submitted(self) -> list[float]:
        return [float(line) for line in self._stamps.read_text().splitlines()]


def _by_hand(address: str, folder: str, options: Sequence[str]) -> str:
    """Submit a worker as a person would; return its job's id."""
    script = BY_HAND.format(python=sys.executable, address=address, folder=folder)
    asked = subprocess.run(("sbatch", *options), input=script, text=True, capture_output=True, check=True)
    return asked.stdout.strip()


def measure(cluster: Cluster, *, parts: frozenset[str], runs: int, asks: int) -> dict[str, Any]:
    """Return the figures of the parts `react` and `one`."""
    found: dict[str, Any] = {}
    with cluster.driver():
        if "react" in parts:
            found["react_p95_s"] = p95([cluster.react() for _ in range(asks)])
        if "one" in parts:
            ours, floors = [], []
            for _ in range(runs):
                floors.append(cluster.floor())
                ours.append(cluster.first())
            found["one_worker_s"] = statistics.median(ours)
            found["floor_s"] = statistics.median(floors)
            found["floor_four_s"] = cluster.floor(FOUR)
            found["four_workers_s"] = cluster.first(FOUR)
    if "one" in parts:
        found["cpu_s_per_min"] = cluster.cpu_s_per_min()
    return found


def _cpu_s(pid: int) -> float:
    """Return the CPU time of a process and its children so far (fields 14 to 17 of /proc/PID/stat)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")
