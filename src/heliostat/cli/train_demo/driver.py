"""The demo's training: a driver of its own, like any user's script that trains with `heliostat.train`.

`python -m heliostat.cli.train_demo.driver OPTIONS`, where OPTIONS is JSON (`Options`). Each line that it
prints is one JSON object, which the demo turns into its story. It trains for `steps` steps and, where it is
to wait, until a line on its standard input says that it is enough. Where that ends, so does it.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import ray

from heliostat.cli.train_demo.trainer import BATCH, PARTS, Config, Gradient, Part, Trainer, Vector
from heliostat.train import Change, ElasticGroup, Failure, MemberLost
from heliostat.train.cluster import Watch
from heliostat.train.ray_cluster import RayCluster

RATE = 0.1
MOMENTUM = 0.9
START_TIMEOUT_S = 180.0
"""How long no worker at all is borne: the first one may have to be started."""
STEP_TIMEOUT_S = 60.0
LOOK_S = 0.1
ORDER_BYTES = 64
STEPS_AGAIN_MAX = 100
"""Steps that may be lost before something else must be wrong."""
BUNDLE = {"GPU": 1.0, "CPU": 1.0}

Tell = Callable[..., None]


@dataclass(frozen=True)
class Options:
    """What is asked of the driver. `waits`: it trains on after `steps` until it is told that it is enough."""

    steps: int
    part_s: float
    max_size: int
    cuda: bool = False
    waits: bool = False


def tell(kind: str, **facts: object) -> None:
    """Print one fact. Times are of the system's monotonic clock, in seconds, which all processes share."""
    print(json.dumps({"kind": kind, "at_s": time.monotonic(), **facts}), flush=True)


def say_nothing(kind: str, **facts: object) -> None:
    """Print nothing, of a training that is not to be shown."""


class Orders:
    """What comes by the standard input: that it is enough, or by its end that nobody listens any more."""

    def __init__(self) -> None:
        self.enough = threading.Event()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        # Not by `sys.stdin`: a thread that waits in it makes the interpreter abort at its end.
        while os.read(0, ORDER_BYTES):
            self.enough.set()
        # Ray's handler leaves the cluster, and with that ends what belongs to this driver.
        os.kill(os.getpid(), signal.SIGTERM)


class Nodes:
    """The nodes with a GPU, declared or real, and when each was first seen; looked for every `LOOK_S`."""

    def __init__(self) -> None:
        self._seen_s: dict[str, float] = {}
        self._alive: set[str] = set()
        self._draining: set[str] = set()
        self._cluster = RayCluster()
        self._look()
        threading.Thread(target=self._go_on_looking, daemon=True).start()

    def _go_on_looking(self) -> None:
        while ray.is_initialized():
            self._look()
            time.sleep(LOOK_S)

    def _look(self) -> None:
        self._alive = {one["NodeID"] for one in ray.nodes() if one["Alive"] and "GPU" in one["Resources"]}
        for node_id in self._alive:
            self._seen_s.setdefault(node_id, time.monotonic())

    def since_joined_s(self, node_id: str) -> float:
        """Return the seconds since a node was first seen; 0 for one that was not seen yet."""
        now_s = time.monotonic()
        return now_s - self._seen_s.get(node_id, now_s)

    def usable(self) -> int:
        """Return how many members there can be now, at least one: no more is asked for than there is.

        A node that drains is not usable any more, and its member is to have no successor. It is remembered:
        one that is gone drains no longer, and may be seen alive for a moment.
        """
        self._draining |= set(self._cluster.look(Watch()).draining)
        return max(1, len(self._alive - self._draining))


@dataclass
class Weights:
    """The parameters, and the momentum of stochastic gradient descent: the whole state of the training."""

    parameters: Vector
    momentum: Vector = field(init=False)

    def __post_init__(self) -> None:
        self.momentum = np.zeros_like(self.parameters)

    def apply(self, gradients: Sequence[Gradient]) -> float:
        """Do one step with the gradients of a whole batch; return its mean loss."""
        self.momentum *= MOMENTUM
        for one in gradients:
            self.momentum += one.vector / BATCH
        # Not in place: members may still hold the ones before.
        self.parameters = self.parameters - np.float32(RATE) * self.momentum
        return sum(one.loss for one in gradients) / BATCH


class Training:
    """One training with one group: the loop that a user would write, and what it tells of each step."""

    def __init__(
        self, group: ElasticGroup, nodes: Nodes, *, part_s: float = 0.0, tell: Tell = say_nothing
    ) -> None:
        self.group = group
        self.nodes = nodes
        self._part_s = part_s
        self._tell = tell
        self.weights = Weights(group.call("first")[0])
        self.done = 0
        self.lost = 0
        self._used: set[str] = set()

    def run(self, enough: Callable[[int], bool]) -> float:
        """Train until it is enough; return the share of digits that are read right."""
        while not enough(self.done):
            began_s = time.monotonic()
            change = self.group.sync()
            synced_s = time.monotonic() - began_s
            self._tell_changes(change)
            gradients = self._gradients()
            if gradients is None:
                continue
            loss = self.weights.apply(gradients)
            self.done += 1
            took_s = time.monotonic() - began_s
            self._tell(
                "step",
                number=self.done,
                size=len(self.group),
                samples_per_s=BATCH / took_s,
                loss=loss,
                sync_s=synced_s,
                changed=bool(change),
            )
            self._tell_first_steps(gradients)
        return float(self.group.call("accuracy", self.weights.parameters)[0])

    def _tell_changes(self, change: Change) -> None:
        for one in change.left:
            gone = one.member
            self._tell(
                "leave", member=gone.id, node_id=gone.node_id, reason=str(one.reason), detail=one.detail
            )
        for member in change.joined:
            self._tell("join", member=member.id, node_id=member.node_id)

    def _gradients(self) -> list[Gradient] | None:
        """Return the gradients of a whole batch; None if a member was lost on the way: it is done again."""
        weights = self.weights.parameters
        parts = [Part(self.done, index, weights, self._part_s) for index in range(PARTS)]
        try:
            found: list[Gradient] = self.group.map(
                "gradient", parts, on_failure=Failure.RAISE, timeout_s=STEP_TIMEOUT_S
            )
        except MemberLost:
            self.lost += 1
            if self.lost > STEPS_AGAIN_MAX:
                raise
            return None
        return found

    def _tell_first_steps(self, gradients: Sequence[Gradient]) -> None:
        for node_id in {one.node_id for one in gradients} - self._used:
            self._used.add(node_id)
            self._tell("first step", node_id=node_id, since_joined_s=self.nodes.since_joined_s(node_id))


def train(options: Options, nodes: Nodes, orders: Orders) -> None:
    """Train with whatever nodes there are; then, for comparison, the same steps with one member."""

    def enough(done: int) -> bool:
        return done >= options.steps and (orders.enough.is_set() or not options.waits)

    group = ElasticGroup(
        Trainer,
        bundle=BUNDLE,
        min_size=1,
        max_size=options.max_size,
        args=(Config(options.cuda),),
        name="demo",
        target=lambda _: nodes.usable(),
        timeout_s=START_TIMEOUT_S,
    )
    with group:
        training = Training(group, nodes, part_s=options.part_s, tell=tell)
        accuracy = training.run(enough)
        tell("trained", lost=training.lost, accuracy=accuracy)
        group.target = 1
        fixed = Training(group, nodes)
        tell("fixed", accuracy=fixed.run(lambda done: done >= training.done))


def main() -> int:
    options = Options(**json.loads(sys.argv[1]))
    orders = Orders()
    ray.init(address="auto", log_to_driver=False, logging_level="ERROR")
    nodes = Nodes()
    train(options, nodes, orders)
    ray.shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main())
