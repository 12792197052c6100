"""What holds demand back, each limiter with its words; floors; and what nothing can ever hold."""

from __future__ import annotations

from dataclasses import replace

import pytest

from heliostat.model.drain_limit import DrainLimit
from heliostat.model.history import Backoff, History
from heliostat.model.instance import BackendState, Offer
from heliostat.model.plan import Limiter, Plan, Reason, Release, Why
from heliostat.model.snapshot import OperatorSettings
from heliostat.planner import plan
from heliostat.planner.limits import BACKEND_PATIENCE_S, FIRST_TRY
from tests.unit.planner.scenes import newer
from tests.unit.planner.world import (
    World,
    demand,
    drained,
    kind,
    launched,
    launches,
    limiters,
    policy,
    released,
)


def test_no_more_of_a_type_than_its_maximum() -> None:
    world = World(policy=policy(kind(max_workers=3)), demands=(demand(5, CPU=4),))
    world.running(used={"CPU": 4})
    made = world.round()
    assert launched(made) == {"cpu": 2}
    (one,) = made.deferred
    assert (one.limiter, one.wanted) == (Limiter.TYPE_MAX_WORKERS, demand(3, CPU=4))
    assert one.text == "cpu has 3 of at most 3 (max_workers of the type)"


def test_no_more_in_all_than_the_clusters_maximum() -> None:
    world = World(policy=policy(kind("a"), kind("b", priority=1), max_workers=2), demands=(demand(3, CPU=4),))
    world.running("a", used={"CPU": 4})
    made = world.round()
    assert launched(made) == {"b": 1}
    assert limiters(made) == ["MAX_WORKERS"]
    assert made.deferred[0].text == "the cluster has 2 of at most 2 workers (max_workers)"


@pytest.mark.parametrize("state", [BackendState.QUEUED, BackendState.STOPPING])
def test_everything_not_yet_gone_counts(state: BackendState) -> None:
    world = World(policy=policy(kind(max_workers=1)), demands=(demand(2, CPU=4),))
    world.coming(state=state)
    assert launched(world.round()) == {}


def test_no_more_than_the_budget_allows() -> None:
    cheap, dear = kind("cheap", 1, price_usd_per_h=0.1), kind("dear", 64, price_usd_per_h=5.0)
    world = World(policy=policy(cheap, dear, max_cost_usd_per_h=0.3), demands=(demand(5),))
    made = world.round()
    assert launched(made) == {"cheap": 3}
    assert limiters(made) == ["BUDGET"]
    assert "are spent (max_cost_usd_per_h)" in made.deferred[0].text


def test_what_is_there_already_is_spent() -> None:
    world = World(
        policy=policy(kind(price_usd_per_h=1.0), max_cost_usd_per_h=3.0), demands=(demand(9, CPU=4),)
    )
    world.running(used={"CPU": 4})
    assert launched(world.round()) == {"cpu": 2}


@pytest.mark.parametrize(("offered_usd", "nodes"), [(1.0, 4), (2.0, 1), (3.0, 0)])
def test_all_of_it_at_the_price_that_the_backend_says_just_now(offered_usd: float, nodes: int) -> None:
    node_type = kind(price_usd_per_h=1.0)
    world = World(policy=policy(node_type, max_cost_usd_per_h=6.0), demands=(demand(9, CPU=4),))
    for _ in range(2):
        world.running(used={"CPU": 4})
    world.offers = (Offer("cpu", price_usd_per_h=offered_usd),)
    assert launched(world.round()) == ({"cpu": nodes} if nodes else {})


class TestATypeThatLeftTheFile:
    """What is there of it costs on, until it is gone."""

    def world(self, *, ray_answers: bool = True) -> tuple[World, str]:
        old, new = kind("old", price_usd_per_h=1.0), kind("new", price_usd_per_h=5.0)
        world = World(policy=policy(old, new, max_cost_usd_per_h=10.0), demands=(demand(9, CPU=4),))
        one = world.running("old", used={"CPU": 4})
        world.offers = (Offer("old", price_usd_per_h=4.0),)
        world.round()
        world.policy, world.ray_answers = policy(new, max_cost_usd_per_h=10.0), ray_answers
        world.offers = ()
        world.rounds(3)
        world.ray_answers = True
        return world, one

    @pytest.mark.parametrize("ray_answers", [True, False])
    def test_at_its_last_known_price(self, ray_answers: bool) -> None:
        world, _ = self.world(ray_answers=ray_answers)
        made = world.round()
        assert launched(made) == {"new": 1}
        assert "9 of at most 10 $/h" in made.deferred[0].text

    def test_and_no_longer_when_it_has_gone(self) -> None:
        world, one = self.world()
        world.obey(Plan(actions=(Release(one, Reason(Why.LOST, "a test")),)))
        assert launched(world.round()) == {"new": 2}
        assert world.history.prices == {"new": 5.0}

    def test_the_dearest_of_such_nodes_goes_first(self) -> None:
        types = [kind(f"t{n}", price_usd_per_h=price) for n, price in enumerate((1.0, 3.0, 2.0))]
        world = World(policy=policy(*types, max_draining=(DrainLimit(1),)))
        several = [world.running(one.name, idle_s=1) for one in types]
        world.round()
        world.policy = policy(max_draining=(DrainLimit(1),))
        assert list(drained(world.round())) == [several[1]]


def test_what_is_free_of_charge_is_not_held_back_by_the_budget() -> None:
    world = World(policy=policy(kind(price_usd_per_h=0.0), max_cost_usd_per_h=0.0), demands=(demand(1),))
    assert launched(world.round()) == {"cpu": 1}


class TestFloors:
    def test_min_workers_are_there_without_demand(self) -> None:
        made = World(policy=policy(kind(min_workers=2))).round()
        assert launched(made) == {"cpu": 2}
        assert launches(made)[0].reason.text == "min_workers of cpu is 2, 0 are there"
        assert launches(made)[0].reason.why is Why.MIN_WORKERS

    def test_a_floor_by_hand_adds_to_the_files_up_to_the_maximum(self) -> None:
        world = World(policy=policy(kind(min_workers=1, max_workers=3)))
        world.operator = OperatorSettings(floors={"cpu": 5})
        made = world.round()
        assert launched(made) == {"cpu": 3}
        assert launches(made)[0].reason.why is Why.ADDED_BY_HAND

    def test_what_comes_for_the_floor_is_room_for_demand(self) -> None:
        world = World(policy=policy(kind(min_workers=2)), demands=(demand(8),))
        assert launched(world.round()) == {"cpu": 2}

    def test_and_all_of_it_comes_whatever_demand_takes(self) -> None:
        world = World(policy=policy(kind(min_workers=2)), demands=(demand(1),))
        assert launched(world.round()) == {"cpu": 2}

    def test_what_is_on_its_way_counts(self) -> None:
        world = World(policy=policy(kind(min_workers=2)))
        world.coming()
        assert launched(world.round()) == {"cpu": 1}

    def test_a_floor_that_cannot_be_reached_is_deferred(self) -> None:
        world = World(policy=policy(kind(min_workers=3), max_workers=1))
        made = world.round()
        assert launched(made) == {"cpu": 1}
        assert limiters(made) == ["MAX_WORKERS"]
        assert made.deferred[0].text.startswith("3 of cpu shall be there; the cluster has 1")


class TestSpeed:
    @pytest.mark.parametrize(
        ("speed", "running", "nodes"),
        [(1.0, 0, 5), (1.0, 4, 5), (1.0, 6, 6), (2.0, 4, 8), (0.5, 12, 6), (0, 0, 9)],
    )
    def test_so_many_on_their_way_at_once(self, speed: float, running: int, nodes: int) -> None:
        world = World(policy=policy(kind(max_workers=99), max_workers=99, upscaling_speed=speed))
        for _ in range(running):
            world.running(used={"CPU": 4})
        world.demands = (demand(9, CPU=4),)
        made = world.round()
        assert launched(made) == {"cpu": nodes}
        assert limiters(made) == (["UPSCALING_SPEED"] if nodes < 9 else [])
        assert made.target == {"cpu": running + 9}

    def test_what_comes_already_counts(self) -> None:
        world = World(policy=policy(kind(), upscaling_speed=1.0), demands=(demand(9, CPU=4),))
        for _ in range(4):
            world.coming()
        assert launched(world.round()) == {"cpu": 1}

    def test_a_floor_is_not_held_back(self) -> None:
        assert launched(World(policy=policy(kind(min_workers=9), upscaling_speed=1.0)).round()) == {"cpu": 9}


class TestFirstSuccess:
    def world(self) -> World:
        world = World(demands=(demand(9, CPU=4),))
        world.history = History()
        return world

    def test_a_type_that_never_came_up_is_tried_a_few_at_a_time(self) -> None:
        world = self.world()
        made = world.round()
        assert launched(made) == {"cpu": FIRST_TRY}
        assert set(limiters(made)) == {"FIRST_SUCCESS"}
        assert made.deferred[0].wanted == demand(6, CPU=4)
        world.obey(made)
        assert launched(world.round()) == {}

    def test_the_first_that_joins_lets_the_others_through(self) -> None:
        world = self.world()
        world.obey(world.round())
        for _ in range(3):
            world.tick(places=False)
        assert launched(world.round()) == {"cpu": 6}

    def test_a_shape_that_apply_has_changed_is_unproven_though_the_type_ran_before(self) -> None:
        world = World(demands=(demand(9, CPU=4),))
        world.running(used={"CPU": 4})
        world.round()
        world.policy = policy(newer(kind()))
        made = world.round()
        assert launched(made) == {"cpu": FIRST_TRY}
        assert set(limiters(made)) == {"FIRST_SUCCESS"}
        world.obey(made)
        for _ in range(3):
            world.tick(places=False)
        assert launched(world.round()) == {"cpu": 6}

    def test_a_node_that_runs_proves_its_shape_though_the_history_was_lost(self) -> None:
        world = World(demands=(demand(9, CPU=4),))
        world.running(used={"CPU": 4})
        world.history = replace(world.history, proven={})
        assert launched(world.round()) == {"cpu": 9}

    def test_what_waits_behind_failures_of_a_new_shape_is_withdrawn(self) -> None:
        world = World(policy=policy(newer(kind())), demands=(demand(2, CPU=4),))
        world.history = History(proven={"cpu": "shape-cpu"})
        failed, behind = world.coming(ago_s=1), world.coming(ago_s=1)
        world.intents[behind] = replace(world.intents[behind], launch_id=world.intents[failed].launch_id)
        world.change_row(failed, state=BackendState.FAILED, started_at_s=world.now_s, detail="no image")
        world.change_row(behind, throttled=True)
        assert released(world.round())[behind] is Why.FAILED

    def test_what_waits_behind_one_of_a_new_shape_that_never_joins_is_withdrawn(self) -> None:
        world = World(policy=policy(kind(start_timeout_s=60.0)), demands=(demand(2, CPU=4),))
        world.history = History()
        hangs, behind = world.coming(ago_s=100), world.coming(ago_s=100)
        world.intents[behind] = replace(world.intents[behind], launch_id=world.intents[hangs].launch_id)
        world.change_row(hangs, state=BackendState.STARTING)
        world.change_row(behind, throttled=True)
        assert released(world.round()) == {}
        assert released(world.round(60.0)) == {}
        assert released(world.round()) == {hangs: Why.START_TIMEOUT, behind: Why.FAILED}


class TestBackoff:
    def world(self, failures: int = 2, left_s: float = 10.0) -> World:
        world = World(demands=(demand(1),))
        until_s = world.now_s + 1 + left_s
        world.history = replace(world.history, backoff={"cpu": Backoff(failures, until_s, "no such image")})
        return world

    def test_nothing_is_launched_before_its_end_and_the_backends_words_are_shown(self) -> None:
        made = self.world().round()
        assert launched(made) == {}
        assert made.deferred[0].limiter is Limiter.BACKOFF
        assert made.deferred[0].text == "cpu failed 2 times, tried again in 10 s: no such image"

    def test_and_after_its_end_again(self) -> None:
        world = self.world()
        world.round()
        assert launched(world.round(9.9)) == {}
        assert launched(world.round(0.1)) == {"cpu": 1}

    def test_another_type_is_taken_meanwhile(self) -> None:
        world = self.world()
        world.policy = policy(kind(priority=1), kind("b"))
        world.history = replace(world.history, proven={"b": "shape-b"})
        assert launched(world.round()) == {"b": 1}


class TestOffers:
    def test_no_more_than_the_backend_can_give_and_its_words(self) -> None:
        world = World(demands=(demand(3, CPU=4),))
        world.offers = (Offer("cpu", count=1, why="no GPU is left"),)
        made = world.round()
        assert launched(made) == {"cpu": 1}
        assert (made.deferred[0].limiter, made.deferred[0].text) == (Limiter.CAPACITY, "cpu: no GPU is left")

    def test_an_offer_without_words_or_count(self) -> None:
        world = World(demands=(demand(3, CPU=4),))
        world.offers = (Offer("cpu", count=2),)
        assert world.round().deferred[0].text == "cpu: no more than 2 can be had now"
        world.offers = (Offer("cpu"),)
        assert launched(world.round()) == {"cpu": 3}

    def test_while_the_backend_frees_something_demand_waits_for_the_better_type(self) -> None:
        world = World(policy=policy(kind("a", priority=1), kind("b")), demands=(demand(1, CPU=4),))
        world.offers = (Offer("a", count=0, why="full"),)
        world.give_up(world.coming("a", BackendState.STOPPING))
        made = world.round()
        assert launched(made) == {}
        assert limiters(made) == ["CAPACITY"]
        world.rows.clear()
        world.intents.clear()
        assert launched(world.round()) == {"b": 1}


def test_paused_launches_nothing_and_says_how_to_go_on() -> None:
    world = World(policy=policy(kind(min_workers=1)), demands=(demand(9),))
    world.operator = OperatorSettings(paused=True)
    made = world.round()
    assert made.actions == ()
    assert set(limiters(made)) == {"PAUSED"}
    assert "heliostat pause --off" in made.deferred[0].text
    assert made.target == {"cpu": 0}


class TestSilence:
    def test_nothing_is_launched_on_a_backend_that_does_not_answer(self) -> None:
        world = World(demands=(demand(1),), silent={"fake": "timed out"})
        made = world.round()
        assert made.actions == ()
        assert made.deferred[0].limiter is Limiter.BACKEND_UNKNOWN
        assert made.deferred[0].text == "backend fake has not answered: timed out"

    def test_demand_waits_a_while_and_then_goes_elsewhere(self) -> None:
        world = World(policy=policy(kind("a", priority=1), kind("b", backend="other")), demands=(demand(1),))
        world.silent = {"fake": "timed out"}
        assert launched(world.round()) == {}
        snapshot = world.snapshot()
        old = replace(snapshot.backends["fake"], listed_at_s=world.now_s - BACKEND_PATIENCE_S - 1)
        later = replace(snapshot, backends={**snapshot.backends, "fake": old})
        assert launched(plan(later, world.history, world.policy)) == {"b": 1}

    def test_nothing_is_released_on_missing_information(self) -> None:
        world = World(silent={"fake": "timed out"})
        world.coming()
        world.asked()
        world.running(idle_s=0)
        for _ in range(5):
            assert world.round(40).actions == ()

    def test_a_silent_ray_means_no_launch_and_no_drain(self) -> None:
        world = World(policy=policy(kind(min_workers=3)), demands=(demand(9),), ray_answers=False)
        world.running(idle_s=900)
        world.coming()
        made = world.round()
        assert made.actions == ()
        assert made.target == {"cpu": 2}


class TestNever:
    def test_says_what_is_nearest_and_what_it_lacks(self) -> None:
        world = World(policy=policy(kind("cpu"), kind("gpu", 8, 2)), demands=(demand(3, CPU=8, GPU=4),))
        made = world.round()
        assert (made.actions, made.deferred) == ((), ())
        (one,) = made.infeasible
        assert one.wanted == demand(3, CPU=8, GPU=4)
        assert one.text == (
            "no node type can hold {CPU: 8, GPU: 4}; nearest is gpu, which lacks GPU (4 asked, 2 there)"
        )

    def test_names_a_resource_that_no_type_has(self) -> None:
        (one,) = World(demands=(demand(1, CPU=1, TPU=1),)).round().infeasible
        assert one.text.endswith("nearest is cpu, which lacks TPU (1 asked, 0 there)")

    def test_the_possible_goes_on_beside_it(self) -> None:
        made = World(demands=(demand(1, CPU=99), demand(1))).round()
        assert launched(made) == {"cpu": 1}
        assert len(made.infeasible) == 1

    def test_a_full_cluster_is_not_never(self) -> None:
        made = World(policy=policy(max_workers=0), demands=(demand(1),)).round()
        assert made.infeasible == ()
        assert limiters(made) == ["MAX_WORKERS"]

    def test_what_only_a_foreign_node_can_hold_waits_for_it(self) -> None:
        world = World(demands=(demand(1, CPU=32),))
        world.foreign(CPU=32, used={"CPU": 1})
        made = world.round()
        assert (made.actions, made.infeasible) == ((), ())
        assert made.deferred[0].text.startswith("only nodes that are already here can hold {CPU: 32}")

    def test_a_file_without_worker_types(self) -> None:
        world = World(demands=(demand(1),))
        world.policy = replace(world.policy, node_types=())
        assert (
            world.round().infeasible[0].text
            == "no node type can hold {CPU: 1}: the file has none for workers"
        )
