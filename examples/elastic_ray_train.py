"""The same digits through Ray Train: its own elastic ScalingConfig, and drains that it hears of in time.

    heliostat run examples/minimal.yaml -- python examples/elastic_ray_train.py --storage /shared/runs

Ray Train asks for the most workers, begins with those there are, and restarts all of them from the last
checkpoint when their number changes. A node that goes is announced: Heliostat drains it with a deadline
(a time limit, `heliostat remove --deadline`), Ray Train's watcher sees that, and the workers write a
checkpoint while all of them are still there. Ray 2.56 has no watcher: what was done since the last regular
checkpoint is then done again. Needs PyTorch, scikit-learn, pandas and pyarrow.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import ray
import ray.train
import torch
from ray.train import Checkpoint, CheckpointConfig, FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer, get_device, prepare_model
from sklearn.datasets import load_digits

FILE = "state.pt"
LOOK_EVERY = 5
"""Steps between two looks for a drain: each is a meeting of all workers."""
WATCH_S = 1.0
"""How often Ray Train's watcher looks; its own default of 5 s costs more of a short notice."""
TEST_ROWS = 360


@dataclass(frozen=True)
class Config:
    steps: int = 400
    batch: int = 96
    learning_rate: float = 3e-3
    seed: int = 0
    seconds: float = 0.0
    """How long a whole batch takes at least: stands for a larger model."""
    save_every: int = 100


@dataclass
class Progress:
    """What is saved and found again: how far it is, and how it came there."""

    steps: int = 0
    losses: list[float] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    announced: list[int] = field(default_factory=list)
    """After how many steps a checkpoint was written because a node drains."""
    starts: list[int] = field(default_factory=list)
    """After how many steps the workers were started, with a checkpoint of so many."""


def network() -> torch.nn.Module:
    return torch.nn.Sequential(torch.nn.Linear(64, 128), torch.nn.ReLU(), torch.nn.Linear(128, 10))


class Learner:
    """One worker's model, optimizer and progress."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.device = get_device()
        torch.manual_seed(config.seed)
        self.plain = network().to(self.device)
        self.optimizer = torch.optim.Adam(self.plain.parameters(), lr=config.learning_rate)
        self.progress = Progress()
        self._load(ray.train.get_checkpoint())
        self.progress.starts.append(self.progress.steps)
        self.model = prepare_model(self.plain)

    def _load(self, checkpoint: Checkpoint | None) -> None:
        if checkpoint is None:
            return
        with checkpoint.as_directory() as folder:
            saved = torch.load(Path(folder) / FILE, map_location=self.device, weights_only=True)
        self.plain.load_state_dict(saved["model"])
        self.optimizer.load_state_dict(saved["optimizer"])
        self.progress = Progress(**saved["progress"])

    def save(self) -> None:
        """Report a checkpoint. All workers meet in this; the first one writes."""
        progress = self.progress
        metrics = {"step": progress.steps, "loss": progress.losses[-1], "workers": progress.sizes[-1]}
        with tempfile.TemporaryDirectory() as folder:
            checkpoint = None
            if ray.train.get_context().get_world_rank() == 0:
                parts = {"model": self.plain.state_dict(), "optimizer": self.optimizer.state_dict()}
                torch.save({**parts, "progress": vars(progress)}, Path(folder) / FILE)
                checkpoint = Checkpoint.from_directory(folder)
            ray.train.report(metrics, checkpoint=checkpoint)

    def step(self, rows: torch.Tensor, labels: torch.Tensor) -> None:
        """Take a step on this worker's share of the batch."""
        context = ray.train.get_context()
        rank, size = context.get_world_rank(), context.get_world_size()
        share = batch_of(self.progress.steps, rows=len(rows), config=self.config)[rank::size]
        given = self.model(rows[share].to(self.device))
        wrong = torch.nn.functional.cross_entropy(given, labels[share].to(self.device), reduction="sum")
        # The workers' gradients are averaged; times their number, each counts by its part of the batch.
        loss = wrong * size / self.config.batch
        self.optimizer.zero_grad()
        loss.backward()
        time.sleep(self.config.seconds * len(share) / self.config.batch)
        self.optimizer.step()
        mean = loss.detach().reshape(1)
        if size > 1:
            torch.distributed.all_reduce(mean)
        self.progress.losses.append(float(mean) / size)
        self.progress.sizes.append(size)
        self.progress.steps += 1


def batch_of(step: int, *, rows: int, config: Config) -> torch.Tensor:
    """Return the rows of a step: each epoch goes through all rows, in an order that its number decides."""
    epoch, place = divmod(step, rows // config.batch)
    chance = torch.Generator().manual_seed(config.seed * 1_000_003 + epoch)
    return torch.randperm(rows, generator=chance)[place * config.batch : (place + 1) * config.batch]


def digits() -> tuple[torch.Tensor, torch.Tensor]:
    """Return the 1,797 digits, shuffled everywhere in the same way; the last 360 are for the test."""
    found = load_digits()
    order = torch.randperm(len(found.data), generator=torch.Generator().manual_seed(0))
    return (torch.tensor(found.data, dtype=torch.float32) / 16.0)[order], torch.tensor(found.target)[order]


class Drains:
    """Which nodes drain, as Ray Train tells all workers alike."""

    def __init__(self) -> None:
        self._known: set[str] = set()
        # Ray 2.56 has no such function.
        self._look = getattr(ray.train, "get_preemption_info", lambda: None)

    def announced(self) -> bool:
        """Return whether a node is announced that was not before. All workers meet in this."""
        info = self._look()
        found = set() if info is None else set(info.preempted_node_ids) - self._known
        self._known |= found
        return bool(found)


def train(given: dict[str, Any]) -> None:
    """What each worker runs, from the beginning or from the last checkpoint."""
    config = Config(**given)
    rows, labels = digits()
    learner, drains = Learner(config), Drains()
    progress = learner.progress
    while progress.steps < config.steps:
        learner.step(rows[:-TEST_ROWS], labels[:-TEST_ROWS])
        announced = progress.steps % LOOK_EVERY == 0 and drains.announced()
        if announced:
            progress.announced.append(progress.steps)
        if announced or progress.steps % config.save_every == 0 or progress.steps == config.steps:
            learner.save()


def trainer(config: Config, *, storage: str, most: int = 3, gpu: bool = False) -> TorchTrainer:
    """Return Ray's trainer, for 1 to `most` workers; `storage` is a folder that all nodes see."""
    watch = {"RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "1", "RAY_TRAIN_PREEMPTION_POLL_INTERVAL_S": str(WATCH_S)}
    # Ray Train hands these on from here to its controller. It is version 2 of it that is elastic.
    os.environ.update({"RAY_TRAIN_V2_ENABLED": "1", **watch})
    return TorchTrainer(
        train,
        train_loop_config=vars(config),
        scaling_config=ScalingConfig(
            num_workers=(1, most), use_gpu=gpu, elastic_resize_monitor_interval_s=5.0
        ),
        run_config=RunConfig(
            storage_path=storage,
            failure_config=FailureConfig(max_failures=10),
            checkpoint_config=CheckpointConfig(num_to_keep=2),
        ),
    )


def outcome(checkpoint: Checkpoint) -> tuple[Progress, float]:
    """Return how a finished run went, and its accuracy on the test's digits."""
    with checkpoint.as_directory() as folder:
        saved = torch.load(Path(folder) / FILE, map_location="cpu", weights_only=True)
    rows, labels = digits()
    model = network()
    model.load_state_dict(saved["model"])
    with torch.no_grad():
        right = model(rows[-TEST_ROWS:]).argmax(1) == labels[-TEST_ROWS:]
    return Progress(**saved["progress"]), float(right.float().mean())


def main() -> None:
    parser = argparse.ArgumentParser(description="Digits by Ray Train, on as many workers as there are.")
    parser.add_argument("--steps", type=int, default=Config.steps)
    parser.add_argument("--seconds", type=float, default=0.1, help="how long a whole batch takes at least")
    parser.add_argument("--max", type=int, default=3, help="workers that it asks for")
    parser.add_argument("--gpu", action="store_true", help="one GPU for each worker")
    parser.add_argument("--storage", default="/tmp/heliostat-ray-train", help="a folder that all nodes see")
    wanted = parser.parse_args()
    config = Config(steps=wanted.steps, seconds=wanted.seconds)
    ray.init(address="auto")
    result = trainer(config, storage=wanted.storage, most=wanted.max, gpu=wanted.gpu).fit()
    progress, accuracy = outcome(result.checkpoint)
    for step, (before, after) in enumerate(pairwise(progress.sizes), start=1):
        if before != after:
            print(f"step {step}: from {before} to {after} workers")
    print(f"started after steps {progress.starts}; drains announced after steps {progress.announced}")
    print(f"done: {progress.steps} steps, accuracy {accuracy:.3f}")


if __name__ == "__main__":
    main()
