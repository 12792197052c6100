"""Work goes on while jobs are cancelled, a node dies, walltimes are short and slurmctld goes away.

What counts: tasks that were lost, jobs of ours that outlive the cluster, jobs of others that were touched.
"""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.measuring import until
from benchmarks.slurm_parts.cluster import Cluster
from heliostat.cli.driver import driver_environment
from tests.slurm_site import SlurmSite

WALLTIME_MIN, IDLE_S = 2, 5

WORK = """
import json, os, sys, time
import ray

stop = sys.argv[1]
ray.init(address="auto", logging_level="ERROR", log_to_driver=False)

@ray.remote(num_cpus=1, max_retries=-1)
def work(number):
    time.sleep(1 + number % 5)
    return number

number, done, lost, pending = 0, 0, 0, {}
while pending or not os.path.exists(stop):
    while len(pending) < 8 and not os.path.exists(stop):
        pending[work.remote(number)] = number
        number += 1
    ready, _ = ray.wait(list(pending), timeout=1)
    for reference in ready:
        expected = pending.pop(reference)
        try:
            right = ray.get(reference) == expected
        except ray.exceptions.RayError:
            right = False
        done, lost = done + right, lost + (not right)
print(json.dumps({"done": done, "lost": lost}))
"""

FOREIGN_NODE, DYING_NODE = "n1", "n4"
STEP_S = 15.0
AWAY_S = 10.0
LAST_TASKS_S = 300.0


def trouble(site: SlurmSite) -> list[Callable[[], None]]:
    """Return what is done to the site, one after another."""

    def cancel() -> None:
        ours = [row.id for row in site.jobs(ended=False) if row.comment.startswith("heliostat:")]
        if ours:
            site.run("scancel", ours[-1], check=False)

    def kill() -> None:
        running = [
            row.id for row in site.jobs(ended=False) if row.comment.startswith("heliostat:") and row.node
        ]
        if running:
            site.run("scancel", "--signal=KILL", "--full", running[0], check=False)

    def lose_a_node() -> None:
        site.stop_node(DYING_NODE)
        time.sleep(AWAY_S)
        site.start_node(DYING_NODE, wait=False)

    def lose_slurmctld() -> None:
        site.save_state()
        site.stop_controller()
        time.sleep(AWAY_S)
        site.start_controller()

    return [cancel, lose_a_node, kill, lose_slurmctld]


def foreign_job(site: SlurmSite, cluster: Cluster) -> str:
    """Submit a job of the same user with a name like ours; return its id."""
    name = f"--job-name=hel-{cluster.record.cluster_uid[:8]}-theirs"
    where = ("--output=/dev/null", "--chdir=/", f"--nodelist={FOREIGN_NODE}", "--time=600")
    return site.run("sbatch", "--parsable", name, *where, "--wrap=sleep 36000").stdout.strip()


def work(cluster: Cluster, folder: Path, *, minutes: float) -> dict[str, int]:
    """Let tasks run through the trouble for so long; return how many were done and lost."""
    stop = folder / "stop"
    driver = subprocess.Popen(
        [sys.executable, "-c", WORK, str(stop)],
        env=driver_environment(cluster.record),
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        with cluster.reader() as reader:
            until("a worker", lambda: time.time() if cluster.workers(reader) else None)
        ends_s = time.time() + minutes * 60
        for step in itertools.cycle(trouble(cluster.site)):
            if time.time() > ends_s or driver.poll() is not None:
                break
            step()
            time.sleep(STEP_S)
        stop.touch()
        output, _ = driver.communicate(timeout=LAST_TASKS_S)
    except subprocess.TimeoutExpired:
        raise SystemExit(f"tasks were not done {LAST_TASKS_S:.0f} s after the trouble") from None
    finally:
        if driver.poll() is None:
            driver.kill()
            driver.wait()
    counts: dict[str, int] = json.loads(output.splitlines()[-1])
    return counts


def left_over(site: SlurmSite, foreign: str) -> tuple[int, int]:
    """Return, once the cluster is down: jobs of ours that still live, and jobs of others that do not."""
    alive = {row.id: row.comment for row in site.jobs(ended=False)}
    leaked = sum(comment.startswith("heliostat:") for comment in alive.values())
    return leaked, int(foreign not in alive)
