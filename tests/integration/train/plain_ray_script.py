"""Data-parallel training in plain Ray, as somebody writes it who has a cluster with some GPUs and no library.

It fits a parabola to noisy points: the driver holds the coefficients, each worker holds one GPU and returns
the gradient of its share of the points. At every step the driver asks Ray which nodes there are, and a node
with a GPU that it has not counted yet gets a placement group and a worker in it. Nothing here knows who
starts nodes, or why.
"""

import argparse
import math
import time

import ray
from ray.util.placement_group import placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

POINTS = 1200
RATE = 0.3
READY_TIMEOUT_S = 60


@ray.remote(num_gpus=1, num_cpus=1)
class Worker:
    def where(self):
        context = ray.get_runtime_context()
        return context.get_node_id(), context.get_accelerator_ids()["GPU"]

    def gradient(self, coefficients, share, shares, seconds):
        time.sleep(seconds)
        total, error, count = [0.0, 0.0, 0.0], 0.0, 0
        for index in range(share, POINTS, shares):
            x = 2.0 * index / POINTS - 1.0
            y = 2.0 * x * x - x + 0.5 + 0.05 * math.cos(91.7 * index)
            off = coefficients[0] * x * x + coefficients[1] * x + coefficients[2] - y
            for place, slope in enumerate((x * x, x, 1.0)):
                total[place] += off * slope
            error += off * off
            count += 1
        return total, error, count


def gpu_nodes():
    return [node for node in ray.nodes() if node["Alive"] and node["Resources"].get("GPU", 0) >= 1]


def start_worker():
    group = placement_group([{"GPU": 1, "CPU": 1}], strategy="STRICT_PACK")
    ray.get(group.ready(), timeout=READY_TIMEOUT_S)
    strategy = PlacementGroupSchedulingStrategy(placement_group=group, placement_group_bundle_index=0)
    worker = Worker.options(scheduling_strategy=strategy).remote()
    node_id, gpus = ray.get(worker.where.remote(), timeout=READY_TIMEOUT_S)
    print(f"new worker on node {node_id[:8]}, GPU {','.join(gpus)}", flush=True)
    return group, worker


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=0.1, help="of pretended work in each step")
    arguments = parser.parse_args()

    ray.init(address="auto")
    coefficients, team, known = [0.0, 0.0, 0.0], [], set()
    for step in range(1, arguments.steps + 1):
        for node in gpu_nodes():
            if node["NodeID"] not in known:
                known.add(node["NodeID"])
                team.append(start_worker())
        if not team:
            print(f"step {step}: no GPU yet", flush=True)
            time.sleep(1)
            continue
        results = ray.get(
            [
                worker.gradient.remote(coefficients, share, len(team), arguments.seconds)
                for share, (_, worker) in enumerate(team)
            ]
        )
        points = sum(count for _, _, count in results)
        for place in range(3):
            coefficients[place] -= RATE * sum(total[place] for total, _, _ in results) / points
        error = sum(error for _, error, _ in results) / points
        print(f"step {step}: {len(team)} workers, error {error:.4f}", flush=True)
    for group, _ in team:
        remove_placement_group(group)
    print("coefficients", *(f"{one:.2f}" for one in coefficients), flush=True)


if __name__ == "__main__":
    main()
