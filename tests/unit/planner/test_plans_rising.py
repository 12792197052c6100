"""Plans followed for many rounds, while instances rise in any order, one by one, and limits bind."""

from __future__ import annotations

from random import Random

from heliostat.model.demand import Demand
from heliostat.model.plan import Limiter, Plan
from tests.examples import each_seed
from tests.unit.planner.world import World, drained, launched, launches, released
from tests.unit.planner.worlds import (
    claims_fit,
    constraint_fits,
    over_a_limit,
    refused_by,
    with_constraint,
    with_strangers,
    with_time,
    world_of,
)

ROUNDS = 18
QUIET = 6
"""Rounds at the end in which all has settled, but for what a throttle lets through a few at a time."""

THROTTLES = {Limiter.UPSCALING_SPEED, Limiter.FIRST_SUCCESS, Limiter.CAPACITY}


def rise(world: World, chance: Random) -> None:
    for _ in range(chance.randint(0, 4)):
        world.step(chance)


def throttled(made: Plan) -> bool:
    return any(one.limiter in THROTTLES for one in made.deferred)


def gangs_across(world: World, made: Plan) -> list[object]:
    """Return the gangs that get new nodes of several backends at once."""
    backends: dict[object, set[str]] = {}
    for one in launches(made):
        node_type = world.policy.node_type(one.node_type)
        assert node_type is not None
        backends.setdefault(one.reason.data.get("gang"), set()).add(node_type.backend)
    return [gang for gang, found in backends.items() if gang is not None and len(found) > 1]


def lacking(made: Plan) -> int:
    return sum(one.count if isinstance(one, Demand) else 1 for one in refused_by(made))


def follow(world: World, chance: Random) -> None:
    """Do as the plans say, and see that each goes towards the target and keeps to its word.

    What was launched here goes again only if it is not up yet, nothing lacks for it (its work has found room
    that is there sooner), and no more of its type is ever launched.
    """
    before, opens = set(world.intents), False
    given_back: set[str] = set()
    least = lacking(world.round(0))
    for index in range(ROUNDS):
        made = world.round()
        assert over_a_limit(world, made) == []
        again = set(released(made)) - before
        assert not {*drained(made)} - before, "what was launched here goes again"
        assert not {one for one in again if f"n-{one}" in world.nodes}, "what is up goes again"
        assert not again or lacking(made) <= least, "what was launched here goes again, and is needed"
        given_back |= {world.intents[one].node_type for one in again}
        assert not given_back & set(launched(made)), "what was given back is launched again"
        least = lacking(made)
        assert claims_fit(world, made)
        assert constraint_fits(world, made)
        assert world.policy.gangs_across_backends or not gangs_across(world, made)
        if index >= ROUNDS - QUIET and not opens:
            assert launched(made) == {}
        opens = throttled(made)
        world.obey(made)
        rise(world, chance)


@each_seed(150)
def test_nothing_is_given_back_in_whatever_order_nodes_come_up(seed: int) -> None:
    chance = Random(seed)
    follow(with_strangers(world_of(chance, asks_for_gangs=False), chance), chance)


@each_seed(150)
def test_nor_where_gangs_wait(seed: int) -> None:
    chance = Random(seed)
    follow(world_of(chance), chance)


@each_seed(100)
def test_nor_where_capacity_is_to_be_kept(seed: int) -> None:
    chance = Random(seed)
    follow(with_constraint(world_of(chance), chance), chance)


@each_seed(100)
def test_it_settles_and_keeps_limits_whatever_backends_promise(seed: int) -> None:
    """Where types are late, what was asked for twice may be given back; and then there is an end of it."""
    chance = Random(seed)
    world = with_time(world_of(chance), chance)
    opens = False
    for index in range(2 * ROUNDS):
        made = world.round(8)
        assert over_a_limit(world, made) == []
        assert claims_fit(world, made)
        if index >= 2 * ROUNDS - QUIET:
            assert released(made) == {}
            assert opens or launched(made) == {}
        opens = throttled(made)
        world.obey(made)
        rise(world, chance)


@each_seed(100)
def test_all_work_gets_its_place_unless_a_limit_is_named_and_then_all_goes(seed: int) -> None:
    """Ray places what it can between the rounds; with gangs, shares of GPUs and labels."""
    chance = Random(seed)
    world = world_of(chance, floors=False)
    for _ in range(2 * ROUNDS):
        made = world.round()
        assert over_a_limit(world, made) == []
        world.obey(made)
        rise(world, chance)
        if chance.random() < 0.5:
            world.place()
    refused = refused_by(world.round())
    bundles = {one.bundle for one in refused if isinstance(one, Demand)}
    assert {one.bundle for one in world.demands} <= bundles
    assert {one for one in world.gangs if one not in refused} == set()
    world.demands, world.gangs = (), ()
    world.finish_work()
    for _ in range(20):
        world.obey(world.round(9))
        world.tick(places=True)
    assert world.intents == {}
