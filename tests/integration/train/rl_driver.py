"""The driver of test_rl.py: learns in three roles, while members are killed and a node is drained.

    python -m tests.integration.train.rl_driver

Its last line says in JSON how it went.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from typing import Any

import ray

from examples import elastic_rl
from heliostat.train import ElasticGroup, Reason, Roles

CPUS = 0.25
KILL_AT, DRAIN_AT = 6, 12
ANSWER_S = 60.0


class Generator(elastic_rl.Generator):
    """A generator whose process can be found."""

    def pid(self) -> int:
        return os.getpid()


def roles(left: list[tuple[str, str]]) -> Roles:
    """Return the example's roles; `left` gets who leaves, and why."""

    def note(member: Any, reason: Reason) -> None:
        left.append((member.id, str(reason)))

    each: dict[str, Any] = {"bundle": {"CPU": CPUS}, "min_size": 1, "max_size": 4, "on_leave": note}
    return Roles(
        trainer=ElasticGroup(elastic_rl.Trainer, name="trainer", weight=1, **each),
        generator=ElasticGroup(Generator, name="generator", weight=2, **each),
        environment=ElasticGroup(elastic_rl.Environment, name="environment", weight=1, **each),
    )


def disturb(run: elastic_rl.Run, iteration: int) -> None:
    generator = run.roles["generator"].members[0]
    if iteration == KILL_AT:
        os.kill(ray.get(generator.actor.pid.remote(), timeout=ANSWER_S), signal.SIGKILL)
    if iteration == DRAIN_AT:
        words = ["remove", generator.node_id[:12], "--deadline", "60s"]
        subprocess.run([sys.executable, "-m", "heliostat.cli.main", *words], check=True, timeout=ANSWER_S)


def main() -> None:
    left: list[tuple[str, str]] = []
    ray.init(address="auto", logging_level="ERROR", log_to_driver=False)
    with roles(left) as found:
        run = elastic_rl.Run(found)
        for iteration in range(elastic_rl.ITERATIONS):
            disturb(run, iteration)
            print(iteration, run.iterate(), run.sizes[-1], flush=True)
    print(json.dumps({"scores": run.scores, "sizes": run.sizes, "left": left}), flush=True)


if __name__ == "__main__":
    main()
