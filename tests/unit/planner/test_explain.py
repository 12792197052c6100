"""What is nearest, what holds something back as data, and why a gang's nodes are of their type."""

from __future__ import annotations

from dataclasses import replace

import pytest

from heliostat.model.demand import GangStrategy
from heliostat.model.instance import Offer
from heliostat.model.plan import Deferred, Limiter, Why
from heliostat.model.snapshot import OperatorSettings
from tests.unit.planner.world import World, bundle, demand, gang, kind, launches, policy

NOWHERE = {"zone": "c"}
IN_A_ON_SSD = replace(
    bundle(CPU=1),
    selectors=((*bundle("zone=a").selectors[0], *bundle("disk=ssd").selectors[0]),),
)


@pytest.mark.parametrize(
    ("types", "nearest", "labels"),
    [
        (
            [kind("b", labels=NOWHERE), kind("c", labels={"zone": "a"}), kind("a", labels=NOWHERE)],
            "c",
            ("disk in (ssd)",),
        ),
        ([kind("b", labels=NOWHERE), kind("a", labels={})], "a", ("zone in (a)", "disk in (ssd)")),
        # What has the room is nearer than what has more of the labels.
        ([kind("b", labels=NOWHERE), kind("a", 0.5, labels={"zone": "a"})], "b", None),
        # Of those without the room, the one with more of the labels.
        ([kind("a", 0.5, labels=NOWHERE), kind("b", 0.5, labels={"zone": "a"})], "b", ("disk in (ssd)",)),
    ],
)
def test_the_nearest_lacks_the_fewest_labels(
    types: list[object], nearest: str, labels: tuple[str, ...] | None
) -> None:
    wanted = replace(demand(1), bundle=IN_A_ON_SSD)
    (one,) = World(policy=policy(*types), demands=(wanted,)).round().infeasible  # type: ignore[arg-type]
    assert one.nearest == nearest
    assert f"nearest is {nearest}" in one.text
    assert labels is None or one.labels == labels


def test_labels_of_the_fallback_that_lacks_the_fewest() -> None:
    first, second = (bundle(f"{key}=x").selectors[0] for key in ("disk", "zone"))
    wanted = replace(bundle(CPU=1), selectors=((*first, *second), second))
    types = policy(kind(labels=NOWHERE))
    (one,) = World(policy=types, demands=(replace(demand(1), bundle=wanted),)).round().infeasible
    assert one.labels == ("zone in (x)",)


def held(world: World) -> Deferred:
    (one,) = world.round().deferred
    return one


@pytest.mark.parametrize(
    ("world", "limiter", "data"),
    [
        (
            World(policy=policy(kind(max_workers=2)), demands=(demand(3, CPU=4),)),
            "max_workers",
            ("cpu", 2, 2),
        ),
        (World(policy=policy(max_workers=1), demands=(demand(3, CPU=4),)), "max_workers", ("cpu", 1, 1)),
        (
            World(
                policy=policy(kind(price_usd_per_h=2.0), max_cost_usd_per_h=5.0), demands=(demand(3, CPU=4),)
            ),
            "max_cost",
            ("cpu", 4.0, 5.0),
        ),
        (World(demands=(demand(3, CPU=4),), offers=(Offer("cpu", 2),)), "capacity", ("cpu", 2, 2)),
        (
            World(policy=policy(upscaling_speed=1.0), demands=(demand(7, CPU=4),)),
            "upscaling_speed",
            ("cpu", 0, 5),
        ),
        (
            World(demands=(demand(3, CPU=4),), operator=OperatorSettings(paused=True)),
            "paused",
            ("cpu", None, None),
        ),
        (World(policy=policy(kind(min_workers=3), max_workers=2)), "max_workers", ("cpu", 2, 2)),
        # The dearer type is what would be taken next.
        (
            World(
                policy=policy(
                    kind("b", max_workers=0, price_usd_per_h=2.0),
                    kind("a", max_workers=1, price_usd_per_h=9.0),
                ),
                demands=(demand(2, CPU=4),),
            ),
            "max_workers",
            ("b", 0, 0),
        ),
    ],
)
def test_what_holds_back_as_data(world: World, limiter: str, data: tuple[str, float, float]) -> None:
    one = held(world)
    assert one.limiter.value.startswith(limiter)
    assert (one.nearest, one.have, one.most) == data


def test_only_what_is_there_can_hold_it() -> None:
    world = World(demands=(demand(1, CPU=32),))
    world.foreign(CPU=32, used={"CPU": 32})
    assert (held(world).limiter, held(world).nearest, held(world).have) == (Limiter.CAPACITY, "", None)


def test_a_gang_that_is_refused_is_not_said_to_be_there() -> None:
    apart = gang(GangStrategy.STRICT_SPREAD, demand(5))
    world = World(policy=policy(kind(max_workers=3)), gangs=(apart,))
    one = held(world)
    assert (one.have, one.most) == (0, 3)
    assert one.text.endswith("(max_workers of the type), counting what the rest of it would take")
    for _ in range(3):
        world.running(used={"CPU": 4})
    assert held(world).text.endswith("cpu has 3 of at most 3 (max_workers of the type)")


@pytest.mark.parametrize(
    ("floor", "kept", "demands", "found"),
    [
        # Five nodes, of which three are tried: of the floor, and of the work that is to lie there.
        (5, (), (demand(5, CPU=4),), {(Why.MIN_WORKERS, 2), (Why.DEMAND, 2)}),
        (5, (), (), {(Why.MIN_WORKERS, 2)}),
        (0, (demand(5, CPU=4),), (), {(Why.CONSTRAINT, 2)}),
        (0, (demand(5, CPU=4),), (demand(5, CPU=4),), {(Why.DEMAND, 2), (Why.CONSTRAINT, 2)}),
    ],
)
def test_all_that_waits_for_a_node_is_deferred_by_what_wants_it(
    floor: int, kept: tuple[object, ...], demands: tuple[object, ...], found: set[tuple[Why, int]]
) -> None:
    world = World(policy=policy(kind(min_workers=floor)), demands=demands, constraint=kept)  # type: ignore[arg-type]
    world.history = replace(world.history, proven={})
    deferred = world.round().deferred
    assert {(one.why, one.wanted.count) for one in deferred} == found  # type: ignore[union-attr]
    assert {(one.limiter, one.nearest, one.have, one.most) for one in deferred} == {
        (Limiter.FIRST_SUCCESS, "cpu", 0, 3)
    }


def test_why_a_gangs_nodes_are_of_this_type() -> None:
    apart = gang(GangStrategy.STRICT_SPREAD, demand(3))
    types = kind(price_usd_per_h=1.0), kind("big", 16, price_usd_per_h=3.0)
    (launch,) = launches(World(policy=policy(*types), gangs=(apart,)).round())
    assert launch.reason.text.endswith("3 more of cpu complete it; cpu is the cheapest type that fits")
    assert launch.reason.data["gang_id"] == apart.gang_id
