"""When demand goes: in which order things go, what never goes, and what keeps everything that is idle."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace

import pytest

from heliostat.model.demand import GangStrategy
from heliostat.model.drain_limit import DrainLimit
from heliostat.model.instance import BackendState, NodeStatus
from heliostat.model.plan import Launch, Release, Why
from heliostat.model.snapshot import OperatorSettings
from heliostat.planner.limits import VANISHED_S
from heliostat.planner.scale_down import needless
from heliostat.planner.settle import settle
from tests.unit.planner.scenes import apply, newer, scene_of
from tests.unit.planner.world import (
    NOW_S,
    World,
    bundle,
    demand,
    drained,
    drains,
    gang,
    kind,
    launched,
    policy,
    released,
)

CHEAP, DEAR = kind("cheap", price_usd_per_h=1.0), kind("dear", price_usd_per_h=2.0)


def given_back(world: World) -> list[str]:
    """Return what is given back, in the plan's order, once it has been needless for long enough."""
    world.round()
    made = world.round(VANISHED_S)
    return [one.instance_id for one in made.actions if isinstance(one, Release)]


class TestOrder:
    def test_queued_then_starting_and_of_each_the_dearest_first(self) -> None:
        world = World(policy=policy(CHEAP, DEAR))
        late = {
            (name, state): world.coming(name, state, ago_s=ago_s)
            for ago_s, (name, state) in enumerate(
                (name, state)
                for name in ("cheap", "dear")
                for state in (BackendState.STARTING, BackendState.QUEUED)
            )
        }
        earlier = world.coming("cheap", BackendState.QUEUED, ago_s=900)
        assert given_back(world) == [
            late["dear", BackendState.QUEUED],
            late["cheap", BackendState.QUEUED],
            earlier,
            late["dear", BackendState.STARTING],
            late["cheap", BackendState.STARTING],
        ]

    def test_what_comes_goes_before_what_runs(self) -> None:
        world = World(policy=policy(kind(min_workers=1)))
        one = world.running(idle_s=900)
        coming = world.coming()
        world.round()
        made = world.round(VANISHED_S)
        assert (released(made), drained(made)) == ({coming: Why.NOT_NEEDED}, {})
        assert made.kept[one].why is Why.MIN_WORKERS

    def test_of_idle_nodes_the_dearest_and_then_the_longest_idle(self) -> None:
        world = World(policy=policy(CHEAP, DEAR))
        first = world.running("cheap", idle_s=900)
        second = world.running("dear", idle_s=100)
        third = world.running("dear", idle_s=200)
        assert [one.instance_id for one in drains(world.round())] == [third, second, first]

    def test_an_idle_node_past_its_timeout_and_not_before(self) -> None:
        world = World()
        early, late = world.running(idle_s=10), world.running(idle_s=900)
        made = world.round()
        assert drained(made) == {late: Why.IDLE}
        assert made.kept[early].why is Why.IDLE_TIMEOUT


class TestNever:
    @pytest.mark.parametrize("state", [BackendState.QUEUED, BackendState.STARTING])
    def test_below_the_minimum(self, state: BackendState) -> None:
        world = World(policy=policy(kind(min_workers=2)))
        several = [world.coming(state=state, ago_s=100 + index) for index in range(3)]
        assert given_back(world) == [several[0]]
        world = World(policy=policy(kind(min_workers=2)))
        for _ in range(3):
            world.running(idle_s=900)
        assert len(drained(world.round())) == 1

    def test_below_what_a_person_asked_for(self) -> None:
        world = World(operator=OperatorSettings(floors={"cpu": 1}))
        world.coming()
        assert given_back(world) == []

    def test_what_a_person_protects(self) -> None:
        world = World()
        coming, running = world.coming(), world.running(idle_s=900)
        world.operator = OperatorSettings(protected=frozenset({coming, running}))
        assert given_back(world) == []
        assert drained(world.round()) == {}

    def test_what_a_constraint_needs(self) -> None:
        world = World(constraint=(demand(8),))
        world.coming()
        one = world.running(idle_s=900)
        assert given_back(world) == []
        made = world.round()
        assert drained(made) == {}
        assert (made.kept[one].why, made.kept[one].text) == (
            Why.CONSTRAINT,
            "request_resources asks to keep it",
        )

    def test_what_a_gang_needs_while_the_rest_of_it_comes(self) -> None:
        wanted = gang(GangStrategy.STRICT_SPREAD, demand(2, CPU=4))
        world = World(gangs=(wanted,))
        coming, one = world.coming(), world.running(idle_s=900)
        assert given_back(world) == []
        made = world.round()
        assert (drained(made), launched(made)) == ({}, {})
        assert made.kept[one].why is Why.GANG
        assert made.kept[one].text == f"{wanted} waits and fits here"
        assert coming in world.intents

    def test_what_waits_for_an_ending_node_as_for_demand(self) -> None:
        """A planned use is all that counts here: whoever planned it."""
        world = World()
        coming = world.coming()
        scene = scene_of(world)
        assert [one.instance_id for one in needless(scene, settle(scene))] == [coming]
        world.demands = (demand(1),)
        scene = scene_of(world)
        assert needless(scene, settle(scene)) == ()


class TestSays:
    """Every node that does nothing says what keeps it, in words and as data."""

    def kept(self, world: World, one: str) -> tuple[Why, str, dict[str, object]]:
        reason = world.round().kept[one]
        return reason.why, reason.text, dict(reason.data)

    def test_ray_activity(self) -> None:
        world = World()
        one = world.running()
        world.change_node(one, status=NodeStatus.RUNNING, activity=("an actor lives here", "a task runs"))
        assert self.kept(world, one) == (
            Why.BUSY,
            "busy: an actor lives here, a task runs",
            {"activity": ["an actor lives here", "a task runs"]},
        )

    def test_the_minimum(self) -> None:
        world = World(policy=policy(kind(min_workers=1)))
        one = world.running(idle_s=900)
        assert self.kept(world, one) == (
            Why.MIN_WORKERS,
            "min_workers of cpu is 1",
            {"floor": 1, "count": 1},
        )

    def test_a_floor_by_hand(self) -> None:
        world = World(operator=OperatorSettings(floors={"cpu": 1}))
        one = world.running(idle_s=900)
        assert self.kept(world, one) == (
            Why.ADDED_BY_HAND,
            "1 of cpu were asked for by hand",
            {"floor": 1, "count": 1},
        )

    def test_a_constraint(self) -> None:
        world = World(constraint=(demand(1, CPU=2),))
        one = world.running(idle_s=900)
        assert self.kept(world, one)[2] == {"wanted": "{CPU: 2}"}

    def test_protection(self) -> None:
        world = World()
        one = world.running(idle_s=900)
        world.operator = OperatorSettings(protected=frozenset({one}))
        assert self.kept(world, one)[:2] == (Why.PROTECTED, "protected by hand")

    def test_demand(self) -> None:
        world = World(demands=(demand(1, CPU=2),))
        one = world.running(idle_s=900)
        assert self.kept(world, one) == (
            Why.DEMAND,
            "{CPU: 2} waits and fits here",
            {"wanted": str(bundle(CPU=2))},
        )

    def test_its_timeout(self) -> None:
        world = World()
        one = world.running(idle_s=9)
        why, _, data = self.kept(world, one)
        assert (why, data) == (Why.IDLE_TIMEOUT, {"idle_s": 9.0, "timeout_s": 60.0, "left_s": 51.0})

    def test_all_of_them_do(self) -> None:
        world = World(
            policy=policy(kind(min_workers=1), max_draining=(DrainLimit(1),)), demands=(demand(1, CPU=4),)
        )
        several = [world.running(idle_s=idle_s) for idle_s in (0, 900, 10, 900, 20, 900)]
        for _ in range(3):
            made = world.round()
            assert set(made.kept) | set(drained(made)) == set(several)


def nothing(world: World, one: str) -> None:
    pass


def first_report(world: World, one: str) -> None:
    world.history = replace(world.history, reports={})


def ends(world: World, one: str) -> None:
    world.change_row(one, expires_at_s=NOW_S + 100)


def told_and_over(world: World, one: str) -> None:
    world.change_row(one, expires_at_s=NOW_S + 6)
    world.change_node(one, status=NodeStatus.DRAINING)


def drifts(world: World, one: str) -> None:
    apply(world, replace(world.policy, node_types=(newer(world.policy.node_types[0]),)))


def drifts_beside_a_new_one(world: World, one: str) -> None:
    drifts(world, one)
    world.policy = replace(world.policy, max_surge=1)


def drifts_while_others_drain(world: World, one: str) -> None:
    drifts(world, one)
    world.policy = replace(world.policy, max_draining=(DrainLimit(0),))


def leaves_the_file(world: World, one: str) -> None:
    apply(world, policy(kind("other")))


def too_many(world: World, one: str) -> None:
    world.policy = replace(world.policy, max_workers=0)


def protected(world: World, one: str) -> None:
    world.operator = OperatorSettings(protected=frozenset({one}))


def removed(world: World, one: str) -> None:
    world.operator = OperatorSettings(removals={one: None})


def removed_soon(world: World, one: str) -> None:
    world.operator = OperatorSettings(removals={one: NOW_S + 31})


def removed_by_now(world: World, one: str) -> None:
    world.operator = OperatorSettings(removals={one: NOW_S})


SHAPES = {"shape": "shape-cpu", "shape_now": "shape-cpu-new"}
ONE_TOO_MANY = {"excess": 0, "cluster_excess": 1}


@pytest.mark.parametrize("paused", [False, True])
@pytest.mark.parametrize(
    ("there", "change", "rounds", "why", "data"),
    [
        ("idle", nothing, 52, Why.IDLE, {"idle_s": 60.0, "timeout_s": 60.0}),
        ("idle", first_report, 1, Why.IDLE_TIMEOUT, {"reports": 1, "reports_wanted": 2}),
        ("idle", ends, 1, Why.LEASE_ENDS, {"left_s": 99.0}),
        ("idle", told_and_over, 1, Why.LEASE_ENDS, {"left_s": 5.0, "deadline_s": NOW_S - 4}),
        ("idle", drifts, 1, Why.DRIFT, SHAPES),
        ("floor", drifts_beside_a_new_one, 1, Why.DRIFT, SHAPES),
        ("idle", drifts_while_others_drain, 1, Why.IDLE, {**SHAPES, "max_draining": 0}),
        ("idle", leaves_the_file, 1, Why.DRIFT, {**SHAPES, "shape_now": None}),
        ("idle", too_many, 1, Why.OVER_MAX, ONE_TOO_MANY),
        ("idle", protected, 1, Why.PROTECTED, {"protected": True}),
        ("idle", removed, 1, Why.REMOVED_BY_HAND, {"idle_s": 9.0}),
        ("idle", removed_soon, 1, Why.REMOVED_BY_HAND, {"deadline_s": NOW_S + 31, "left_s": 30.0}),
        ("idle", removed_by_now, 1, Why.REMOVED_BY_HAND, {"deadline_s": NOW_S, "left_s": -1.0}),
        ("coming", nothing, 1, Why.NOT_NEEDED, {"needless_s": 0.0, "left_s": 2.0}),
        ("coming", nothing, 3, Why.NOT_NEEDED, {"needless_s": 2.0, "state": "queued"}),
        ("coming", drifts, 1, Why.DRIFT, SHAPES),
        ("coming", too_many, 1, Why.OVER_MAX, ONE_TOO_MANY),
        ("coming", removed_soon, 1, Why.REMOVED_BY_HAND, {"deadline_s": NOW_S + 31}),
    ],
)
def test_every_reason_to_go_or_stay_has_its_facts_as_data(
    there: str,
    change: Callable[[World, str], None],
    rounds: int,
    why: Why,
    data: dict[str, object],
    paused: bool,
) -> None:
    world = World(policy=policy(kind(min_workers=int(there == "floor"))))
    one = world.coming() if there == "coming" else world.running(idle_s=9)
    change(world, one)
    world.operator = replace(world.operator, paused=paused)
    made = world.rounds(rounds)
    goes = {action.instance_id: action.reason for action in made.actions if not isinstance(action, Launch)}
    reason = {**goes, **made.kept}[one]
    assert reason.why is why or (paused and reason.text == "the cluster is paused")
    assert json.loads(json.dumps(dict(reason.data))) == data
