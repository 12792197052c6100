"""`patience_s`: what comes too late gives way to what is there in time, and what queues is kept beside it."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heliostat.model.demand import GangStrategy
from heliostat.model.history import Backoff
from heliostat.model.instance import BackendState, Offer
from heliostat.model.node_type import NodeType
from heliostat.model.plan import Why
from heliostat.model.resources import NOTHING
from heliostat.planner.limits import VANISHED_S
from tests.examples import many
from tests.unit.planner.world import (
    NOW_S,
    World,
    demand,
    gang,
    kind,
    launched,
    limiters,
    policy,
    released,
)

PATIENCE_S = 600.0
HOURS_S = 4 * 3600.0
MINUTES_S = 120.0


def free(patience_s: float = PATIENCE_S, **changed: object) -> NodeType:
    return kind("free", backend="slurm", patience_s=patience_s, **changed)


def paid(**changed: object) -> NodeType:
    return kind("paid", backend="cloud", price_usd_per_h=2.0, **changed)


def world(*types: NodeType, ready_s: float | None = HOURS_S, tasks: int = 4) -> World:
    """A world in which an instance of the free type that is asked for now would be there in `ready_s`."""
    made = World(policy=policy(*(types or (free(), paid()))))
    if tasks:
        made.demands = (demand(tasks),)
    offers = [Offer("paid", ready_at_s=NOW_S + MINUTES_S)]
    if ready_s is not None:
        offers.append(Offer("free", ready_at_s=NOW_S + ready_s))
    made.offers = tuple(offers)
    return made


def queue(made: World, count: int = 1, *, in_s: float | None = HOURS_S) -> list[str]:
    """Put instances of the free type in the queue, expected to start in `in_s`."""
    found = [made.coming("free", ago_s=1) for _ in range(count)]
    for one in found:
        made.change_row(one, expected_start_s=None if in_s is None else made.now_s + in_s)
    return found


def go(made: World, rounds: int, *, after_s: float = 1.0) -> tuple[dict[str, int], dict[str, Why]]:
    """Obey so many rounds in which nothing comes up; return all that was launched and released."""
    new: dict[str, int] = {}
    gone: dict[str, Why] = {}
    for _ in range(rounds):
        plan = made.round(after_s)
        for name, count in launched(plan).items():
            new[name] = new.get(name, 0) + count
        gone |= released(plan)
        made.obey(plan)
    return new, gone


class TestWhatIsAskedFor:
    def test_the_paid_one_where_the_free_one_comes_too_late(self) -> None:
        assert launched(world().round()) == {"paid": 1}

    def test_the_free_one_without_patience_whenever_it_comes(self) -> None:
        assert launched(world(free(0.0), paid()).round()) == {"free": 1}

    @pytest.mark.parametrize(("ready_s", "name"), [(0, "free"), (601, "free"), (602, "paid")])
    def test_beyond_patience_and_not_before(self, ready_s: float, name: str) -> None:
        # The demand is first seen in the first round, a second after the world begins.
        assert launched(world(ready_s=ready_s).round()) == {name: 1}

    def test_a_forecast_of_the_past_is_now(self) -> None:
        assert launched(world(ready_s=-HOURS_S).round()) == {"free": 1}

    @pytest.mark.parametrize(
        ("took_s", "name"), [((30.0, 900.0, 590.0), "free"), ((30.0, 900.0, 610.0), "paid")]
    )
    def test_without_a_forecast_as_long_as_starts_took_so_far(
        self, took_s: tuple[float, ...], name: str
    ) -> None:
        made = world(ready_s=None)
        made.history = replace(made.history, start_s={"free": took_s})
        assert launched(made.round()) == {name: 1}

    def test_priority_goes_before_being_in_time(self) -> None:
        assert launched(world(free(priority=1), paid()).round()) == {"free": 1}
        assert launched(world(free(), paid(priority=1), ready_s=0).round()) == {"paid": 1}

    def test_a_preferred_label_goes_before_it_too(self) -> None:
        made = world(free(labels={"zone": "a"}), paid(labels={"zone": "b"}))
        made.demands = (demand(1, "zone=a|zone=b"),)
        assert launched(made.round()) == {"free": 1}

    def test_where_everything_is_late_the_cheapest(self) -> None:
        made = world(free(), paid(patience_s=10.0))
        assert launched(made.round()) == {"free": 1}

    def test_what_only_the_late_type_can_hold_waits_for_it(self) -> None:
        made = world(free(cpus=16), paid(), tasks=0)
        made.demands = (demand(1, CPU=8),)
        assert launched(made.round()) == {"free": 1}

    def test_the_late_one_when_no_other_can_be_had(self) -> None:
        assert launched(world(free(), paid(max_workers=0)).round()) == {"free": 1}

    def test_a_gang_has_patience_too(self) -> None:
        made = world(tasks=0)
        made.gangs = (gang(GangStrategy.STRICT_SPREAD, demand(2, CPU=3)),)
        made.policy = replace(made.policy, gangs_across_backends=True)
        assert launched(made.round()) == {"paid": 2}

    def test_with_priced_types_in_one_backend(self) -> None:
        spot, sure = kind("free", price_usd_per_h=1.0, patience_s=60.0), kind("paid", price_usd_per_h=9.0)
        assert launched(world(spot, sure).round()) == {"paid": 1}
        assert launched(world(replace(spot, patience_s=0.0), sure).round()) == {"free": 1}


class TestHedging:
    def test_a_queue_that_is_late_is_not_counted_on_and_kept(self) -> None:
        made = world()
        queue(made)
        assert go(made, 10) == ({"paid": 1}, {})

    def test_a_queue_that_is_in_time_is_counted_on(self) -> None:
        made = world()
        queue(made, in_s=300.0)
        assert go(made, 10) == ({}, {})

    def test_nor_where_waiting_costs_nothing(self) -> None:
        made = world(free(0.0), paid())
        queue(made)
        assert go(made, 10) == ({}, {})

    def test_the_first_of_the_queue_counts(self) -> None:
        made = world(tasks=8)
        late, soon = queue(made, 2)
        made.change_row(soon, expected_start_s=made.now_s + 60)
        assert go(made, 5) == ({}, {})
        made.change_row(soon, expected_start_s=made.now_s + HOURS_S)
        assert go(made, 5) == ({"paid": 2}, {})
        assert late in made.intents

    def test_one_that_was_asked_for_and_is_in_no_listing_yet_queues_too(self) -> None:
        made = world(ready_s=None)
        made.asked("free", ago_s=1)
        assert launched(made.round()) == {}
        assert launched(made.round(PATIENCE_S + 1)) == {"paid": 1}

    def test_what_queues_is_given_back_when_the_work_has_its_place(self) -> None:
        made = world()
        (queued,) = queue(made)
        made.obey(made.round())
        for _ in range(3):
            made.tick(places=True)
            made.change_row(queued, state=BackendState.QUEUED)
            made.obey(made.round())
        assert made.demands == ()
        gone = go(made, 6)[1]
        assert gone == {queued: Why.NOT_NEEDED}

    def test_what_is_paid_is_given_back_when_the_queue_comes_first(self) -> None:
        made = world()
        (queued,) = queue(made)
        assert go(made, 3) == ({"paid": 1}, {})
        made.change_row(queued, state=BackendState.STARTING)
        new, gone = go(made, 6)
        assert (new, list(gone.values())) == ({}, [Why.NOT_NEEDED])
        assert set(made.intents) == {queued}

    def test_and_not_before_it_was_needless_for_a_while(self) -> None:
        made = world()
        (queued,) = queue(made)
        go(made, 3)
        made.change_row(queued, state=BackendState.STARTING)
        assert released(made.round()) == {}
        assert list(released(made.round(VANISHED_S)).values()) == [Why.NOT_NEEDED]

    def test_a_paid_node_that_is_up_and_idle_holds_the_work_and_the_queue_goes(self) -> None:
        made = world()
        (queued,) = queue(made)
        made.running("paid")
        assert go(made, 6) == ({}, {queued: Why.NOT_NEEDED})

    def test_never_more_beside_the_queue_than_the_work_takes(self) -> None:
        made = world(tasks=10)
        queued = queue(made, 3)
        assert go(made, 10) == ({"paid": 3}, {})
        made.demands = (demand(5),)
        new, gone = go(made, 6)
        assert (new, len(gone)) == ({}, 2)
        assert len([one for one in queued if one in made.intents]) == 2
        assert sum(one.node_type == "paid" for one in made.intents.values()) == 2

    def test_more_of_the_queue_than_the_work_takes_is_no_hedge(self) -> None:
        made = world()
        queued = queue(made, 3)
        new, gone = go(made, 6)
        assert (new, set(gone.values()), len(gone)) == ({"paid": 1}, {Why.NOT_NEEDED}, 2)
        assert len(set(queued) & set(made.intents)) == 1

    def test_a_type_of_lower_priority_is_no_reason_not_to_wait(self) -> None:
        made = world(free(priority=1), paid())
        queue(made)
        assert go(made, 5) == ({}, {})

    def test_nor_is_a_fallback_label(self) -> None:
        made = world(free(labels={"zone": "a"}), paid(labels={"zone": "b"}), tasks=0)
        made.demands = (demand(1, "zone=a|zone=b"),)
        queue(made)
        assert go(made, 5) == ({}, {})

    def test_nor_is_the_queues_own_type_however_soon_the_backend_promises_another(self) -> None:
        made = world(free(), ready_s=0)
        queue(made)
        assert go(made, 5) == ({}, {})

    def test_nor_is_a_type_that_is_late_itself(self) -> None:
        made = world(free(), paid(patience_s=60.0))
        queue(made)
        assert go(made, 5) == ({}, {})

    def test_nor_is_one_too_small_for_the_work(self) -> None:
        made = world(free(), paid(cpus=1), tasks=0)
        made.demands = (demand(1, CPU=2),)
        queue(made)
        assert go(made, 5) == ({}, {})


class TestWhereEverythingIsLate:
    """Two queues, both of which turned out to be too long: the work counts on one and stays in both."""

    def world(self) -> World:
        made = world(free(), paid(patience_s=PATIENCE_S))
        made.offers = ()
        return made

    def test_what_was_asked_for_twice_is_not_given_back_and_asked_for_in_turn(self) -> None:
        made = self.world()
        total = 0
        for _ in range(12):
            plan = made.round()
            total += sum(launched(plan).values())
            assert released(plan) == {}
            made.obey(plan)
            for one in made.rows:
                made.change_row(one, expected_start_s=NOW_S + HOURS_S)
        assert total == 2

    def test_whichever_comes_first_the_other_is_given_back(self) -> None:
        made = self.world()
        queued, other = made.coming("free", ago_s=1), made.coming("paid", ago_s=1)
        for one in (queued, other):
            made.change_row(one, expected_start_s=NOW_S + HOURS_S)
        assert go(made, 5) == ({}, {})
        made.change_row(other, state=BackendState.STARTING)
        assert go(made, 5) == ({}, {})
        made.join(other, NOTHING)
        assert go(made, 5) == ({}, {queued: Why.NOT_NEEDED})

    def test_more_than_the_work_takes_of_the_type_that_counts_is_given_back(self) -> None:
        made = self.world()
        for name in ("free", "free", "paid", "paid"):
            one = made.coming(name, ago_s=1)
            made.change_row(one, expected_start_s=NOW_S + HOURS_S)
        assert len(go(made, 5)[1]) == 2
        assert sorted(one.node_type for one in made.intents.values()) == ["free", "paid"]


class TestElapsed:
    def test_waiting_makes_a_queue_late_without_any_forecast(self) -> None:
        made = world(ready_s=None)
        assert go(made, 1) == ({"free": 1}, {})
        assert go(made, 1, after_s=PATIENCE_S - 1) == ({}, {})
        assert go(made, 5) == ({"paid": 1}, {})

    def test_new_work_has_patience_of_its_own(self) -> None:
        made = world(ready_s=None)
        queue(made, in_s=None)
        go(made, 1)
        made.demands = (demand(2), demand(1, CPU=2))
        go(made, 1, after_s=PATIENCE_S - 1)
        assert go(made, 2) == ({"paid": 1}, {})

    def test_work_that_goes_away_and_comes_again_waits_anew(self) -> None:
        made = world(ready_s=None)
        queue(made, in_s=None)
        go(made, 1)
        made.demands = ()
        go(made, 1, after_s=1)
        made.demands = (demand(4),)
        assert go(made, 1, after_s=PATIENCE_S) == ({}, {})


class TestElapsedForRequestResources:
    def world(self, *, asked: int = 4) -> World:
        made = world(ready_s=None, tasks=0)
        made.constraint = (demand(asked),)
        return made

    def test_it_waits_like_work(self) -> None:
        made = self.world()
        assert go(made, 1) == ({"free": 1}, {})
        assert go(made, 1, after_s=PATIENCE_S - 1) == ({}, {})
        assert go(made, 5) == ({"paid": 1}, {})

    def test_not_while_nodes_that_are_up_hold_it(self) -> None:
        """Nor has work of the same shape waited, or what is asked for again when one of them is lost."""
        made = self.world()
        one = made.running("paid", used={"CPU": 4})
        go(made, 2, after_s=PATIENCE_S)
        made.demands = (demand(4),)
        assert go(made, 2) == ({"free": 1}, {})
        made.demands = ()
        del made.nodes[f"n-{one}"], made.rows[one], made.intents[one]
        assert go(made, 5) == ({}, {})
        assert go(made, 2, after_s=PATIENCE_S) == ({"paid": 1}, {})

    def test_as_long_as_a_part_of_it_is_lacking(self) -> None:
        made = self.world(asked=8)
        go(made, 1)
        made.running("free", used={"CPU": 4})
        assert go(made, 2, after_s=PATIENCE_S)[0] == {"paid": 1}


class TestThePaidTypeFails:
    def backoff(self, made: World, left_s: float) -> None:
        until_s = made.now_s + left_s
        made.history = replace(made.history, backoff={"paid": Backoff(2, until_s, "no quota")})

    def test_the_queue_is_counted_on_again(self) -> None:
        made = world()
        queue(made)
        self.backoff(made, 100.0)
        plan = made.round()
        assert (launched(plan), limiters(plan)) == ({}, [])
        made.obey(plan)
        assert go(made, 10) == ({}, {})

    def test_until_its_backoff_is_over(self) -> None:
        made = world()
        queue(made)
        self.backoff(made, 10.0)
        assert go(made, 9) == ({}, {})
        assert go(made, 3) == ({"paid": 1}, {})

    @pytest.mark.parametrize("limit", ["capacity", "budget", "maximum", "silent"])
    def test_whatever_keeps_it_from_being_had(self, limit: str) -> None:
        made = world()
        queue(made)
        if limit == "capacity":
            made.offers = (*made.offers[1:], Offer("paid", count=0, why="no quota"))
        elif limit == "budget":
            made.policy = replace(made.policy, max_cost_usd_per_h=1.0)
        elif limit == "maximum":
            made.policy = policy(free(), paid(max_workers=0))
        else:
            made.silent = {"cloud": "timed out"}
        assert go(made, 5) == ({}, {})

    def test_its_last_one_that_comes_still_counts_at_its_maximum(self) -> None:
        """Else the queue and the paid one would be dropped and asked for by turns."""
        made = world(free(), paid(max_workers=1))
        queue(made)
        assert go(made, 10) == ({"paid": 1}, {})
        assert len(made.intents) == 2


def test_an_optimistic_offer_beside_a_slow_queue_is_not_asked_for_again_and_again() -> None:
    """The backend promises a start within patience, and then says hours: as `sbatch --test-only` may."""
    made = world(ready_s=60.0)
    total = 0
    for _ in range(10):
        plan = made.round()
        total += sum(launched(plan).values())
        made.obey(plan)
        for one, row in made.rows.items():
            if row.node_type == "free":
                made.change_row(one, expected_start_s=made.now_s + HOURS_S)
    assert total <= 2


class TestGangs:
    """A gang hedges whole; all that holds for demand holds for it."""

    def world(self, *types: NodeType, count: int = 2) -> World:
        made = world(*types, tasks=0)
        made.policy = replace(made.policy, gangs_across_backends=True)
        made.gangs = (gang(GangStrategy.STRICT_SPREAD, demand(count, CPU=3)),)
        return made

    @pytest.mark.parametrize("across", [False, True])
    def test_a_queue_that_is_late_is_kept_beside_what_is_paid(self, across: bool) -> None:
        made = self.world()
        made.policy = replace(made.policy, gangs_across_backends=across)
        queue(made, 2)
        assert go(made, 8) == ({"paid": 2}, {})

    def test_it_is_given_back_when_the_gang_has_its_place(self) -> None:
        made = self.world()
        queued = queue(made, 2)
        go(made, 2)
        made.gangs = ()
        assert set(go(made, 5)[1]) >= set(queued)

    def test_a_queue_in_time_is_counted_on(self) -> None:
        made = self.world()
        queue(made, 2, in_s=60.0)
        assert go(made, 8) == ({}, {})

    def test_a_type_of_lower_priority_is_no_reason_not_to_wait(self) -> None:
        made = self.world(free(priority=1), paid())
        queue(made, 2)
        assert go(made, 8) == ({}, {})

    def test_nor_is_one_that_can_not_be_had(self) -> None:
        made = self.world()
        queue(made, 2)
        until_s = made.now_s + 100
        made.history = replace(made.history, backoff={"paid": Backoff(2, until_s, "no quota")})
        assert go(made, 8) == ({}, {})

    def test_what_is_paid_and_comes_counts_at_its_maximum_too(self) -> None:
        made = self.world(free(), paid(max_workers=2))
        queue(made, 2)
        assert go(made, 8) == ({"paid": 2}, {})


SETTLED_AFTER = 6
"""Rounds after which nothing is launched or given back any more while nothing changes but forecasts' age."""

waits_s = st.sampled_from([None, 0.0, 300.0, HOURS_S])
kinds = st.builds(
    lambda patience_s, price, priority: {
        "patience_s": patience_s,
        "price_usd_per_h": price,
        "priority": priority,
    },
    st.sampled_from([0.0, 60.0, PATIENCE_S]),
    st.sampled_from([0.0, 1.0, 3.0]),
    st.sampled_from([0, 0, 1]),
)


@many(150)
@given(
    st.lists(st.tuples(kinds, waits_s, waits_s), min_size=2, max_size=3),
    st.lists(st.integers(0, 2), max_size=3),
    st.integers(1, 12),
    st.sampled_from(["work", "gang", "constraint"]),
)
def test_it_settles_whatever_is_forecast(
    drawn: list[tuple[dict[str, float], float | None, float | None]],
    queued: list[int],
    tasks: int,
    asks: str,
) -> None:
    """Of each type: what its backend promises, and what its queue then says."""
    types = [kind(f"t{n}", backend=f"b{n}", **each) for n, (each, _, _) in enumerate(drawn)]
    made = World(policy=policy(*types, gangs_across_backends=True))
    made.offers = tuple(
        Offer(f"t{n}", ready_at_s=None if ready_s is None else NOW_S + ready_s)
        for n, (_, ready_s, _) in enumerate(drawn)
    )
    made.demands = (demand(tasks),) if asks == "work" else ()
    made.gangs = (gang(GangStrategy.PACK, demand(tasks)),) if asks == "gang" else ()
    made.constraint = (demand(tasks),) if asks == "constraint" else ()
    for number in queued:
        made.coming(f"t{number % len(types)}", ago_s=1)
    need, new = -(-tasks // 4), 0
    for index in range(SETTLED_AFTER + 6):
        for one, row in made.rows.items():
            forecast_s = drawn[int(row.node_type[1:])][2]
            made.change_row(one, expected_start_s=None if forecast_s is None else NOW_S + forecast_s)
        plan = made.round()
        new += sum(launched(plan).values())
        if index >= SETTLED_AFTER:
            assert (launched(plan), released(plan)) == ({}, {})
        made.obey(plan)
    # Of each type once at most what the work takes, however often forecasts turn out to be wrong.
    assert new <= need * len(types)
    assert len(made.intents) <= need * len(types)
