"""What goes again, what stays, and why."""

from __future__ import annotations

from dataclasses import replace

import pytest

from heliostat.model.drain_limit import DrainLimit
from heliostat.model.instance import BackendState, DrainReason, NodeStatus
from heliostat.model.plan import Why
from heliostat.model.snapshot import OperatorSettings
from heliostat.planner.limits import RAY_GAP_S, VANISHED_S
from tests.unit.planner.world import World, demand, drained, drains, kind, launched, policy, released


@pytest.mark.parametrize(("idle_s", "goes"), [(58, False), (60, True), (600, True)])
def test_idle_for_its_timeout(idle_s: float, goes: bool) -> None:
    world = World()
    one = world.running(idle_s=idle_s)
    made = world.round()
    assert drained(made) == ({one: Why.IDLE} if goes else {})
    if goes:
        (drain,) = drains(made)
        assert (drain.drain_reason, drain.node_id, drain.deadline_s) == (DrainReason.IDLE, f"n-{one}", None)
        assert drain.reason.text == f"w1 has been idle for {idle_s} s, its timeout is 60 s"
        assert made.target == {"cpu": 0}
    else:
        assert made.kept[one].text == "idle for 58 s of 60 s (idle timeout), 2 s left"
        assert made.target == {"cpu": 1}


def test_a_type_has_a_timeout_of_its_own() -> None:
    world = World(policy=policy(kind("quick", idle_timeout_s=5.0), kind("slow", idle_timeout_s=500.0)))
    quick, _ = world.running("quick", idle_s=10), world.running("slow", idle_s=100)
    assert drained(world.round()) == {quick: Why.IDLE}


def test_one_report_is_not_enough() -> None:
    world = World(policy=policy(kind(idle_timeout_s=0.0)))
    one = world.running(used={"CPU": 4})
    world.round()
    world.change_node(one, status=NodeStatus.IDLE, available=kind().resources, idle_s=500.0)
    made = world.round()
    assert drained(made) == {}
    assert "one report only" in made.kept[one].text
    assert drained(world.round()) == {one: Why.IDLE}


def test_our_own_count_goes_on_where_ray_starts_anew() -> None:
    """Unrelated queued tasks reset Ray's idle time (ray#60546)."""
    world = World()
    one = world.running(idle_s=50)
    world.round()
    world.change_node(one, idle_s=0.0)
    assert drained(world.round(8)) == {}
    assert drained(world.round(5)) == {one: Why.IDLE}


def test_after_a_silence_of_ray_our_own_count_is_void() -> None:
    world = World()
    one = world.running(idle_s=50)
    world.round()
    world.change_node(one, idle_s=0.0)
    world.round(RAY_GAP_S + 1)
    world.round()
    assert world.history.idle_since[f"n-{one}"] == world.now_s - 1


def test_where_every_round_takes_that_long_idle_nodes_go_all_the_same() -> None:
    world = World()
    one, works = world.running(), world.running()
    made = []
    for idle_s in (20.0, 40.0, 60.0):
        world.change_node(one, idle_s=idle_s)
        world.change_node(works, idle_s=RAY_GAP_S - 1)
        made.append(drained(world.round(RAY_GAP_S * 2)))
    assert made == [{}, {}, {one: Why.IDLE}]
    assert (world.history.reports[f"n-{one}"], world.history.reports[f"n-{works}"]) == (8, 1)


def test_one_report_after_a_silence_is_not_enough_where_the_node_may_have_worked_in_it() -> None:
    world = World(policy=policy(kind(idle_timeout_s=5.0)))
    one = world.running()
    world.change_node(one, idle_s=RAY_GAP_S)
    made = world.round(RAY_GAP_S + 1)
    assert drained(made) == {}
    assert "one report only" in made.kept[one].text


@pytest.mark.parametrize("status", [NodeStatus.RUNNING, NodeStatus.DRAINING, NodeStatus.DEAD])
def test_only_an_idle_node_is_drained(status: NodeStatus) -> None:
    world = World()
    one = world.running(idle_s=900)
    world.round()
    world.change_node(one, status=status)
    assert drained(world.round()) == {}


def test_a_node_that_an_actor_without_resources_keeps_says_so() -> None:
    world = World()
    one = world.running()
    world.change_node(one, status=NodeStatus.RUNNING, activity=("an actor lives here",))
    assert world.round().kept[one].text == "busy: an actor lives here"


class TestStays:
    def test_for_demand_that_fits_on_it(self) -> None:
        world = World(demands=(demand(1),))
        one = world.running(idle_s=900)
        made = world.round()
        assert made.actions == ()
        assert made.kept[one].text == "{CPU: 1} waits and fits here"

    def test_for_min_workers(self) -> None:
        world = World(policy=policy(kind(min_workers=1)))
        first, second = world.running(idle_s=100), world.running(idle_s=200)
        made = world.round()
        assert drained(made) == {second: Why.IDLE}
        assert made.kept[first].why is Why.MIN_WORKERS
        assert made.target == {"cpu": 1}

    @pytest.mark.parametrize("heard", [True, False])
    def test_for_min_workers_while_nobody_knows_whether_another_one_comes(self, heard: bool) -> None:
        world = World(policy=policy(kind("cpu", min_workers=1)))
        up, asked = world.running(idle_s=900), world.coming()
        world.silent = {} if heard else {"fake": "timed out"}
        made = world.rounds(4)
        # Of the two the one that is on its way is given back, and only where it can be seen.
        assert released(made).keys() == ({asked} if heard else set())
        assert drained(made) == {}
        assert made.kept[up].why is Why.MIN_WORKERS

    def test_for_a_floor_by_hand(self) -> None:
        world = World(operator=OperatorSettings(floors={"cpu": 1}))
        one = world.running(idle_s=900)
        assert world.round().kept[one].why is Why.ADDED_BY_HAND

    def test_because_a_person_protects_it(self) -> None:
        world = World()
        one = world.running(idle_s=900)
        world.operator = OperatorSettings(protected=frozenset({one}), removals={one: None})
        made = world.round()
        assert made.actions == ()
        assert made.kept[one].why is Why.PROTECTED

    def test_because_the_cluster_is_paused(self) -> None:
        world = World(operator=OperatorSettings(paused=True))
        one = world.running(idle_s=900)
        made = world.round()
        assert made.actions == ()
        assert made.kept[one].text == "the cluster is paused"
        assert made.target == {"cpu": 1}

    def test_while_enough_others_drain(self) -> None:
        world = World(policy=policy(max_draining=(DrainLimit(2),)))
        several = [world.running(idle_s=900) for _ in range(4)]
        world.change_node(several[0], status=NodeStatus.DRAINING)
        made = world.round()
        assert len(drained(made)) == 1
        assert sum("max_draining" in one.text for one in made.kept.values()) == 2


def test_the_dearest_goes_first() -> None:
    kinds = policy(
        kind("a", price_usd_per_h=1.0), kind("b", price_usd_per_h=2.0), max_draining=(DrainLimit(1),)
    )
    world = World(policy=kinds)
    world.running("a", idle_s=900)
    dear = world.running("b", idle_s=100)
    assert drained(world.round()) == {dear: Why.IDLE}


class TestOverMax:
    def test_an_idle_node_goes_at_once_and_a_busy_one_stays(self) -> None:
        world = World(policy=policy(kind(max_workers=1)))
        world.running(used={"CPU": 1})
        idle = world.running(idle_s=1)
        assert drained(world.round()) == {idle: Why.OVER_MAX}

    def test_no_more_go_than_there_are_too_many(self) -> None:
        world = World(policy=policy(max_workers=2))
        for _ in range(3):
            world.running(idle_s=1)
        assert list(drained(world.round()).values()) == [Why.OVER_MAX]

    def test_what_is_on_its_way_goes_before_what_runs(self) -> None:
        world = World(policy=policy(kind(max_workers=1)), demands=(demand(8),))
        world.running(idle_s=1)
        one = world.coming()
        made = world.round()
        assert released(made) == {one: Why.OVER_MAX}
        assert drained(made) == {}

    @pytest.mark.parametrize("part", ["type", "cluster"])
    def test_what_is_over_is_not_too_many(self, part: str) -> None:
        """It is released as what it is, and nothing goes in its stead."""
        most = {"type": policy(kind(max_workers=1)), "cluster": policy(max_workers=1)}
        world = World(policy=most[part])
        idle = world.running(idle_s=1)
        late = world.coming(state=BackendState.STARTING)
        world.history = replace(world.history, starting_since={late: world.now_s - 1000})
        made = world.round()
        assert (released(made), drained(made)) == ({late: Why.START_TIMEOUT}, {})
        assert made.kept[idle].why is Why.IDLE_TIMEOUT

    @pytest.mark.parametrize("part", ["type", "cluster"])
    @pytest.mark.parametrize("why", [Why.DRIFT, Why.REMOVED_BY_HAND])
    def test_what_goes_anyway_is_not_too_many(self, part: str, why: Why) -> None:
        """Nothing goes in its stead: neither what runs nor what else is on its way."""
        most = {"type": policy(kind(max_workers=2)), "cluster": policy(max_workers=2)}
        world = World(policy=most[part], demands=(demand(2, CPU=4),))
        world.running(idle_s=1)
        old, _ = world.coming(ago_s=9.0), world.coming(ago_s=1.0)
        if why is Why.DRIFT:
            world.intents[old] = replace(world.intents[old], shape_id="another")
        else:
            world.operator = OperatorSettings(removals={old: None})
        made = world.round()
        assert (released(made), drained(made)) == ({old: why}, {})

    def test_a_node_of_the_floor_stays_while_another_type_is_too_many(self) -> None:
        world = World(policy=policy(kind("a", min_workers=1), kind("b"), max_workers=1))
        floor = world.running("a", idle_s=900)
        world.running("b", used={"CPU": 1})
        made = world.round()
        assert drained(made) == {}
        assert made.kept[floor].why is Why.MIN_WORKERS

    def test_a_floor_by_hand_gives_way_to_the_maximum(self) -> None:
        world = World(policy=policy(max_workers=1), operator=OperatorSettings(floors={"cpu": 2}))
        for _ in range(2):
            world.running(idle_s=1)
        assert list(drained(world.round()).values()) == [Why.OVER_MAX]


class TestDrift:
    def drift(self, world: World, one: str) -> None:
        world.intents[one] = replace(world.intents[one], shape_id="older")

    def test_an_idle_node_goes_even_below_the_minimum_and_is_replaced(self) -> None:
        world = World(policy=policy(kind(min_workers=1)))
        one = world.running(idle_s=1)
        self.drift(world, one)
        assert drained(world.round()) == {one: Why.DRIFT}
        world.change_node(one, status=NodeStatus.DEAD)
        made = world.round()
        assert released(made) == {one: Why.DRAINED}
        assert launched(made) == {"cpu": 1}

    def test_a_busy_one_stays(self) -> None:
        world = World()
        self.drift(world, world.running(used={"CPU": 1}))
        assert world.rounds(3).actions == ()

    def test_one_on_its_way_goes_at_once(self) -> None:
        world = World(demands=(demand(1),))
        one = world.coming()
        self.drift(world, one)
        made = world.round()
        assert released(made) == {one: Why.DRIFT}
        assert launched(made) == {"cpu": 1}

    def test_a_type_that_is_no_longer_in_the_file(self) -> None:
        world = World()
        one = world.running("old", idle_s=1)
        assert drained(world.round()) == {one: Why.DRIFT}


class TestRemoved:
    def removed(self, *, deadline_s: float | None = None, used: bool = False) -> tuple[World, str]:
        world = World()
        one = world.running(used={"CPU": 4} if used else None, idle_s=1)
        until_s = world.now_s + deadline_s if deadline_s is not None else None
        world.operator = OperatorSettings(removals={one: until_s})
        return world, one

    def test_when_idle(self) -> None:
        world, one = self.removed()
        made = world.round()
        assert {d.drain_reason for d in drains(made)} <= {DrainReason.IDLE}
        assert one in {**drained(made), **drained(world.round()), **drained(world.round())}

    def test_a_busy_one_without_a_deadline_is_waited_for(self) -> None:
        world, _ = self.removed(used=True)
        assert world.rounds(4).actions == ()

    def test_with_a_deadline_it_is_announced_as_a_preemption(self) -> None:
        world, one = self.removed(deadline_s=30, used=True)
        (drain,) = drains(world.round())
        assert (drain.instance_id, drain.drain_reason) == (one, DrainReason.PREEMPTION)
        assert drain.deadline_s == world.now_s + 29
        world.change_node(one, status=NodeStatus.DRAINING)
        assert world.round().actions == ()

    def test_after_its_deadline_it_is_released_busy_or_not(self) -> None:
        world, one = self.removed(deadline_s=30, used=True)
        world.change_node(one, status=NodeStatus.DRAINING)
        assert released(world.round(31)) == {one: Why.REMOVED_BY_HAND}

    @pytest.mark.parametrize(
        ("state", "deadline_s", "says"),
        [
            ("idle", None, "removed by hand and idle; Ray is asked"),
            ("idle just now", None, "removed by hand, idle just now"),
            ("idle, and others drain", None, "was removed by hand and is idle"),
            ("works", None, "removed by hand; it works, and goes when it is idle"),
            ("drains", None, "removed by hand, and drains"),
            ("idle", 30, "to be gone in 29 s"),
            ("drains", 30, "removed by hand, to be gone in 29 s; it drains"),
            ("idle", 0, "its deadline is over"),
            ("idle, and its backend is silent", 0, "its deadline is over; it is released when fake answers"),
            ("drains, and its backend is silent", 0, "it is released when fake answers"),
        ],
    )
    def test_in_every_round_it_goes_or_says_what_it_waits_for(
        self, state: str, deadline_s: float | None, says: str
    ) -> None:
        world, one = self.removed(deadline_s=deadline_s, used=state == "works")
        if "others drain" in state:
            world.policy = policy(max_draining=(DrainLimit(1),))
            world.change_node(world.running(), status=NodeStatus.DRAINING)
        if state.startswith("drains"):
            world.change_node(one, status=NodeStatus.DRAINING)
        if "silent" in state:
            world.silent = {"fake": "timed out"}
        if state == "idle just now":
            world.history = replace(world.history, reports={})
        texts = []
        for _ in range(4):
            made = world.round()
            texts += [made.kept[one].text] if one in made.kept else []
            texts += [action.reason.text for action in made.actions]
            assert one in {**released(made), **drained(made), **made.kept}
        assert any(says in text for text in texts)

    def test_paused_it_says_so(self) -> None:
        world, one = self.removed(deadline_s=0)
        coming = world.coming()
        world.operator = replace(world.operator, paused=True)
        made = world.rounds(4)
        assert made.actions == ()
        assert {key: made.kept[key].text for key in (one, coming)} == dict.fromkeys(
            (one, coming), "the cluster is paused"
        )

    def test_it_is_no_room_any_more(self) -> None:
        world, _ = self.removed()
        world.demands = (demand(1),)
        assert launched(world.round()) == {"cpu": 1}

    def test_before_it_came_up(self) -> None:
        world = World(demands=(demand(1),))
        one = world.coming()
        world.operator = OperatorSettings(removals={one: None})
        assert released(world.round()) == {one: Why.REMOVED_BY_HAND}


class TestNotNeeded:
    def test_not_at_once_and_then_with_words(self) -> None:
        world = World()
        one = world.coming()
        made = world.round()
        assert released(made) == {}
        assert made.kept[one].text == "nothing needs it; given back in 2 s if that stays so"
        assert released(world.round(VANISHED_S - 0.1)) == {}
        made = world.round(0.1)
        assert released(made) == {one: Why.NOT_NEEDED}
        assert made.target == {"cpu": 0}

    def test_demand_that_comes_back_keeps_it(self) -> None:
        world = World()
        world.coming()
        world.round()
        world.demands = (demand(1),)
        world.round()
        world.demands = ()
        assert released(world.round(VANISHED_S)) == {}

    def test_queued_ones_before_starting_ones(self) -> None:
        world = World(demands=(demand(4),))
        world.coming(state=BackendState.STARTING, ago_s=100)
        queued = world.coming(ago_s=200)
        world.round()
        assert released(world.round(VANISHED_S)) == {queued: Why.NOT_NEEDED}

    def test_the_floor_stays(self) -> None:
        world = World(policy=policy(kind(min_workers=1)))
        world.coming(ago_s=200)
        late = world.coming(ago_s=100)
        world.round()
        assert released(world.round(VANISHED_S)) == {late: Why.NOT_NEEDED}

    def test_not_while_the_backend_is_silent(self) -> None:
        world = World()
        world.coming()
        world.round()
        world.silent = {"fake": "timed out"}
        assert world.round(60).actions == ()
