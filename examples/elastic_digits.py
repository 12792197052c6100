"""Data-parallel PyTorch that grows and shrinks with the cluster: handwritten digits, with ElasticGroup.

Start it beside a running cluster, then add and remove workers while it trains:

    heliostat run examples/minimal.yaml -- python examples/elastic_digits.py --max 3 --seconds 2

Every member has the whole model. A step takes the same examples however many there are: each member
computes the gradient on its share, weighted by its part of the batch, and the sum over all is applied
everywhere. So the course of the training does not depend on the size of the world, nor on when it changes.

When the world changes, the process group is built anew, and whoever has taken the most steps gives model
and optimizer to those who have taken fewer. Needs PyTorch and scikit-learn, which has the digits.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import ray
import torch
import torch.distributed as dist
from sklearn.datasets import load_digits

from heliostat.train import Change, ElasticGroup, MemberLost

COLLECTIVE_S = 30.0
"""How long a member waits for the others in a collective; one that is killed is noticed at once."""
ANSWER_S = 2 * COLLECTIVE_S
"""How long the driver waits for a step beyond the time that it should take."""
TRIES = 20
"""Tries in a row that may bring no step, before the fault is not one of members that come and go."""
SAVE_EVERY = 50
"""Steps between two copies that the driver keeps, should all members be killed at once."""
TEST_ROWS = 360


@dataclass(frozen=True)
class Config:
    steps: int = 400
    batch: int = 96
    learning_rate: float = 3e-3
    seed: int = 0
    seconds: float = 0.0
    """How long a whole batch takes at least: stands for a larger model."""


@dataclass(frozen=True)
class State:
    """All that one who takes over needs; after how many steps it was so."""

    steps: int
    model: dict[str, Any]
    optimizer: dict[str, Any]


@dataclass(frozen=True)
class Greeting:
    """What a member says of itself when they meet."""

    actor_id: str
    address: tuple[str, int]
    """Of its own store, by which the others would find it."""
    steps: int
    losses: dict[int, float]
    """Of its last steps, by number: the driver may have missed one."""
    cuda: bool


@dataclass(frozen=True)
class Digits:
    rows: torch.Tensor
    labels: torch.Tensor
    test_rows: torch.Tensor
    test_labels: torch.Tensor


def digits(device: torch.device) -> Digits:
    """Return the 1,797 digits, split everywhere in the same way: 360 are for the test."""
    found = load_digits()
    order = torch.randperm(len(found.data), generator=torch.Generator().manual_seed(0))
    rows = (torch.tensor(found.data, dtype=torch.float32) / 16.0)[order].to(device)
    labels = torch.tensor(found.target)[order].to(device)
    return Digits(rows[:-TEST_ROWS], labels[:-TEST_ROWS], rows[-TEST_ROWS:], labels[-TEST_ROWS:])


def network(seed: int) -> torch.nn.Module:
    torch.manual_seed(seed)
    return torch.nn.Sequential(torch.nn.Linear(64, 128), torch.nn.ReLU(), torch.nn.Linear(128, 10))


def batch_of(step: int, *, rows: int, size: int, seed: int) -> torch.Tensor:
    """Return the rows of a step: each epoch goes through all rows, in an order that its number decides."""
    per_epoch = rows // size
    epoch, place = divmod(step, per_epoch)
    order = torch.randperm(rows, generator=torch.Generator().manual_seed(seed * 1_000_003 + epoch))
    return order[place * size : (place + 1) * size]


def source(greetings: Sequence[Greeting]) -> int:
    """Return the rank that the others take the state from: the first of those with the most steps."""
    return max(range(len(greetings)), key=lambda rank: greetings[rank].steps)


class Trainer:
    """One member: a model, its optimizer, and how many steps both have seen."""

    def __init__(self, config: Config) -> None:
        # Ray shows a worker the GPUs that are its own, and none where they are only declared.
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.config = config
        self.digits = digits(self.device)
        self.model = network(config.seed).to(self.device)
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=config.learning_rate)
        self.steps = 0
        self.losses: dict[int, float] = {}
        self.rank, self.size = 0, 1
        self.store: dist.TCPStore | None = None

    # --- Meeting ---------------------------------------------------------------------------

    def greet(self) -> Greeting:
        """Leave the old process group, and open a store for a new one at a fresh port."""
        self._part()
        limit = timedelta(seconds=COLLECTIVE_S)
        self.store = dist.TCPStore("0.0.0.0", 0, is_master=True, wait_for_workers=False, timeout=limit)
        address = (ray.util.get_node_ip_address(), self.store.port)
        actor_id = ray.get_runtime_context().get_actor_id()
        return Greeting(actor_id, address, self.steps, self.losses, self.device.type == "cuda")

    def join(self, greetings: Sequence[Greeting]) -> bool:
        """Make a process group with all who greeted, and come to the same state; False if it failed."""
        actor_id = ray.get_runtime_context().get_actor_id()
        self.rank = [one.actor_id for one in greetings].index(actor_id)
        self.size = len(greetings)
        try:
            self._connect(greetings)
            if len({one.steps for one in greetings}) > 1:
                self._agree(source(greetings))
        except RuntimeError as error:
            # Also of a store that is gone, and of a wait that took too long.
            print(f"rank {self.rank} of {self.size} found no process group: {error}", flush=True)
            self._part()
            return False
        return True

    def _connect(self, greetings: Sequence[Greeting]) -> None:
        if self.size == 1:
            return
        host, port = greetings[0].address
        limit = timedelta(seconds=COLLECTIVE_S)
        mine = self.store if self.rank == 0 else dist.TCPStore(host, port, is_master=False, timeout=limit)
        backend = "nccl" if all(one.cuda for one in greetings) else "gloo"
        # NCCL would end the whole process if another one is lost, and the state with it.
        os.environ["TORCH_NCCL_BLOCKING_WAIT"] = "1"
        dist.init_process_group(backend, store=mine, rank=self.rank, world_size=self.size, timeout=limit)

    def _agree(self, rank: int) -> None:
        # Plain values, since PyTorch's pickle knows no class of a script that was run as such.
        box = [vars(self.state()) if rank == self.rank else None]
        dist.broadcast_object_list(box, src=rank, device=self.device if self._nccl() else None)
        assert box[0] is not None
        self.take_over(State(**box[0]))

    def _part(self) -> None:
        if dist.is_initialized():
            dist.destroy_process_group()
        self.store = None

    def _nccl(self) -> bool:
        return dist.is_initialized() and dist.get_backend() == "nccl"

    # --- The state -------------------------------------------------------------------------

    def state(self) -> State:
        return State(self.steps, _on_cpu(self.model.state_dict()), _on_cpu(self.optimizer.state_dict()))

    def take_over(self, state: State) -> None:
        """Go on from a state, unless this is further already."""
        if state.steps > self.steps:
            self.model.load_state_dict(state.model)
            self.optimizer.load_state_dict(state.optimizer)
            self.steps = state.steps

    def leaving(self, deadline_s: float) -> State:
        """Hand over: the group gives it to a successor, which matters if nobody else is left."""
        return self.state()

    # --- A step ----------------------------------------------------------------------------

    def step(self, number: int) -> float | None:
        """Take a step with the others; return its loss, or None if one of them was lost on the way."""
        assert number == self.steps, f"asked for step {number} after {self.steps} steps"
        begun_s = time.monotonic()
        rows = self.batch(number)
        given = self.model(self.digits.rows[rows])
        wrong = torch.nn.functional.cross_entropy(given, self.digits.labels[rows], reduction="sum")
        # Divided by the size of the whole batch, so that the sum over all shares is its mean.
        loss = wrong / self.config.batch
        self.optimizer.zero_grad()
        loss.backward()
        time.sleep(max(0.0, self._least_s(len(rows)) - (time.monotonic() - begun_s)))
        return self._apply(loss.detach())

    def batch(self, number: int) -> torch.Tensor:
        """Return this member's share of a step's rows."""
        whole = batch_of(number, rows=len(self.digits.rows), size=self.config.batch, seed=self.config.seed)
        return whole[self.rank :: self.size].to(self.device)

    def _least_s(self, rows: int) -> float:
        return self.config.seconds * rows / self.config.batch

    def _apply(self, loss: torch.Tensor) -> float | None:
        gradients = [one.grad for one in self.model.parameters()]
        # One collective for all of it: the loss comes last.
        flat = torch.cat([*(one.flatten() for one in gradients), loss.reshape(1)])
        try:
            if self.size > 1:
                dist.all_reduce(flat)
        except RuntimeError:
            # To part closes the connections, and so wakes those who wait for this one.
            self._part()
            return None
        parts = flat[:-1].split([one.numel() for one in gradients])
        for gradient, part in zip(gradients, parts, strict=True):
            gradient.copy_(part.view_as(gradient))
        self.optimizer.step()
        self.losses = {self.steps: float(flat[-1])}
        self.steps += 1
        return self.losses[self.steps - 1]

    def accuracy(self) -> float:
        """Return the part of the test's digits that the model tells right."""
        with torch.no_grad():
            told = self.model(self.digits.test_rows).argmax(1)
        return float((told == self.digits.test_labels).float().mean())


def _on_cpu(value: Any) -> Any:
    """Copy what may be on a GPU, or be changed by the next step."""
    if isinstance(value, torch.Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, dict):
        return {name: _on_cpu(one) for name, one in value.items()}
    return [_on_cpu(one) for one in value] if isinstance(value, list) else value


@dataclass
class Run:
    """The driver's side: who trains together, how far they are, and what it has seen."""

    group: ElasticGroup
    config: Config
    on_step: Callable[[Run], None]
    """Called after each step."""
    done: int = 0
    tried: int = 0
    """Steps that were begun: more than `done` by those that were lost with a member."""
    losses: dict[int, float] = field(default_factory=dict)
    sizes: dict[int, int] = field(default_factory=dict)
    """How many members took each step."""
    saved: State | None = None
    together: int | None = None
    """The generation that has a process group."""

    def train(self) -> float:
        """Take all steps, whoever comes and goes; return the accuracy. Raises RuntimeError after `TRIES`."""
        failed = 0
        while self.done < self.config.steps:
            _tell(self, self.group.sync())
            before = self.done
            if self.together == self.group.world.generation or self._meet():
                self._step()
            failed = failed + 1 if self.done == before else 0
            if failed >= TRIES:
                raise RuntimeError(f"no step in {TRIES} tries, with {len(self.group)} members")
        return float(self.group.call("accuracy", timeout_s=ANSWER_S)[0])

    def _meet(self) -> bool:
        """Bring everybody into one process group and to one state."""
        try:
            greetings = self._greetings()
            if all(self.group.call("join", greetings, timeout_s=ANSWER_S)):
                self.together = self.group.world.generation
        except MemberLost as lost:
            # The next sync sees who it was, and the world changes.
            print(f"step {self.done}: {lost}", flush=True)
        return self.together == self.group.world.generation

    def _greetings(self) -> list[Greeting]:
        greetings = self.group.call("greet", timeout_s=ANSWER_S)
        furthest = greetings[source(greetings)]
        if self.saved is not None and furthest.steps < self.saved.steps:
            # All were lost at once, and none could hand over.
            self.group.call("take_over", self.saved, timeout_s=ANSWER_S)
            return self._greetings()
        self.done = furthest.steps
        self.losses |= furthest.losses
        return greetings

    def _step(self) -> None:
        self.tried += 1
        try:
            losses = self.group.call("step", self.done, timeout_s=ANSWER_S + self.config.seconds)
        except MemberLost as lost:
            print(f"step {self.done}: {lost}", flush=True)
            losses = [None]
        if None in losses:
            self.together = None
            return
        self.losses[self.done] = losses[0]
        self.sizes[self.done] = len(losses)
        self.done += 1
        if self.done % SAVE_EVERY == 0:
            self._save()
        self.on_step(self)

    def _save(self) -> None:
        try:
            self.saved = ray.get(self.group.members[0].actor.state.remote(), timeout=ANSWER_S)
        except (ray.exceptions.RayActorError, ray.exceptions.GetTimeoutError) as error:
            print(f"step {self.done}: no copy was had: {error}", flush=True)


def _tell(run: Run, change: Change) -> None:
    for left in change.left:
        print(f"step {run.done}: {left.member.id} left, {left.reason}: {left.detail}", flush=True)
    for member in change.joined:
        print(f"step {run.done}: {member.id} joined as rank {member.rank}", flush=True)


def _print_now_and_then(run: Run) -> None:
    step = run.done - 1
    if step % 20 == 0 or run.done == run.config.steps:
        print(f"step {step}: loss {run.losses[step]:.4f}, members {run.sizes[step]}", flush=True)


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=Config.steps)
    parser.add_argument("--seconds", type=float, default=0.0, help="how long a whole batch takes at least")
    parser.add_argument("--min", type=int, default=1, help="members that it waits for")
    parser.add_argument("--max", type=int, default=3, help="members that it asks for")
    parser.add_argument("--gpu", action="store_true", help="one GPU for each member")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def main() -> None:
    wanted = options()
    config = Config(steps=wanted.steps, seconds=wanted.seconds, seed=wanted.seed)
    bundle = {"CPU": 1, "GPU": 1} if wanted.gpu else {"CPU": 1}
    ray.init(address="auto", log_to_driver=False)
    with ElasticGroup(
        Trainer, bundle=bundle, min_size=wanted.min, max_size=wanted.max, args=(config,)
    ) as group:
        run = Run(group, config, on_step=_print_now_and_then)
        accuracy = run.train()
    fewest, most = min(run.sizes.values()), max(run.sizes.values())
    print(
        f"done: {run.done} steps on {fewest} to {most} members, {run.tried - run.done} begun in vain, "
        f"accuracy {accuracy:.3f}"
    )


if __name__ == "__main__":
    main()
