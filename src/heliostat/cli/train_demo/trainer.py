"""One member of the demo's training: gradients of a small PyTorch network on a part of a batch of digits.

A batch is cut into the same `PARTS` whatever the number of members, and its gradients are added up in the
same order. So who computes them changes how long a step takes, and nothing else.

PyTorch and scikit-learn are imported in the actor alone: the driver needs neither.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import ray

PARTS = 6
"""Parts of a batch: one, two, three and six members each get the same number of them."""
SAMPLES = 16
"""Images in one part."""
BATCH = PARTS * SAMPLES
HIDDEN = 64
TEST_EVERY = 4
"""Each fourth image is kept for the test. Those of one writer stand together: both sets have all writers."""
SEED = 0

Vector = np.ndarray[Any, np.dtype[np.float32]]


@dataclass(frozen=True)
class Config:
    """How members work. `cuda`: whether the GPUs are there, and not only declared."""

    cuda: bool = False


@dataclass(frozen=True)
class Part:
    """One part of one step: all that a member needs to know. The parameters are 19 kB, so they come along.

    `takes_s`: seconds that it takes at least, which is what a network that keeps a GPU busy would need.
    """

    step: int
    index: int
    parameters: Vector
    takes_s: float = 0.0


@dataclass(frozen=True)
class Gradient:
    """The sums over one part's samples of the loss and of its gradient, and the node where they were made."""

    vector: Vector
    loss: float
    node_id: str


class Trainer:
    """The actor. It keeps the images and a network, but nothing of the training between two calls."""

    def __init__(self, config: Config) -> None:
        import torch
        from sklearn.datasets import load_digits

        # Several members may share this machine's cores.
        torch.set_num_threads(1)
        torch.manual_seed(SEED)
        self._device = torch.device("cuda" if config.cuda else "cpu")
        layers = [torch.nn.Linear(64, HIDDEN), torch.nn.ReLU(), torch.nn.Linear(HIDDEN, 10)]
        self._network = torch.nn.Sequential(*layers).to(self._device)
        self._first = _numbers(torch.nn.utils.parameters_to_vector(self._network.parameters()))
        images, digits = load_digits(return_X_y=True)
        pixels = torch.tensor(images / 16.0, dtype=torch.float32, device=self._device)
        tested = torch.arange(len(digits)) % TEST_EVERY == 0
        answers = torch.tensor(digits, device=self._device)
        self._train = pixels[~tested], answers[~tested]
        self._test = pixels[tested], answers[tested]
        self._node_id = ray.get_runtime_context().get_node_id()

    def first(self) -> Vector:
        """Return the parameters that training begins with, the same on every member."""
        return self._first

    def gradient(self, part: Part) -> Gradient:
        """Return one part's sums of loss and gradient, after `takes_s` at the earliest."""
        import torch

        ready_s = time.monotonic() + part.takes_s
        images, digits = self._samples(part.step, part.index)
        self._load(part.parameters)
        self._network.zero_grad()
        loss = torch.nn.functional.cross_entropy(self._network(images), digits, reduction="sum")
        loss.backward()
        vector = torch.nn.utils.parameters_to_vector([one.grad for one in self._network.parameters()])
        time.sleep(max(0.0, ready_s - time.monotonic()))
        return Gradient(_numbers(vector), float(loss.detach()), self._node_id)

    def accuracy(self, parameters: Vector) -> float:
        """Return the share of the images kept for the test that a network with `parameters` reads right."""
        import torch

        self._load(parameters)
        images, digits = self._test
        with torch.no_grad():
            right = self._network(images).argmax(dim=1) == digits
        return float(right.float().mean())

    def _load(self, parameters: Vector) -> None:
        import torch

        # A copy: what comes through Ray's object store can't be written to.
        vector = torch.tensor(parameters, device=self._device)
        torch.nn.utils.vector_to_parameters(vector, self._network.parameters())

    def _samples(self, step: int, index: int) -> tuple[Any, Any]:
        """Return the images and digits of one part. Each epoch has its own order, the same everywhere."""
        import torch

        images, digits = self._train
        epoch, batch = divmod(step, len(digits) // BATCH)
        order = torch.randperm(len(digits), generator=torch.Generator().manual_seed(epoch))
        begin = batch * BATCH + index * SAMPLES
        chosen = order[begin : begin + SAMPLES].to(self._device)
        return images[chosen], digits[chosen]


def _numbers(vector: Any) -> Vector:
    found: Vector = vector.detach().cpu().numpy().copy()
    return found
