"""What the history remembers, and what it forgets."""

from __future__ import annotations

from dataclasses import replace

from heliostat.model.demand import GangStrategy
from heliostat.model.history import FAILURES_KEPT, STARTS_KEPT, Backoff, History
from heliostat.model.instance import BackendState, Offer
from heliostat.model.resources import Resources
from heliostat.planner import fold
from heliostat.planner.limits import WAITING_KEPT
from heliostat.planner.wants import key_of
from tests.unit.planner.world import World, demand, gang, kind, launched, policy


def test_demand_keeps_its_age_whatever_its_count_and_loses_it_when_it_is_gone() -> None:
    world = World(demands=(demand(3),))
    world.round()
    since_s = world.now_s
    world.demands = (demand(1), demand(2, GPU=1))
    world.round()
    assert world.history.waiting_since == {"{CPU: 1}": since_s, "{GPU: 1}": world.now_s}
    world.demands = ()
    world.round()
    assert world.history.waiting_since == {}


def test_what_waits_since_a_time_to_come_waits_from_now_on() -> None:
    """A controller that finds nothing left to run begins with the host's clock, which was set back."""
    world = World(demands=(demand(1),), gangs=(gang(GangStrategy.SPREAD, demand(2)),))
    world.round()
    world.round(-3600.0)
    since_s = world.now_s
    assert set(world.history.waiting_since.values()) == {since_s}
    world.round()
    assert set(world.history.waiting_since.values()) == {since_s}


def test_idle_time_is_not_counted_over_a_clock_that_begins_anew() -> None:
    world = World()
    world.foreign(CPU=4)
    world.rounds(3)
    world.round(-3600.0)
    assert (world.history.idle_since, world.history.reports) == ({"foreign-0": world.now_s}, {"foreign-0": 1})


def test_a_gang_is_remembered_under_its_key_whatever_part_of_it_waits() -> None:
    world = World(gangs=(gang(GangStrategy.SPREAD, demand(4)),))
    world.round()
    since_s = world.now_s
    other = gang(GangStrategy.SPREAD, demand(4), name="b")
    for part in (demand(3), demand(1)):
        left = gang(GangStrategy.SPREAD, part)
        world.gangs = (other, left)
        world.round()
        assert world.history.waiting_since[key_of(left)] == since_s
    assert world.history.waiting_since[key_of(other)] == since_s + 1
    world.gangs = (other,)
    world.round()
    world.gangs = (gang(GangStrategy.SPREAD, demand(4)),)
    world.round()
    assert set(world.history.waiting_since.values()) == {world.now_s}


def test_what_is_asked_to_keep_waits_while_living_nodes_lack_it() -> None:
    world = World(constraint=(demand(4), demand(1, CPU=2)))
    world.round()
    since_s = world.now_s
    world.round()
    assert world.history.waiting_since == {"{CPU: 1}": since_s, "{CPU: 2}": since_s}
    world.running(used={"CPU": 4})
    world.round()
    assert list(world.history.waiting_since.values()) == [since_s]
    world.foreign(CPU=4, used={"CPU": 4})
    world.round()
    assert world.history.waiting_since == {}
    world.demands = (demand(1),)
    world.rounds(2)
    assert world.history.waiting_since == {"{CPU: 1}": world.now_s - 1}


def test_prices_are_the_last_known_ones_of_what_costs_anything() -> None:
    free, paid = kind("free"), kind("paid", price_usd_per_h=2.0)
    world = World(policy=policy(free, paid))
    world.round()
    assert world.history.prices == {"paid": 2.0}
    world.policy = policy(free, replace(paid, price_usd_per_h=0.0))
    world.offers = (Offer("free", price_usd_per_h=3.0),)
    world.round()
    assert world.history.prices == {"free": 3.0}


def test_no_more_ages_than_the_limit_the_oldest_first() -> None:
    world = World(demands=(demand(1, CPU=3),))
    world.round()
    shapes = tuple(demand(1, x=1 + n) for n in range(WAITING_KEPT + 5))
    world.demands = (*shapes, demand(1, CPU=3))
    history = fold(world.history, replace(world.snapshot(), now_s=world.now_s + 1), world.policy)
    assert len(history.waiting_since) == WAITING_KEPT
    assert "{CPU: 3}" in history.waiting_since


def test_a_join_is_a_success_forgives_failures_and_tells_how_long_it_took() -> None:
    world = World(demands=(demand(4),))
    one = world.coming(state=BackendState.RUNNING, ago_s=7)
    world.history = History(backoff={"cpu": Backoff(3, 0.0, "x")})
    world.round()
    assert world.history.proven == {}
    world.join(one, Resources())
    world.round()
    assert world.history.proven == {"cpu": "shape-cpu"}
    assert world.history.backoff == {}
    assert world.history.start_s == {"cpu": (9.0,)}
    assert world.history.joined_at == {one: world.now_s}


def test_start_times_and_failures_are_kept_up_to_a_limit() -> None:
    world = World()
    for _ in range(STARTS_KEPT + 3):
        one = world.coming(state=BackendState.RUNNING, ago_s=1)
        world.round()
        world.join(one, Resources.of({"CPU": 4}))
        world.round()
    assert len(world.history.start_s["cpu"]) == STARTS_KEPT
    for _ in range(FAILURES_KEPT + 5):
        one = world.coming(ago_s=0)
        world.change_row(one, state=BackendState.FAILED)
    world.round()
    assert len(world.history.failures) == FAILURES_KEPT


def test_a_failure_is_told_once() -> None:
    world = World()
    one = world.coming(ago_s=1)
    world.change_row(one, state=BackendState.FAILED)
    world.rounds(3)
    assert len(world.history.failures) == 1
    assert world.history.backoff["cpu"].failures == 1


def test_backoff_grows_from_one_attempt_to_the_next() -> None:
    world = World(demands=(demand(1),))
    waits = []
    for _ in range(4):
        made = world.round()
        while not launched(made):
            made = world.round()
        world.obey(made)
        (one,) = world.rows
        world.change_row(one, state=BackendState.FAILED, detail="broken")
        world.obey(world.round())
        waits.append(world.history.backoff["cpu"].until_s - world.now_s)
    assert [wait // nominal for wait, nominal in zip(waits, (5, 10, 20, 40), strict=True)] == [1, 1, 1, 1]
    assert len({wait / nominal for wait, nominal in zip(waits, (5, 10, 20, 40), strict=True)}) == 4


def test_what_is_no_longer_among_intents_or_types_is_forgotten() -> None:
    world = World()
    one = world.running(idle_s=5)
    world.coming()
    world.round()
    world.history = replace(world.history, backoff={"old": Backoff(1, 9e9, "x")})
    world.intents.clear()
    world.rows.clear()
    world.nodes.clear()
    world.policy = replace(world.policy, node_types=(kind("new"),))
    world.round()
    left = replace(world.history, rounds_at_s=None)
    assert left == History(), one


def test_without_ray_what_only_ray_can_tell_stays() -> None:
    world = World(demands=(demand(1),))
    world.running(idle_s=5)
    world.round()
    before = world.history
    world.ray_answers = False
    world.round()
    after = world.history
    assert (after.waiting_since, after.idle_since, after.reports, after.rounds_at_s) == (
        before.waiting_since,
        before.idle_since,
        before.reports,
        before.rounds_at_s,
    )
