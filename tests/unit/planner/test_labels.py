"""Label selectors, fallbacks, and the words when no type has the labels."""

from __future__ import annotations

import pytest

from heliostat.planner.limits import NODE_GROUP_LABEL
from tests.unit.planner.world import World, demand, kind, launched, policy

A, B = kind("a", labels={"zone": "a"}), kind("b", labels={"zone": "b"})


@pytest.mark.parametrize(
    ("where", "nodes"),
    [
        ("", {"a": 1}),
        ("zone=b", {"b": 1}),
        ("zone!a", {"b": 1}),
        ("zone!c", {"a": 1}),
        ("zone=b|zone=a", {"b": 1}),
        ("zone=c|zone=b", {"b": 1}),
        ("disk!ssd", {"a": 1}),
        (f"{NODE_GROUP_LABEL}=b", {"b": 1}),
    ],
)
def test_the_type_with_the_label(where: str, nodes: dict[str, int]) -> None:
    assert launched(World(policy=policy(A, B), demands=(demand(1, where, CPU=1),)).round()) == nodes


def test_the_fallback_when_the_preferred_label_is_full() -> None:
    full = kind("b", labels={"zone": "b"}, max_workers=0)
    world = World(policy=policy(A, full), demands=(demand(1, "zone=b|zone=a", CPU=1),))
    assert launched(world.round()) == {"a": 1}


def test_room_on_a_node_with_the_label_only() -> None:
    world = World(policy=policy(A, B), demands=(demand(1, "zone=b", CPU=1),))
    world.running("a")
    assert launched(world.round()) == {"b": 1}
    world.running("b")
    assert launched(world.round()) == {}


def test_a_fallback_that_is_there_is_used_before_a_preferred_one_is_launched() -> None:
    world = World(policy=policy(A, B), demands=(demand(1, "zone=b|zone=a", CPU=1),))
    world.running("a")
    assert launched(world.round()) == {}


def test_a_label_that_is_each_nodes_own_does_not_matter_unless_asked_for() -> None:
    world = World(demands=(demand(12),))
    for index in range(3):
        world.change_node(world.running(), labels={"ray.io/node-id": str(index)})
    assert launched(world.round()) == {}


class TestNever:
    def text(self, *types: object, where: str, **units: float) -> str:
        world = World(policy=policy(*types), demands=(demand(1, where, **units),))  # type: ignore[arg-type]
        made = world.round()
        assert made.actions == ()
        (one,) = made.infeasible
        return one.text

    def test_because_of_the_label_alone(self) -> None:
        assert self.text(A, B, where="zone=c", CPU=1) == (
            "no node type has the labels that {CPU: 1} where zone in (c) asks for; "
            "nearest is a, which has zone=a"
        )

    def test_because_no_type_knows_the_label(self) -> None:
        assert self.text(A, where="disk=ssd", CPU=1).endswith("nearest is a, which has no label disk")

    def test_because_the_type_with_the_label_is_too_small(self) -> None:
        text = self.text(kind("big", 64), A, where="zone=a", CPU=8)
        assert text == (
            "no node type has both the labels and the room for {CPU: 8} where zone in (a); of those with "
            "the labels a is nearest, which lacks CPU (8 asked, 4 there)"
        )
