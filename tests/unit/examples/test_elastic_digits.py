"""The digits without Ray: shares add up to the whole, and no step is left out or taken twice."""

from __future__ import annotations

import pickle
from dataclasses import dataclass, field
from typing import Any

import pytest

from heliostat.train import Change, Member, MemberLost, World
from tests import pytorch

digits: Any = pytorch.imported("examples.elastic_digits")

CONFIG = digits.Config(steps=6)


def test_an_epoch_goes_through_other_rows_in_each_step() -> None:
    batches = [digits.batch_of(step, rows=100, size=30, seed=1).tolist() for step in range(6)]
    assert [len(one) for one in batches] == [30] * 6
    assert len({row for one in batches[:3] for row in one}) == 90
    assert batches[0] != batches[3]
    assert batches[4] == digits.batch_of(4, rows=100, size=30, seed=1).tolist()


@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_the_shares_gradients_add_up_to_the_whole_batchs(size: int) -> None:
    whole = _gradients(digits.Trainer(CONFIG))
    shares = []
    for rank in range(size):
        trainer = digits.Trainer(CONFIG)
        trainer.rank, trainer.size = rank, size
        shares.append(_gradients(trainer))
    for index, gradient in enumerate(whole):
        total = sum(share[index] for share in shares)
        assert float((total - gradient).abs().max()) < 1e-6


def _gradients(trainer: Any) -> list[Any]:
    trainer._apply = lambda loss: None
    trainer.step(0)
    return [one.grad for one in trainer.model.parameters()]


def test_who_takes_over_goes_on_as_the_other_would_have() -> None:
    first, second = digits.Trainer(CONFIG), digits.Trainer(digits.Config(seed=1))
    for number in range(3):
        first.step(number)
    second.config = CONFIG
    second.take_over(first.leaving(30.0))
    assert [first.step(3), first.step(4)] == [second.step(3), second.step(4)]
    second.take_over(digits.Trainer(CONFIG).state())
    assert second.steps == 5, "a state of the past was taken over"


def test_a_state_does_not_change_with_the_next_step() -> None:
    trainer = digits.Trainer(CONFIG)
    state = trainer.state()
    before = [one.clone() for one in state.model.values()]
    trainer.step(0)
    assert all(bool((one == two).all()) for one, two in zip(before, state.model.values(), strict=True))


def test_what_is_broadcast_has_no_class_of_the_script() -> None:
    trainer = digits.Trainer(CONFIG)
    trainer.step(0)
    assert b"elastic_digits" not in pickle.dumps(vars(trainer.state()))
    assert b"elastic_digits" in pickle.dumps(trainer.state())


def test_the_state_comes_from_who_is_furthest() -> None:
    greetings = [_greeting(steps) for steps in (4, 5, 0, 5)]
    assert digits.source(greetings) == 1


def _greeting(steps: int, losses: dict[int, float] | None = None) -> Any:
    return digits.Greeting("a", ("127.0.0.1", 1), steps, losses or {}, cuda=False)


# --- The driver's side, against a group that does as it is told ---------------------------------


@dataclass
class Told:
    """A group whose members count; `faults` says what goes wrong in which try of a step."""

    faults: dict[int, str] = field(default_factory=dict)
    steps: list[int] = field(default_factory=lambda: [0, 0])
    tried: int = 0
    generation: int = 1
    meetings: int = 0

    @property
    def world(self) -> World:
        members = (Member(rank, f"m-{rank}", "n", "127.0.0.1", 1, None) for rank in range(len(self.steps)))
        return World(self.generation, tuple(members))

    def __len__(self) -> int:
        return len(self.steps)

    def sync(self) -> Change:
        return Change(self.world)

    def call(self, method: str, *args: Any, timeout_s: float) -> list[Any]:
        return list(getattr(self, f"_{method}")(*args))

    def _greet(self) -> list[Any]:
        return [_greeting(steps, {steps - 1: steps - 1.0} if steps else {}) for steps in self.steps]

    def _join(self, greetings: list[Any]) -> list[bool]:
        self.meetings += 1
        self.steps = [max(self.steps)] * len(self.steps)
        return [True] * len(self.steps)

    def _take_over(self, state: Any) -> list[None]:
        self.steps = [state.steps] * len(self.steps)
        return [None] * len(self.steps)

    def _step(self, number: int) -> list[float | None]:
        assert set(self.steps) == {number}, "members are apart"
        fault = self.faults.get(self.tried)
        self.tried += 1
        if fault == "killed":
            self._lose()
        if fault == "killed after it":
            self.steps[0] += 1
            self._lose()
        if fault == "no answer of the others":
            return [None] * len(self.steps)
        if fault == "all killed":
            self.steps = [0, 0]
            self.generation += 1
            raise MemberLost("step: killed")
        self.steps = [number + 1] * len(self.steps)
        return [float(number)] * len(self.steps)

    def _lose(self) -> None:
        self.steps[-1] = 0
        self.generation += 1
        raise MemberLost("step: killed")

    def _accuracy(self) -> list[float]:
        return [0.5]


def _run(group: Told) -> Any:
    return digits.Run(group, CONFIG, on_step=lambda run: None)


@pytest.mark.parametrize(
    ("fault", "in_vain"),
    [("none", 0), ("killed", 1), ("killed after it", 0), ("no answer of the others", 1)],
)
def test_each_step_is_taken_once(fault: str, in_vain: int) -> None:
    group = Told(faults={2: fault})
    run = _run(group)
    assert run.train() == 0.5
    assert (run.done, run.tried - run.done) == (6, in_vain)
    assert run.losses == {number: float(number) for number in range(6)}
    assert group.meetings == (1 if fault == "none" else 2)


def test_after_the_loss_of_all_it_goes_on_from_the_drivers_copy() -> None:
    group = Told(faults={4: "all killed"})
    run = _run(group)

    def save(run: Any) -> None:
        if run.done == 3:
            run.saved = digits.State(3, {}, {})

    run.on_step = save
    run.train()
    assert (run.done, group.steps) == (6, [6, 6])
    # Steps 3 and 4: one that was done and is done again, one that was under way.
    assert run.tried - run.done == 2


def test_a_group_that_never_gets_together_ends_with_an_error() -> None:
    group = Told(faults=dict.fromkeys(range(1000), "killed"))
    with pytest.raises(RuntimeError, match=f"no step in {digits.TRIES} tries, with 2 members"):
        _run(group).train()
