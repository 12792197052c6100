"""Demand onto what is there, what comes, and what has to be launched."""

from __future__ import annotations

import pytest

from heliostat.model.instance import BackendState, NodeStatus, Offer
from heliostat.model.plan import Launch, Why
from heliostat.planner.limits import JOIN_SETTLE_S
from tests.unit.planner.world import World, demand, drained, kind, launched, launches, policy

GPUS = kind("gpu", 8, 2, price_usd_per_h=4.0)


@pytest.mark.parametrize(
    ("count", "units", "nodes"),
    [
        (1, {"CPU": 1}, 1),
        (4, {"CPU": 1}, 1),
        (5, {"CPU": 1}, 2),
        (40, {"CPU": 0.1}, 1),
        (41, {"CPU": 0.1}, 2),
        (3, {"CPU": 3}, 3),
        (0, {"CPU": 1}, 0),
    ],
)
def test_as_many_nodes_as_the_demand_fills(count: int, units: dict[str, float], nodes: int) -> None:
    made = World(demands=(demand(count, "", **units),)).round()
    assert launched(made) == ({"cpu": nodes} if nodes else {})
    assert made.target == {"cpu": nodes}


def test_small_bundles_fill_what_big_ones_leave() -> None:
    made = World(demands=(demand(2, CPU=1), demand(2, CPU=3))).round()
    assert launched(made) == {"cpu": 2}


def test_room_on_running_nodes_is_used_first() -> None:
    world = World(demands=(demand(3),))
    world.running(used={"CPU": 1})
    assert launched(world.round()) == {}
    world.demands = (demand(4),)
    assert launched(world.round()) == {"cpu": 1}


@pytest.mark.parametrize("state", [BackendState.QUEUED, BackendState.STARTING, BackendState.RUNNING])
def test_what_is_on_its_way_is_room_already(state: BackendState) -> None:
    world = World(demands=(demand(4),))
    world.coming(state=state, ago_s=1)
    assert launched(world.round()) == {}


def test_what_was_asked_for_and_is_not_listed_yet_is_room_already() -> None:
    world = World(demands=(demand(4),))
    world.asked(ago_s=1)
    assert launched(world.round()) == {}


def test_a_foreign_node_is_room_and_counts_for_no_maximum() -> None:
    world = World(policy=policy(kind(max_workers=1), max_workers=1), demands=(demand(6),))
    world.foreign(CPU=4, used={"CPU": 2})
    assert launched(world.round()) == {"cpu": 1}


@pytest.mark.parametrize("status", [NodeStatus.DRAINING, NodeStatus.DEAD])
def test_a_node_that_drains_or_died_is_no_room(status: NodeStatus) -> None:
    world = World(demands=(demand(4),))
    one = world.running()
    world.change_node(one, status=status)
    assert launched(world.round()) == {"cpu": 1}


def test_a_node_whose_lease_ends_soon_is_no_room() -> None:
    world = World(demands=(demand(4),))
    one = world.running()
    world.change_row(one, expires_at_s=world.now_s + 100)
    assert launched(world.round()) == {"cpu": 1}
    world.change_row(one, expires_at_s=world.now_s + 1000)
    assert launched(world.round()) == {}


def test_demand_that_just_started_on_a_new_node_is_not_asked_for_twice() -> None:
    """Ray reports the work of a node that joined a moment ago as waiting for one more report."""
    world = World(demands=(demand(4),))
    one = world.coming(state=BackendState.RUNNING)
    world.round()
    world.join(one, world.policy.node_types[0].resources)
    assert launched(world.round()) == {}
    assert launched(world.round(JOIN_SETTLE_S - 1)) == {}
    assert launched(world.round(2)) == {"cpu": 1}


def test_demand_newer_than_the_node_that_just_joined_is_real() -> None:
    world = World()
    one = world.coming(state=BackendState.RUNNING)
    world.round()
    world.join(one, world.policy.node_types[0].resources)
    world.round()
    world.demands = (demand(4),)
    assert launched(world.round()) == {"cpu": 1}


def test_a_task_of_a_placement_group_waits_for_its_group_and_not_for_a_node() -> None:
    name = "CPU_group_0_" + "a" * 28
    made = World(demands=(demand(1, "", **{name: 1.0}),)).round()
    assert (made.actions, made.infeasible) == ((), ())


def test_an_empty_bundle_needs_one_node_and_any_will_do() -> None:
    world = World(demands=(demand(7, CPU=0),))
    assert launched(world.round()) == {"cpu": 1}
    world.running(used={"CPU": 4})
    assert launched(world.round()) == {}


class TestWhichType:
    def launched(
        self, *types: object, asked: tuple[int, dict[str, float]] = (1, {"CPU": 1})
    ) -> dict[str, int]:
        world = World(policy=policy(*types))  # type: ignore[arg-type]
        world.demands = (demand(asked[0], "", **asked[1]),)
        return launched(world.round())

    def test_no_gpu_node_for_what_needs_none(self) -> None:
        cheap_gpu = kind("gpu", 8, 2, price_usd_per_h=0.1)
        assert self.launched(cheap_gpu, kind("cpu", price_usd_per_h=1.0)) == {"cpu": 1}

    def test_but_a_gpu_node_when_nothing_else_is_to_be_had(self) -> None:
        assert self.launched(GPUS, kind("cpu", max_workers=0)) == {"gpu": 1}

    def test_the_cheaper_of_two(self) -> None:
        assert self.launched(kind("a", price_usd_per_h=2.0), kind("b", price_usd_per_h=1.0)) == {"b": 1}

    def test_cheaper_for_what_it_holds_and_not_by_the_node(self) -> None:
        big, small = kind("big", 16, price_usd_per_h=3.0), kind("small", 2, price_usd_per_h=1.0)
        assert self.launched(small, big, asked=(16, {"CPU": 1})) == {"big": 1}
        assert self.launched(small, big) == {"small": 1}

    def test_priority_goes_before_price(self) -> None:
        dear = kind("a", price_usd_per_h=9.0, priority=1)
        assert self.launched(dear, kind("b", price_usd_per_h=1.0)) == {"a": 1}

    def test_what_is_offered_at_a_price_beats_the_files_price(self) -> None:
        world = World(policy=policy(kind("a", price_usd_per_h=2.0), kind("b", price_usd_per_h=1.0)))
        world.offers = (Offer("a", price_usd_per_h=0.5),)
        world.demands = (demand(1),)
        assert launched(world.round()) == {"a": 1}

    def test_without_prices_one_that_is_filled_well(self) -> None:
        assert self.launched(kind("big", 64), kind("small", 4), asked=(4, {"CPU": 1})) == {"small": 1}

    def test_the_next_type_when_the_best_is_full(self) -> None:
        best = kind("a", priority=1, max_workers=1)
        assert self.launched(best, kind("b"), asked=(12, {"CPU": 1})) == {"a": 1, "b": 2}


def test_a_tighter_gpu_node_is_still_left_alone() -> None:
    world = World(policy=policy(kind("cpu", 8), kind("gpu", 4, 1), max_workers=2))
    world.running("cpu")
    world.running("gpu")
    world.demands = (demand(1, CPU=2),)
    kept = world.round().kept
    assert [world.intents[one].node_type for one, why in kept.items() if why.why is Why.DEMAND] == ["cpu"]


def test_the_least_idle_of_equal_nodes_is_used_so_that_the_others_go() -> None:
    world = World(demands=(demand(1),))
    first, second = world.running(idle_s=200), world.running(idle_s=10)
    made = world.round()
    assert drained(made) == {first: Why.IDLE}
    assert made.kept[second].why is Why.DEMAND


def test_what_a_silent_backend_was_asked_for_is_still_room() -> None:
    world = World(policy=policy(kind("a"), kind("b", backend="other", priority=1)), demands=(demand(4),))
    world.coming("a")
    world.silent = {"fake": "timed out"}
    assert launched(world.round()) == {}


def test_gpus_on_running_nodes_are_left_for_those_who_need_them() -> None:
    world = World(
        policy=policy(kind("gpu", 4, 1), kind("cpu", 4)), demands=(demand(4), demand(1, GPU=1, CPU=1))
    )
    world.running("gpu")
    world.running("cpu")
    assert launched(world.round()) == {}


class TestLaunchReason:
    def reason(self, world: World) -> Launch:
        (one,) = launches(world.round())
        return one

    def test_says_what_waits_and_why_this_type(self) -> None:
        one = self.reason(World(demands=(demand(5),)))
        assert one.reason.why is Why.DEMAND
        assert one.reason.text == (
            "5 × {CPU: 1} wait, nothing free holds them; cpu is the only type that fits"
        )
        assert one.reason.data["demands"] == [{"text": "{CPU: 1}", "resources": {"CPU": 1}, "count": 5}]

    @pytest.mark.parametrize(
        ("rival", "words"),
        [
            (kind("b", price_usd_per_h=2.0), "is the cheapest type that fits"),
            (kind("b", priority=-1), "has the highest priority (0) of the types that fit"),
            (kind("b", 8), "fits best of the types that can be had"),
        ],
    )
    def test_says_what_sets_it_apart(self, rival: object, words: str) -> None:
        world = World(policy=policy(kind("a", price_usd_per_h=1.0), rival))  # type: ignore[arg-type]
        if words.startswith("fits"):
            world.policy = policy(kind("a"), rival)  # type: ignore[arg-type]
        world.demands = (demand(1),)
        one = self.reason(world)
        assert one.node_type == "a"
        assert one.reason.text.endswith(f"a {words}")

    def test_names_the_largest_shapes_and_counts_the_others(self) -> None:
        shapes = [
            demand(count, CPU=units) for count, units in ((5, 0.1), (4, 0.2), (3, 0.3), (1, 0.4), (1, 0.5))
        ]
        text = self.reason(World(demands=tuple(shapes))).reason.text
        assert text.startswith("5 × {CPU: 0.1}, 4 × {CPU: 0.2}, 3 × {CPU: 0.3} and 2 more shapes wait")
