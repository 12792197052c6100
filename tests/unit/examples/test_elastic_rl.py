"""Poles, games and lessons without Ray, and what the policy learns from them."""

from __future__ import annotations

from typing import Any

import pytest

from tests import pytorch

rl: Any = pytorch.imported("examples.elastic_rl")
torch: Any = rl.torch


def test_a_pole_that_nobody_holds_falls_and_one_that_is_pushed_moves_the_other_way() -> None:
    poles = torch.tensor([[0.0, 0.0, 0.05, 0.0], [0.0, 0.0, -0.05, 0.0]])
    ticks = 0
    while rl.standing(poles).all():
        poles = rl.moved(poles, torch.tensor([ticks % 2, ticks % 2]))
        ticks += 1
    assert 10 < ticks < 60
    assert poles[0, 2] > rl.FALLEN_RAD or poles[1, 2] < -rl.FALLEN_RAD
    pushed = rl.moved(torch.zeros(1, 4), torch.ones(1))
    assert pushed[0, 1] > 0 > pushed[0, 3]


def test_rewards_are_discounted_and_end_with_the_fall() -> None:
    stood = torch.tensor([[True, True], [True, False]])
    seen, done = torch.zeros(2, 2, 4), torch.zeros(2, 2, dtype=torch.long)
    game = rl.played(seen, done, stood)
    assert game.rewards.tolist() == pytest.approx([1 + rl.DISCOUNT, 1.0, 1.0])
    assert game.scores.tolist() == [2.0, 1.0]
    assert len(game.seen) == len(game.done) == 3


def test_advantages_of_all_games_together_have_mean_zero() -> None:
    games = [
        rl.Played(torch.zeros(n, 4), torch.zeros(n, dtype=torch.long), torch.arange(float(n)), torch.ones(1))
        for n in (3, 5)
    ]
    advantages = torch.cat([one.advantages for one in rl.lessons(None, games)])
    assert float(advantages.sum()) == pytest.approx(0.0, abs=1e-6)
    assert float(advantages.std() * len(advantages)) == pytest.approx(1.0, abs=1e-4)


def test_the_gradient_makes_what_went_well_likelier() -> None:
    torch.manual_seed(0)
    policy = torch.nn.utils.parameters_to_vector(rl.network().parameters()).detach()
    seen, done = torch.rand(8, 4), torch.ones(8, dtype=torch.long)
    trainer = rl.Trainer()
    gradient = trainer.learn(rl.Lesson(policy, seen, done, torch.ones(8)))
    before = trainer.network(seen).softmax(1)[:, 1].mean()
    torch.nn.utils.vector_to_parameters(policy - 0.05 * gradient, trainer.network.parameters())
    assert trainer.network(seen).softmax(1)[:, 1].mean() > before


def test_the_same_seed_is_the_same_game() -> None:
    first, second = rl.Environment(), rl.Environment()
    second.begin(2)
    assert first.begin(1).tolist() == second.begin(1).tolist()
    assert first.begin(1).tolist() != first.begin(2).tolist()
    second.end(2)
    assert list(second.games) == [1]
