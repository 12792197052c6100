"""The demo's training by itself, with members that are plain objects: it learns, whoever does the work."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import ray

from heliostat.cli.train_demo.driver import STEPS_AGAIN_MAX, Training
from heliostat.cli.train_demo.trainer import BATCH, PARTS, SAMPLES, Config, Gradient, Part, Trainer
from heliostat.train import Change, MemberLost, World
from tests.pytorch import imported

imported("torch")

STEPS = 60


class Nodes:
    def since_joined_s(self, node_id: str) -> float:
        return 1.5


@dataclass
class Group:
    """A group whose members are called in turn; `loses` says of a map whether a member is lost in it."""

    members: Sequence[Trainer]
    loses: Callable[[int], bool] = lambda _: False
    maps: int = 0
    calls: list[tuple[str, int]] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.members)

    def sync(self) -> Change:
        return Change(World())

    def map(self, method: str, items: Sequence[Part], **_: Any) -> list[Gradient]:
        self.maps += 1
        if self.loses(self.maps):
            raise MemberLost("killed")
        return [getattr(self.members[n % len(self.members)], method)(item) for n, item in enumerate(items)]

    def call(self, method: str, *args: Any) -> list[Any]:
        return [getattr(one, method)(*args) for one in self.members]


@pytest.fixture(scope="module")
def trainers() -> Iterator[list[Trainer]]:
    with pytest.MonkeyPatch.context() as patch:
        ids = iter("abc")
        context = SimpleNamespace(get_node_id=lambda: next(ids) * 56)
        patch.setattr(ray, "get_runtime_context", lambda: context)
        yield [Trainer(Config()) for _ in range(3)]


def trained(group: Group, told: list[dict[str, Any]], steps: int = STEPS) -> tuple[Training, float]:
    def tell(kind: str, **facts: object) -> None:
        told.append({"kind": kind, **facts})

    training = Training(group, Nodes(), tell=tell)  # type: ignore[arg-type]
    return training, training.run(lambda done: done >= steps)


def test_it_learns_and_the_result_is_the_same_whoever_does_the_work(trainers: list[Trainer]) -> None:
    told: list[dict[str, Any]] = []
    alone, accuracy = trained(Group(trainers[:1]), told)
    three, same = trained(Group(trainers), [])
    assert accuracy == same > 0.93
    assert np.array_equal(alone.weights.parameters, three.weights.parameters)
    losses = [one["loss"] for one in told if one["kind"] == "step"]
    assert losses[0] == pytest.approx(np.log(10), rel=0.1), "ten digits, and nothing known yet"
    assert losses[-1] < 0.3


def test_a_step_in_which_a_member_is_lost_is_made_again_and_counts_once(trainers: list[Trainer]) -> None:
    told: list[dict[str, Any]] = []
    undisturbed, _ = trained(Group(trainers), [], steps=8)
    disturbed, _ = trained(Group(trainers, loses=lambda number: number in (3, 4, 7)), told, steps=8)
    assert (disturbed.lost, undisturbed.lost) == (3, 0)
    assert [one["number"] for one in told if one["kind"] == "step"] == list(range(1, 9))
    assert np.array_equal(disturbed.weights.parameters, undisturbed.weights.parameters)


def test_it_does_not_lose_steps_for_ever(trainers: list[Trainer]) -> None:
    group = Group(trainers, loses=lambda _: True)
    with pytest.raises(MemberLost):
        trained(group, [])
    assert group.maps == STEPS_AGAIN_MAX + 1


def test_the_first_step_on_a_node_is_told_once(trainers: list[Trainer]) -> None:
    told: list[dict[str, Any]] = []
    trained(Group(trainers), told, steps=4)
    first = [one for one in told if one["kind"] == "first step"]
    assert sorted(one["node_id"][0] for one in first) == ["a", "b", "c"]
    assert {one["since_joined_s"] for one in first} == {1.5}


def test_each_epoch_uses_every_image_once(trainers: list[Trainer]) -> None:
    images, digits = trainers[0]._train
    steps = len(digits) // BATCH
    seen = [trainers[0]._samples(step, index)[0] for step in range(steps) for index in range(PARTS)]
    assert {len(one) for one in seen} == {SAMPLES}
    rows = np.concatenate([one.numpy() for one in seen])
    everyone = {row.tobytes() for row in images.numpy()}
    # Two of the images are the same, so it is counted by what is different.
    assert {row.tobytes() for row in rows} <= everyone
    assert len(rows) == steps * BATCH
