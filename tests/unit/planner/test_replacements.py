"""What ends is replaced ahead; the replacement is kept until it is needed, and given back when it is not."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from heliostat.model.history import Backoff, History
from heliostat.model.instance import BackendState, NodeStatus, Offer
from heliostat.model.plan import Drain, Plan, Why
from heliostat.model.snapshot import OperatorSettings
from heliostat.planner.limits import LEASE_GRACE_S, RETRY_S
from tests.examples import many
from tests.unit.planner.test_drift import changed, up
from tests.unit.planner.test_replacing import ending
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
from tests.unit.planner.worlds import alive, worlds


class TestAhead:
    def test_a_busy_node_is_replaced_before_it_ends_with_words_and_data(self) -> None:
        world = World()
        one = ending(world, used={"CPU": 3})
        (launch,) = launches(world.round())
        assert (launch.node_type, launch.count, launch.reason.why) == ("cpu", 1, Why.REPLACEMENT)
        assert launch.reason.text == "the lease of w1 ends in 99 s, and nothing free holds its work"
        assert launch.reason.data["replaces"] == [one]

    def test_a_preempted_one_too(self) -> None:
        world = World()
        one = world.running(used={"CPU": 3})
        world.change_node(one, status=NodeStatus.DRAINING)
        (launch,) = launches(world.round())
        assert launch.reason.text == "w1 drains while it works, and nothing free holds its work"

    def test_one_for_each_node_at_most(self) -> None:
        world = World(policy=policy(kind("cpu", 4), kind("tiny", 1, priority=9)))
        for used in (1, 4, 4):
            ending(world, used={"CPU": used})
        made = world.round()
        assert sum(launched(made).values()) == 3

    def test_of_its_own_type_first_because_its_work_fits_there(self) -> None:
        world = World(policy=policy(kind("cheap"), kind("dear", price_usd_per_h=5.0)))
        ending(world, "dear", used={"CPU": 3})
        assert launched(world.round()) == {"dear": 1}

    def test_of_another_where_its_own_is_held_back(self) -> None:
        world = World(policy=policy(kind("a", max_workers=1), kind("b")))
        ending(world, "a", used={"CPU": 3})
        assert launched(world.round()) == {"b": 1}

    def test_of_none_where_there_is_room(self) -> None:
        world = World()
        one = ending(world, used={"CPU": 3})
        free = world.running(idle_s=900)
        made = world.round()
        assert (launched(made), drained(made)) == ({}, {one: Why.LEASE_ENDS})
        assert made.kept[free].why is Why.REPLACEMENT
        assert made.kept[free].text == "what works on w1 fits here, and has to leave there"

    def test_demand_comes_first_to_what_is_free(self) -> None:
        world = World(demands=(demand(4),))
        ending(world, used={"CPU": 3})
        world.running()
        assert [one.reason.why for one in launches(world.round())] == [Why.REPLACEMENT]

    def test_a_node_that_demand_brings_is_room_for_it(self) -> None:
        world = World(demands=(demand(1),))
        ending(world, used={"CPU": 3})
        made = world.round()
        assert launched(made) == {"cpu": 1}
        assert launches(made)[0].reason.why is Why.DEMAND

    def test_a_node_for_the_floor_is_room_for_it(self) -> None:
        world = World(policy=policy(kind(min_workers=1)))
        ending(world, used={"CPU": 3})
        assert launched(world.round()) == {"cpu": 1}

    def test_a_node_that_a_constraint_brings_is_room_for_it(self) -> None:
        world = World(constraint=(demand(4),))
        ending(world, used={"CPU": 3})
        assert launched(world.round()) == {"cpu": 1}

    def test_within_the_maximum_and_said_to_wait(self) -> None:
        world = World(policy=policy(kind(max_workers=1)))
        ending(world, used={"CPU": 3})
        made = world.round()
        assert (launched(made), limiters(made)) == ({}, ["TYPE_MAX_WORKERS"])
        world.policy = replace(world.policy, max_surge=1)
        assert launched(world.round()) == {"cpu": 1}

    def test_within_upscaling_speed_and_after_demand(self) -> None:
        world = World(policy=policy(kind(max_workers=99), upscaling_speed=1.0, max_workers=99))
        for _ in range(4):
            ending(world, used={"CPU": 4})
        world.demands = (demand(3, CPU=4),)
        made = world.round()
        assert [(one.count, one.reason.why) for one in launches(made)] == [
            (3, Why.DEMAND),
            (2, Why.REPLACEMENT),
        ]

    def test_a_type_that_never_came_up_is_tried_a_few_at_a_time(self) -> None:
        world = World()
        for _ in range(5):
            ending(world, "gone", used={"CPU": 4})
        world.history = replace(world.history, proven={})
        assert launched(world.round()) == {"cpu": 3}
        assert world.history.failures == History().failures


class TestKept:
    def test_what_replaces_is_not_given_back_while_the_old_one_works(self) -> None:
        world = World()
        one = ending(world, used={"CPU": 3})
        world.obey(world.round())
        for _ in range(8):
            made = world.round()
            assert (launched(made), released(made)) == ({}, {})
        world.change_node(one, status=NodeStatus.DRAINING)
        world.round()
        world.give_up(one)
        for _ in range(8):
            assert (launched(world.round()), released(world.round())) == ({}, {})

    def test_once_up_it_stays_past_its_idle_timeout(self) -> None:
        world = World(policy=policy(kind(idle_timeout_s=1.0)))
        ending(world, used={"CPU": 3})
        world.obey(world.round())
        up(world)
        for _ in range(5):
            made = world.round()
            assert set(drained(made).values()) <= {Why.LEASE_ENDS}
        assert [one.why for one in made.kept.values()] == [Why.REPLACEMENT]

    def test_it_is_given_back_when_the_work_is_done(self) -> None:
        world = World()
        ending(world, used={"CPU": 3})
        world.obey(world.round())
        world.finish_work()
        world.rounds(2)
        assert set(released(world.round()).values()) == {Why.NOT_NEEDED}

    def test_and_the_work_goes_there_when_it_is_demand_again(self) -> None:
        world = World()
        one = ending(world, used={"CPU": 3})
        world.obey(world.round())
        world.change_node(one, status=NodeStatus.DEAD)
        world.demands = (demand(1, CPU=3),)
        for _ in range(5):
            made = world.round()
            assert (launched(made), set(released(made)) - {one}) == ({}, set())


class TestNewOnesFirst:
    """`max_surge` is above 0: there is room for a new one beside the old."""

    def rolling(self, **changes: object) -> tuple[World, list[str]]:
        world = World(policy=policy(kind(min_workers=2, max_workers=2), max_workers=2, max_surge=1))
        several = [world.running(idle_s=100 - index) for index in range(2)]
        changed(world, **changes)
        return world, several

    def test_the_floor_is_never_below_its_minimum(self) -> None:
        world, several = self.rolling()
        fewest, most, new = 2, 2, 0
        for _ in range(40):
            made = world.round()
            new += sum(launched(made).values())
            assert set(released(made)) <= set(several)
            assert made.target == {"cpu": 2}
            world.obey(made)
            world.tick(places=False)
            nodes = [node for node in world.nodes.values() if node.status is not NodeStatus.DEAD]
            fewest, most = min(fewest, len(nodes)), max(most, len(world.intents))
        assert (fewest, most, new) == (2, 3, 2)
        assert {one.shape_id for one in world.intents.values()} == {"shape-cpu-new"}

    def test_the_words(self) -> None:
        world, several = self.rolling()
        made = world.round()
        (launch,) = launches(made)
        assert launch.reason.text == "min_workers of cpu is 2, 1 are there, and 1 of an old shape"
        assert made.kept[several[0]].text.endswith("goes when a new one is up")
        assert made.target == {"cpu": 2}

    def test_a_busy_old_one_is_replaced_too_and_what_came_is_kept(self) -> None:
        world, several = self.rolling()
        for one in several:
            world.change_node(one, status=NodeStatus.RUNNING, available=kind().resources)
        made = world.round()
        assert launched(made) == {"cpu": 1}
        world.obey(made)
        for _ in range(6):
            made = world.round()
            assert (launched(made), released(made)) == ({}, {})

    def test_a_protected_old_one_counts_as_before(self) -> None:
        world = World(policy=policy(kind(min_workers=1), max_surge=1))
        world.operator = OperatorSettings(protected=frozenset({world.running(idle_s=100)}))
        changed(world)
        assert world.round().actions == ()

    def test_a_constraint_is_held_throughout(self) -> None:
        world = World(policy=policy(max_surge=1), constraint=(demand(8),))
        several = [world.running(idle_s=100 - index) for index in range(2)]
        changed(world)
        for _ in range(40):
            made = world.round()
            assert set(released(made)) <= set(several)
            world.obey(made)
            world.tick(places=False)
            nodes = [node for node in world.nodes.values() if node.status is not NodeStatus.DEAD]
            assert len(nodes) >= 2
        assert {one.shape_id for one in world.intents.values()} == {"shape-cpu-new"}

    def test_where_no_new_one_can_be_had_the_old_one_goes_first_after_all(self) -> None:
        world, several = self.rolling()
        world.offers = (Offer("cpu", count=0, why="no GPU is left"),)
        made = world.round()
        assert drained(made) == {several[0]: Why.DRIFT}

    def test_but_not_where_the_new_shape_fails(self) -> None:
        world, _ = self.rolling()
        world.history = replace(world.history, backoff={"cpu": Backoff(3, world.now_s + 500, "no image")})
        for _ in range(5):
            assert drained(world.round()) == {}

    def test_nor_where_a_constraint_needs_it(self) -> None:
        world = World(policy=policy(max_surge=1), constraint=(demand(4),))
        world.running(idle_s=100)
        changed(world)
        world.history = replace(world.history, backoff={"cpu": Backoff(3, world.now_s + 500, "no image")})
        for _ in range(5):
            assert drained(world.round()) == {}


def test_a_queue_of_hours_makes_no_chain_of_replacements() -> None:
    """Each lease is half work at least, so what comes for an ending node is not itself as good as gone."""
    world = World()
    world.history = replace(world.history, start_s={"cpu": (9000.0,)})
    one = ending(world, used={"CPU": 3})
    world.obey(world.round())
    new = next(each for each in world.intents if each != one)
    world.change_row(new, state=BackendState.STARTING, expires_at_s=world.now_s + 60)
    for _ in range(3):
        assert launched(world.round()) == {}


@st.composite
def ending_worlds(draw: st.DrawFn) -> World:
    """Draw a world in which some nodes have drifted, some have a lease, and some both."""
    world = draw(worlds(asks_for_gangs=False))
    for one in list(world.nodes.values()):
        if draw(st.booleans()):
            world.intents[one.instance_id] = replace(world.intents[one.instance_id], shape_id="old")
        left_s = draw(st.sampled_from([None, 3, 20, 130]))
        if left_s is not None:
            world.change_row(one.instance_id, expires_at_s=world.now_s + left_s)
    world.policy = replace(world.policy, max_surge=draw(st.integers(0, 2)))
    return world


def obey(world: World, made: Plan) -> set[str]:
    """Do as the plan says; what works and is told drains. Return who was released at work."""
    told = {one.instance_id for one in made.actions if isinstance(one, Drain) and world.work.get(one.node_id)}
    at_work = {one for one in released(made) if world.work.get(f"n-{one}")}
    for one in at_work:
        world.demands += tuple(demand(1, **b.resources.units()) for b in world.work.pop(f"n-{one}"))
    world.obey(made)
    for one in told:
        world.change_node(one, status=NodeStatus.DRAINING)
    return at_work


@many(60)
@given(ending_worlds(), st.booleans())
def test_never_above_a_maximum_and_its_surge_and_no_work_ends_untold(world: World, places: bool) -> None:
    ends = {one: row.expires_at_s for one, row in world.rows.items() if row.expires_at_s is not None}
    before = alive(world)
    for _ in range(25):
        was_told = {one.instance_id for one in world.nodes.values() if one.status is NodeStatus.DRAINING}
        made = world.round(2)
        at_work = obey(world, made)
        assert at_work <= was_told & ends.keys()
        for name, count in alive(world).items():
            node_type = world.policy.node_type(name)
            assert node_type is not None
            assert count <= max(before[name], node_type.max_workers + world.policy.max_surge)
        assert sum(alive(world).values()) <= max(
            sum(before.values()), world.policy.max_workers + world.policy.max_surge
        )
        world.tick(places=places)


def test_what_was_started_for_it_stays_until_ray_shows_the_work_again() -> None:
    """Between the end of the one and the demand for its work Ray shows neither."""
    world = World()
    one = ending(world, used={"CPU": 3})
    free = world.running(idle_s=900)
    world.round()
    world.change_node(one, status=NodeStatus.DEAD)
    world.change_row(one, state=BackendState.STOPPING, expires_at_s=world.now_s + LEASE_GRACE_S - 1)
    made = world.round()
    assert (drained(made), made.kept[free].why) == ({}, Why.REPLACEMENT)
    assert free in drained(world.round(RETRY_S))
