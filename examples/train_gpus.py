"""Elastic training in one small file: one actor for each worker, as many as there are now.

Start it beside a cluster made from examples/gpus.yaml, then add and remove workers while
it runs. It fits a straight line to noisy points by gradient descent: each actor computes
the gradient on its share of the points, the driver averages and steps. With no worker at
all it waits for one, which is demand that the autoscaler answers.
"""

from __future__ import annotations

import argparse
import math
import time
from dataclasses import dataclass

import ray
from ray.exceptions import ActorUnschedulableError, GetTimeoutError, RayActorError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

FIRST_WORKER_S = 600.0
STEP_DEADLINE_S = 60.0
LEARNING_RATE = 0.2
POINTS = 2_000
LOST = (RayActorError, ActorUnschedulableError, GetTimeoutError)
"""What a worker that goes looks like from here, whatever the moment it goes."""

Line = tuple[float, float]
"""Slope and offset."""


@dataclass(frozen=True)
class Share:
    """One actor's result: the sums of the gradient and of the squared error over its points."""

    slope: float
    offset: float
    error: float
    points: int


def point(index: int) -> tuple[float, float]:
    """Return the same noisy point of the line 3x - 1 for the same index, on every worker."""
    x = 2.0 * index / POINTS - 1.0
    return x, 3.0 * x - 1.0 + 0.1 * math.sin(12.9898 * index)


def gradient(line: Line, rank: int, *, world: int) -> Share:
    """Sum the gradient over every `world`-th point, beginning with point `rank`."""
    slope = offset = error = 0.0
    chosen = range(rank, POINTS, world)
    for x, y in map(point, chosen):
        off = line[0] * x + line[1] - y
        slope += 2.0 * off * x
        offset += 2.0 * off
        error += off * off
    return Share(slope, offset, error, len(chosen))


@ray.remote(num_cpus=1, resources={"worker": 1})
class Trainer:
    """Lives on one worker and holds its GPU, if it has one."""

    def where(self) -> str:
        gpus = ray.get_gpu_ids()
        return f"GPU {', '.join(map(str, gpus))}" if gpus else "no GPU"

    def gradient(self, line: Line, rank: int, world: int, *, pause_s: float) -> Share:
        time.sleep(pause_s)
        return gradient(line, rank, world=world)


@ray.remote(num_cpus=0, resources={"worker": 1})
def knock() -> None:
    """Runs as soon as there is any worker; until then it is demand for one."""


class Team:
    """The actors there are, by node; `renew` makes them match the workers there are."""

    def __init__(self) -> None:
        self.actors: dict[str, ray.actor.ActorHandle] = {}

    def renew(self) -> None:
        workers = {
            node["NodeID"]: "GPU" in node["Resources"]
            for node in ray.nodes()
            if node["Alive"] and "worker" in node["Resources"]
        }
        for node_id in self.actors.keys() - workers.keys():
            self.lose(node_id, "its node is gone")
        for node_id in workers.keys() - self.actors.keys():
            self._hire(node_id, has_gpu=workers[node_id])

    def lose(self, node_id: str, why: str) -> None:
        ray.kill(self.actors.pop(node_id))
        print(f"  - worker {node_id[:8]} left: {why}", flush=True)

    def _hire(self, node_id: str, *, has_gpu: bool) -> None:
        place = NodeAffinitySchedulingStrategy(node_id, soft=False)
        actor = Trainer.options(num_gpus=int(has_gpu), scheduling_strategy=place).remote()
        try:
            where = ray.get(actor.where.remote(), timeout=STEP_DEADLINE_S)
        except LOST:
            ray.kill(actor)
            return
        self.actors[node_id] = actor
        print(f"  + worker {node_id[:8]} joined, {where}", flush=True)


def step(team: Team, line: Line, *, pause_s: float) -> tuple[Line, float] | None:
    """Return the next line and the mean error, or None if a worker was lost on the way."""
    world = len(team.actors)
    asked = {
        node_id: actor.gradient.remote(line, rank, world, pause_s=pause_s)
        for rank, (node_id, actor) in enumerate(sorted(team.actors.items()))
    }
    shares: list[Share] = []
    for node_id, result in asked.items():
        try:
            shares.append(ray.get(result, timeout=pause_s + STEP_DEADLINE_S))
        except LOST as error:
            team.lose(node_id, type(error).__name__)
    if len(shares) < world:
        return None
    points = sum(share.points for share in shares)
    slope = line[0] - LEARNING_RATE * sum(share.slope for share in shares) / points
    offset = line[1] - LEARNING_RATE * sum(share.offset for share in shares) / points
    return (slope, offset), sum(share.error for share in shares) / points


def train(steps: int, *, pause_s: float) -> None:
    team, line, done, sizes = Team(), (0.0, 0.0), 0, set()
    while done < steps:
        team.renew()
        if not team.actors:
            print("no worker yet: waiting for one", flush=True)
            ray.get(knock.remote(), timeout=FIRST_WORKER_S)
            continue
        outcome = step(team, line, pause_s=pause_s)
        if outcome is None:
            # The same step again with those who are left: nothing is lost but its time.
            continue
        line, error = outcome
        done += 1
        sizes.add(len(team.actors))
        print(f"step {done}: {_workers(len(team.actors))}, mean error {error:.4f}", flush=True)
    fewest, most = min(sizes), _workers(max(sizes))
    print(f"done: {done} steps on {fewest} to {most}, y = {line[0]:.2f}x {line[1]:+.2f}")


def _workers(count: int) -> str:
    return f"{count} worker" + ("" if count == 1 else "s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--step-seconds", type=float, default=1.0, help="how long a step takes at least")
    arguments = parser.parse_args()
    if arguments.steps < 1 or arguments.step_seconds < 0:
        parser.error("--steps is 1 or more, --step-seconds is 0 or more")
    ray.init(address="auto")
    train(arguments.steps, pause_s=arguments.step_seconds)


if __name__ == "__main__":
    main()
