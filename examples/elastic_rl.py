"""Reinforcement learning in three roles on one elastic cluster: environments, generators, trainers.

    heliostat run examples/minimal.yaml -- python examples/elastic_rl.py

The shape is that of frameworks for reinforcement learning with large models, the model is tiny: a policy
of 226 numbers learns from nothing to balance a pole on a cart. Generators play episodes with the policy,
each against an environment; trainers compute the policy's gradient (REINFORCE) on what was played; the
driver takes the step and sends the new policy out. The cluster is divided between the roles by weights and
minimums, and each has as many members as its part holds.

What is drawn by chance depends on the number of the iteration and of the game, never on who plays it: the
policy learned is the same however many members there are and whichever are lost. Needs PyTorch.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import cycle
from typing import Any

import ray
import torch

from heliostat.train import ElasticGroup, Roles

ITERATIONS = 20
GAMES = 4
"""Played in each iteration, each by one generator against one environment."""
POLES = 8
"""Carts that a game has side by side."""
LONGEST = 200
"""Steps after which an episode is over though the pole still stands; also the most that it can score."""
HIDDEN = 32
LEARNING_RATE = 0.03
DISCOUNT = 0.99
ANSWER_S = 60.0
TRIES = 20
"""Times in a row that a game may lose its environment before the fault is not a member that left."""

# The cart-pole of Barto, Sutton and Anderson (1983), with the usual figures, in SI units.
GRAVITY, CART_KG, POLE_KG, HALF_POLE_M, PUSH_N, TICK_S = 9.8, 1.0, 0.1, 0.5, 10.0, 0.02
EDGE_M, FALLEN_RAD = 2.4, 12 * math.pi / 180


def moved(poles: torch.Tensor, actions: torch.Tensor) -> torch.Tensor:
    """Return the next state of each cart: place, speed, angle, angular speed; an action is 0 or 1."""
    _, speed, angle, turn = poles.unbind(1)
    push = PUSH_N * (2.0 * actions - 1.0)
    cos, sin, total = torch.cos(angle), torch.sin(angle), CART_KG + POLE_KG
    shove = (push + POLE_KG * HALF_POLE_M * turn**2 * sin) / total
    spin = (GRAVITY * sin - cos * shove) / (HALF_POLE_M * (4.0 / 3.0 - POLE_KG * cos**2 / total))
    pull = shove - POLE_KG * HALF_POLE_M * spin * cos / total
    changes = torch.stack([speed, pull, turn, spin], dim=1)
    return poles + TICK_S * changes


def standing(poles: torch.Tensor) -> torch.Tensor:
    """Return for each cart whether it is on its track and its pole has not fallen."""
    return (poles[:, 0].abs() < EDGE_M) & (poles[:, 2].abs() < FALLEN_RAD)


def network() -> torch.nn.Module:
    return torch.nn.Sequential(torch.nn.Linear(4, HIDDEN), torch.nn.Tanh(), torch.nn.Linear(HIDDEN, 2))


@dataclass(frozen=True)
class Game:
    """What a generator is to play."""

    policy: Any
    """Its numbers, or Ray's reference to them."""
    seed: int
    environment: Any


@dataclass(frozen=True)
class Played:
    """One game: for each moment that a pole still stood, what was seen and done, and what came of it."""

    seen: torch.Tensor
    done: torch.Tensor
    rewards: torch.Tensor
    """Discounted, from that moment on."""
    scores: torch.Tensor
    """For each cart, the steps that its pole stood."""


@dataclass(frozen=True)
class Lesson:
    """What a trainer is to learn from one game."""

    policy: Any
    seen: torch.Tensor
    done: torch.Tensor
    advantages: torch.Tensor


class Environment:
    """Carts with poles. Several games may be on at once, each known by its seed."""

    def __init__(self) -> None:
        self.games: dict[int, torch.Tensor] = {}

    def begin(self, seed: int) -> torch.Tensor:
        chance = torch.Generator().manual_seed(seed)
        self.games[seed] = 0.1 * torch.rand(POLES, 4, generator=chance) - 0.05
        return self.games[seed]

    def step(self, seed: int, actions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        self.games[seed] = moved(self.games[seed], actions)
        return self.games[seed], standing(self.games[seed])

    def end(self, seed: int) -> None:
        del self.games[seed]


class Generator:
    """Plays games with the policy that it is given."""

    def __init__(self) -> None:
        self.network = network()

    def play(self, game: Game) -> Played | None:
        """Play a game to its end; None if its environment was lost on the way."""
        policy = ray.get(game.policy) if isinstance(game.policy, ray.ObjectRef) else game.policy
        torch.nn.utils.vector_to_parameters(policy, self.network.parameters())
        try:
            return self._play(game)
        except ray.exceptions.RayActorError:
            return None

    def _play(self, game: Game) -> Played:
        chance = torch.Generator().manual_seed(game.seed)
        poles = _asked(game.environment.begin.remote(game.seed))
        up, seen, done, stood = torch.ones(POLES, dtype=torch.bool), [], [], []
        while len(seen) < LONGEST and up.any():
            with torch.no_grad():
                actions = torch.multinomial(self.network(poles).softmax(1), 1, generator=chance)[:, 0]
            seen.append(poles)
            done.append(actions)
            stood.append(up)
            poles, still = _asked(game.environment.step.remote(game.seed, actions))
            up = up & still
        game.environment.end.remote(game.seed)
        return played(torch.stack(seen), torch.stack(done), torch.stack(stood))


def _asked(reference: Any) -> Any:
    return ray.get(reference, timeout=ANSWER_S)


def played(seen: torch.Tensor, done: torch.Tensor, stood: torch.Tensor) -> Played:
    """Return a game from its moments, in order; each has one row for each cart."""
    rewards, later = torch.zeros(stood.shape), torch.zeros(stood.shape[1])
    for moment in reversed(range(len(stood))):
        later = stood[moment] * (1.0 + DISCOUNT * later)
        rewards[moment] = later
    return Played(seen[stood], done[stood], rewards[stood], stood.sum(0).float())


class Trainer:
    """Computes the policy's gradient on what was played."""

    def __init__(self) -> None:
        self.network = network()

    def learn(self, lesson: Lesson) -> torch.Tensor:
        """Return the gradient of the sum over a game's moments."""
        policy = ray.get(lesson.policy) if isinstance(lesson.policy, ray.ObjectRef) else lesson.policy
        torch.nn.utils.vector_to_parameters(policy, self.network.parameters())
        self.network.zero_grad()
        chances = self.network(lesson.seen).log_softmax(1)
        taken = chances.gather(1, lesson.done[:, None])[:, 0]
        (-(taken * lesson.advantages).sum()).backward()
        return torch.cat([one.grad.flatten() for one in self.network.parameters()])


def lessons(policy: Any, games: Sequence[Played]) -> list[Lesson]:
    """Return what to learn: what went better than the games' mean is to be done more often."""
    rewards = torch.cat([one.rewards for one in games])
    mean, spread = rewards.mean(), rewards.std() + 1e-6
    # Divided by the number of moments of all games, so that the sum of all gradients is a mean.
    return [Lesson(policy, one.seen, one.done, (one.rewards - mean) / spread / len(rewards)) for one in games]


@dataclass
class Run:
    """The driver's side: the policy, its optimizer, and how well it did in each iteration."""

    roles: Roles
    seed: int = 0
    scores: list[float] = field(default_factory=list)
    sizes: list[dict[str, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        torch.manual_seed(self.seed)
        self.policy = torch.nn.utils.parameters_to_vector(network().parameters()).detach().clone()
        self.optimizer = torch.optim.Adam([self.policy], lr=LEARNING_RATE)

    def iterate(self) -> float:
        """Play, learn and take a step, on whoever is there; return the mean score."""
        self.roles.sync()
        policy = ray.put(self.policy)
        games = self._play(policy)
        gradients = self.roles["trainer"].map("learn", lessons(policy, games), timeout_s=ANSWER_S)
        self.policy.grad = torch.stack(gradients).sum(0)
        self.optimizer.step()
        self.scores.append(float(torch.cat([one.scores for one in games]).mean()))
        self.sizes.append({role: len(group) for role, group in self.roles.items()})
        return self.scores[-1]

    def _play(self, policy: Any) -> list[Played]:
        """Play all games of this iteration; a game that loses its environment is played again on another."""
        first = (self.seed * 1_000_003 + len(self.scores)) * GAMES
        found: dict[int, Played] = {}
        for _ in range(TRIES):
            environments = cycle([one.actor for one in self.roles["environment"]])
            lacking = [seed for seed in range(first, first + GAMES) if seed not in found]
            asked = [Game(policy, seed, next(environments)) for seed in lacking]
            answers = self.roles["generator"].map("play", asked, timeout_s=ANSWER_S)
            found |= {
                one.seed: answer for one, answer in zip(asked, answers, strict=True) if answer is not None
            }
            if len(found) == GAMES:
                return [found[seed] for seed in sorted(found)]
            self.roles.sync()
        raise RuntimeError(f"games lost their environments {TRIES} times in a row")


def three_roles(cpus: float = 0.25, *, most: int = GAMES) -> Roles:
    """Return the roles, which open when they are entered: of each one member to `most`."""
    each: dict[str, Any] = {"bundle": {"CPU": cpus}, "min_size": 1, "max_size": most}
    return Roles(
        trainer=ElasticGroup(Trainer, name="trainer", weight=1, **each),
        generator=ElasticGroup(Generator, name="generator", weight=2, **each),
        environment=ElasticGroup(Environment, name="environment", weight=1, **each),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="Learn to balance a pole, on as many members as there are.")
    parser.add_argument("--iterations", type=int, default=ITERATIONS)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cpus", type=float, default=0.25, help="of each member")
    wanted = parser.parse_args()
    ray.init(address="auto", log_to_driver=False)
    with three_roles(wanted.cpus) as roles:
        run = Run(roles, wanted.seed)
        for number in range(wanted.iterations):
            score = run.iterate()
            sizes = ", ".join(f"{count} {role}" for role, count in run.sizes[-1].items())
            print(f"iteration {number}: mean score {score:.1f} of {LONGEST}; {sizes}", flush=True)
    print(f"done: from {run.scores[0]:.1f} to {run.scores[-1]:.1f}")


if __name__ == "__main__":
    main()
