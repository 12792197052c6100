"""Seeded small worlds, given to Ray's scheduler and to ours.

Where no limit binds, both place the same. At a limit each is greedy in its own order
(docs/ray-scheduler.md), so there the whole counts, not each world.
"""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import pytest
from ray.autoscaler.v2.scheduler import ResourceDemandScheduler

from tests.unit.raylink.asks import (
    IS_RAY_2_60,
    Brief,
    Units,
    ask,
    brief,
    group,
    head,
    node_type,
    pending,
    running,
    scheduler,
)
from tests.unit.raylink.builders import counted, selector

WORLDS = 250
IN_A = selector(("zone", "in", ("a",)))
SHAPES: list[Units] = [
    {"CPU": 2},
    {"CPU": 4},
    {"CPU": 8},
    {"CPU": 4, "GPU": 1},
    {"CPU": 16, "GPU": 4},
    {"CPU": 4, "x": 1},
]
BUNDLES: list[Units] = [
    {"CPU": 0.5},
    {"CPU": 1},
    {"CPU": 2},
    {"CPU": 3},
    {"CPU": 8},
    {"GPU": 1},
    {"CPU": 1, "GPU": 1},
    {"CPU": 1, "GPU": 2},
    {"x": 1},
]
KEPT: list[Units] = [{"CPU": 1}, {"CPU": 4}, {"GPU": 1}]
GROUPED: list[Units] = [{"CPU": 1}, {"CPU": 2}, {"CPU": 1, "GPU": 1}]
LABELS: list[dict[str, str]] = [{}, {"zone": "a"}, {"zone": "b"}]
MANY = 60
HEAD_TYPE = node_type("head", {"CPU": 0}, most=1)


class World:
    """One `SchedulingRequest`'s parts, all chosen by one seed."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.types = [self._type(f"t{one}") for one in range(self.chance.randint(1, 3))]
        self.instances = [head(), *self._instances()]
        self.more: dict[str, Any] = {
            "requests": [self._demand() for _ in range(self.chance.randint(0, 3))],
            "gangs": [self._gang(f"pg{one}") for one in range(self.chance.choice([0, 0, 1, 2]))],
            "keep": [self.chance.choice(KEPT)] * self.chance.choice([0, 0, 0, 2, 5]),
        }
        floors = sum(one.min_worker_nodes for one in self.types)
        self.most = len(self.instances) + floors + self.chance.randint(0, 3)

    def _type(self, name: str) -> Any:
        most = self.chance.randint(0, 4)
        return node_type(
            name,
            self.chance.choice(SHAPES),
            least=self.chance.randint(0, min(1, most)),
            most=most,
            labels=self.chance.choice(LABELS),
        )

    def _instances(self) -> list[Any]:
        made: list[Any] = []
        for number in range(self.chance.randint(0, 3)):
            of = self.chance.choice(self.types)
            if sum(one.im_instance.instance_type == of.name for one in made) < of.max_worker_nodes:
                made.append(self._instance(f"i{number}", of))
        return made

    def _instance(self, key: str, of: Any) -> Any:
        if self.chance.random() < 0.4:
            return pending(key, of.name, status=self.chance.randint(1, 4))
        free = {name: float(self.chance.randint(0, int(most))) for name, most in of.resources.items()}
        return running(key, of.name, of.resources, free, labels=of.labels)

    def _demand(self) -> Any:
        wanted = [IN_A] if self.chance.random() < 0.2 else []
        return counted(self.chance.randint(1, 6), self.chance.choice(BUNDLES), *wanted)

    def _gang(self, name: str) -> Any:
        way = self.chance.choice([{}, {"apart": True}, {"together": True}])
        bundle = self.chance.choice(GROUPED)
        return group(*[bundle] * self.chance.randint(1, 3), name=name, **way)

    def limited(self) -> Any:
        return ask([*self.types, HEAD_TYPE], instances=self.instances, max_num_nodes=self.most, **self.more)

    def unlimited(self, **more: Any) -> Any:
        types = [replace(one, max_worker_nodes=MANY) for one in self.types]
        return ask([*types, HEAD_TYPE], instances=self.instances, **{**self.more, **more})


def both(asked: Any) -> tuple[Brief, Brief]:
    return brief(ResourceDemandScheduler().schedule(asked)), brief(scheduler().schedule(asked))


def unmet(one: Brief) -> tuple[int, int, int]:
    return (one.unmet, one.gangs_unmet, one.keep_unmet)


def nodes(one: Brief) -> float:
    return sum(one.launch.values())


def test_without_limits_the_same_is_feasible() -> None:
    totals = {"rays": 0.0, "ours": 0.0}
    for seed in range(WORLDS):
        rays, ours = both(World(seed).unlimited())
        assert unmet(ours) == unmet(rays), f"seed {seed}"
        totals["rays"] += nodes(rays)
        totals["ours"] += nodes(ours)
    assert totals["ours"] <= totals["rays"] * 1.02


def test_at_limits_no_less_is_placed_on_the_whole() -> None:
    totals = {"rays": 0, "ours": 0}
    worse = []
    for seed in range(WORLDS):
        rays, ours = both(World(seed).limited())
        totals["rays"] += sum(unmet(rays))
        totals["ours"] += sum(unmet(ours))
        if any(mine > its for mine, its in zip(unmet(ours), unmet(rays), strict=True)):
            worse.append(seed)
    assert totals["ours"] <= totals["rays"] * 1.01
    assert len(worse) <= WORLDS * 0.02, worse


@pytest.mark.skipif(not IS_RAY_2_60, reason="Ray's scheduler before 2.60 chooses other idle nodes")
@pytest.mark.parametrize("timeout_s", [3.5, 15.5])
def test_without_work_the_same_nodes_go(timeout_s: float) -> None:
    """Nothing is on its way here: of a minimum, we keep what runs, and Ray keeps either."""
    for seed in range(WORLDS // 5):
        world = World(seed)
        for number in range(5):
            of = world.chance.choice(world.types)
            idle_s = float(number) + world.chance.choice([0, 10, 20])
            world.instances.append(running(f"n{number}", of.name, of.resources, idle_s=idle_s))
        world.instances = [one for one in world.instances if one.ray_node is not None]
        rays, ours = both(world.unlimited(requests=[], gangs=[], keep=[], idle_timeout_s=timeout_s))
        assert ours.gone == rays.gone, f"seed {seed}"
