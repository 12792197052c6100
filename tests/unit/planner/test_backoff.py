"""How long a type that fails is let wait, what forgives it, and how few are asked for after a refusal."""

from __future__ import annotations

from dataclasses import replace

import pytest

from heliostat.model.history import Backoff, History
from heliostat.model.instance import BackendState
from heliostat.model.plan import Plan
from heliostat.model.rejection import About, Answer, Rejection
from heliostat.model.resources import Resources
from heliostat.planner.backoff import Attempt, after_failures, delay_s, spread
from heliostat.planner.limits import (
    BACKOFF_MOST_S,
    FIRST_TRY,
    JITTER,
    PERMANENT_FIRST_S,
    PERMANENT_MOST_S,
    PROBATION_S,
    RETRY_AFTER_MOST_S,
)
from tests.unit.planner.scenes import newer
from tests.unit.planner.world import World, demand, kind, launched, launches, policy

QUOTA = Rejection("no more than 10 jobs", About.LIMIT, retry_after_s=60.0)
FULL = Rejection("no machine of this kind")
WRONG = Rejection("no such account", permanent=True)
STEP_S = 4.0


def failed(
    known: Backoff | None, *, asked_s: float, now_s: float, rejection: Rejection | None = None
) -> Backoff:
    attempt = Attempt(asked_s, "broken", f"l{asked_s}.0", rejection)
    return after_failures(known, attempt, shape_id="shape", now_s=now_s)


def launch_refused(world: World, made: Plan, rejection: Rejection, *, accepted: int = 0) -> list[str]:
    """Let the backend accept the first of what is launched and refuse the others, as the loop shows it."""
    known = set(world.rows)
    world.obey(made)
    new = [one for one in world.rows if one not in known]
    for one in new[accepted:]:
        world.change_row(one, state=BackendState.FAILED, detail=rejection.text, rejection=rejection)
    names = {one.node_type for one in launches(made)}
    done = accepted >= len(new)
    world.answers = (
        Answer(
            new[0],
            frozenset(names) if done else frozenset(),
            {} if done else dict.fromkeys(names, rejection),
            some=accepted > 0,
        ),
    )
    return new[:accepted]


def next_launch(world: World, *, within_s: float) -> tuple[float, Plan]:
    """Return after how many seconds something is launched again, and the plan."""
    for waited_s in range(1, int(within_s) + 1):
        made = world.round()
        if launched(made):
            return waited_s, made
        world.obey(made)
    raise AssertionError(f"nothing was launched within {within_s} s")


class TestTheWait:
    def test_it_doubles_up_to_a_limit(self) -> None:
        assert [delay_s(n) for n in (1, 2, 3, 4)] == [5, 10, 20, 40]
        assert delay_s(8) == delay_s(1000) == BACKOFF_MOST_S

    def test_what_will_never_be_accepted_waits_long_at_once(self) -> None:
        assert delay_s(1, permanent=True) == PERMANENT_FIRST_S
        assert delay_s(1000, permanent=True) == PERMANENT_MOST_S

    def test_several_that_fail_together_are_one_attempt(self) -> None:
        first = failed(None, asked_s=90.0, now_s=100.0)
        assert (first.failures, first.stepped_at_s) == (1, 100.0)
        same = failed(first, asked_s=100.0, now_s=102.0)
        assert (same.failures, same.until_s) == (1, first.until_s)
        again = failed(first, asked_s=108.0, now_s=110.0)
        assert again.failures == 2
        assert again.until_s >= 120.0

    def test_no_two_clusters_wait_for_the_same_time_and_none_for_less(self) -> None:
        waits = [spread(10.0, f"l{n}.0") for n in range(1000)]
        assert len(set(waits)) == 1000
        assert min(waits) >= 10.0
        assert max(waits) < 10.0 * (1 + JITTER)
        # Spread evenly: none of ten equal parts is left thin.
        tenths = [sum(int((w - 10) / (JITTER * 10) * 10) == part for w in waits) for part in range(10)]
        assert min(tenths) > 60

    def test_a_clock_that_was_set_back_keeps_nobody_waiting_nor_stops_the_doubling(self) -> None:
        ahead = failed(None, asked_s=90_000.0, now_s=90_000.0)
        assert ahead.waits(90_001.0)
        assert not ahead.waits(100.0)
        again = failed(ahead, asked_s=100.0, now_s=101.0)
        assert (again.failures, again.stepped_at_s) == (2, 101.0)
        assert again.waits(102.0)

    @pytest.mark.parametrize(("asked_s", "least_s"), [(60.0, 60.0), (1.0, 5.0), (1e9, RETRY_AFTER_MOST_S)])
    def test_no_shorter_than_the_backend_asks_and_no_shorter_than_ours(
        self, asked_s: float, least_s: float
    ) -> None:
        known = failed(None, asked_s=90.0, now_s=100.0, rejection=replace(QUOTA, retry_after_s=asked_s))
        assert least_s <= known.until_s - 100.0 < least_s * (1 + JITTER)
        assert known.as_asked is (asked_s > 5)

    def test_what_the_backend_asks_later_of_the_same_attempt_counts_too(self) -> None:
        first = failed(None, asked_s=90.0, now_s=100.0, rejection=FULL)
        later = failed(first, asked_s=90.0, now_s=103.0, rejection=QUOTA)
        assert (later.failures, later.until_s >= 163.0) == (1, True)


def tried(world: World, *, within_s: float) -> list[tuple[float, str]]:
    """Return what is launched, after how many seconds and of which type, up to the first `c`.

    Machines come at once, and no node of them ever joins.
    """
    began_s, found = world.now_s, []
    while world.now_s < began_s + within_s and "c" not in [name for _, name in found]:
        made = world.round(STEP_S)
        found += [(world.now_s - began_s, name) for name in launched(made)]
        world.obey(made)
        for one in world.rows:
            world.change_row(one, state=BackendState.STARTING)
    return found


class TestAsLongAsTheStartTook:
    A, B, C = (
        kind("a", priority=2, start_timeout_s=300.0),
        kind("b", priority=1, start_timeout_s=200.0),
        kind("c"),
    )

    def test_the_third_type_gets_its_turn_after_two_that_never_come_up(self) -> None:
        world = World(policy=policy(self.A, self.B, self.C), demands=(demand(1),))
        world.history = History()
        assert [name for _, name in tried(world, within_s=600)] == ["a", "b", "c"]

    def test_and_where_they_came_up_once_after_two_failures_of_each(self) -> None:
        world = World(policy=policy(self.A, self.B, self.C), demands=(demand(1),))
        assert [name for _, name in tried(world, within_s=1200)] == ["a", "b", "a", "b", "c"]

    def test_what_it_costs_the_only_type_that_fits(self) -> None:
        world = World(policy=policy(self.A), demands=(demand(1),))
        world.history = History()
        first, second = (at_s for at_s, _ in tried(world, within_s=1000))
        assert 300 <= second - first - 300 <= 300 * (1 + JITTER) + 3 * STEP_S

    def test_one_start_that_fails_of_a_type_that_works_costs_nothing(self) -> None:
        world = World(policy=policy(self.A), demands=(demand(1),))
        first, second, third = (at_s for at_s, _ in tried(world, within_s=1100))
        assert 5 <= second - first - 300 <= 5 * (1 + JITTER) + 3 * STEP_S
        assert third - second > 600

    def test_the_queue_does_not_count(self) -> None:
        world = World(policy=policy(self.A), demands=(demand(1),))
        world.history = History()
        one = world.coming("a", ago_s=5000)
        world.round(5000)
        world.change_row(one, state=BackendState.STARTING)
        world.round()
        world.round(40)
        world.change_row(one, state=BackendState.FAILED, detail="exit code 1")
        world.round()
        assert 41 <= world.history.backoff["a"].until_s - world.now_s <= 41 * (1 + JITTER)

    def test_hours_in_which_nobody_looked_do_not_count(self) -> None:
        world = World(policy=policy(self.A), demands=(demand(1),))
        world.history = History()
        one = world.coming("a", state=BackendState.STARTING)
        world.round()
        world.now_s += 4 * 3600
        world.change_row(one, state=BackendState.FAILED, detail="NODE_FAIL")
        world.round()
        assert world.history.backoff["a"].until_s - world.now_s <= 300 * (1 + JITTER)

    def test_one_that_fails_long_after_the_others_of_its_launch_counts_too(self) -> None:
        attempt = Attempt(90.0, "broken", "l1.0", took_s=10.0, proven=False)
        known = after_failures(None, attempt, shape_id="shape", now_s=100.0)
        later = after_failures(known, replace(attempt, took_s=300.0), shape_id="shape", now_s=390.0)
        assert (later.failures, later.until_s >= 690.0) == (1, True)

    def test_a_start_that_was_short_makes_no_wait_shorter(self) -> None:
        attempt = Attempt(190.0, "broken", "l1.0", took_s=1.0, proven=False)
        assert after_failures(None, attempt, shape_id="shape", now_s=200.0).until_s >= 205.0


class TestRefused:
    def test_nothing_of_the_type_before_the_backend_wants_to_be_asked(self) -> None:
        world = World(demands=(demand(1),))
        launch_refused(world, world.round(), QUOTA)
        waited_s, _ = next_launch(world, within_s=100)
        assert 60 <= waited_s <= 60 * (1 + JITTER) + 2

    def test_it_says_so_in_the_backends_own_words(self) -> None:
        world = World(demands=(demand(1),))
        launch_refused(world, world.round(), QUOTA)
        (one,) = world.round().deferred
        assert one.text.startswith("cpu was refused once, asked again in ")
        assert one.text.endswith(" s, as the backend asks: no more than 10 jobs")

    def test_another_type_is_not_held_back(self) -> None:
        world = World(policy=policy(kind(priority=1), kind("b")), demands=(demand(1),))
        launch_refused(world, world.round(), QUOTA)
        assert launched(world.round()) == {"b": 1}

    def test_a_join_does_not_forgive_it(self) -> None:
        """Of 90, 10 are let in and join; the others are not asked for again at that."""
        limits = policy(kind(max_workers=99), max_workers=99)
        world = World(policy=limits, demands=(demand(90, CPU=4),))
        joining = launch_refused(world, world.round(), QUOTA, accepted=10)
        world.obey(world.round())
        world.answers = ()
        for one in joining:
            world.change_row(one, state=BackendState.RUNNING)
            world.join(one, Resources.of({"CPU": 4}))
            world.demands = (demand(world.demands[0].count - 1, CPU=4),)
            made = world.round()
            assert launched(made) == {}
        waited_s, made = next_launch(world, within_s=100)
        assert waited_s >= 45
        assert launched(made) == {"cpu": FIRST_TRY}

    def test_each_refusal_in_a_row_is_of_few_and_the_waits_grow(self) -> None:
        limits = policy(kind(max_workers=99), max_workers=99)
        world = World(policy=limits, demands=(demand(90, CPU=4),))
        made = world.round()
        asked, waits = [], []
        for _ in range(6):
            asked.append(launched(made)["cpu"])
            launch_refused(world, made, FULL)
            waited_s, made = next_launch(world, within_s=1000)
            waits.append(waited_s)
        assert asked == [90, *[FIRST_TRY] * 5]
        assert all(5 * 2**n <= waited_s for n, waited_s in enumerate(waits))

    def test_it_is_forgiven_when_all_of_an_ask_is_accepted(self) -> None:
        limits = policy(kind(max_workers=99), max_workers=99)
        world = World(policy=limits, demands=(demand(9, CPU=4),))
        launch_refused(world, world.round(), FULL)
        _, made = next_launch(world, within_s=20)
        launch_refused(world, made, FULL, accepted=FIRST_TRY - 1)
        assert launched(world.round()) == {}
        assert world.history.backoff["cpu"].failures == 2
        _, made = next_launch(world, within_s=40)
        launch_refused(world, made, FULL, accepted=FIRST_TRY)
        assert launched(world.round()) == {"cpu": 9 - FIRST_TRY - (FIRST_TRY - 1)}
        assert world.history.backoff == {}

    def test_it_is_not_where_another_ask_was_refused_in_the_same_round(self) -> None:
        world = World(demands=(demand(9, CPU=4),))
        launch_refused(world, world.round(), FULL)
        _, made = next_launch(world, within_s=20)
        launch_refused(world, made, FULL)
        world.answers = (Answer("l0", frozenset({"cpu"}), some=True), *world.answers)
        assert launched(world.round()) == {}
        assert world.history.backoff["cpu"].failures == 2

    def test_what_only_whole_gangs_want_is_asked_for_after_a_little_more(self) -> None:
        world = World(demands=(demand(9, CPU=4),))
        launch_refused(world, world.round(), FULL)
        until_s = world.history.backoff.get("cpu")
        assert until_s is None
        world.obey(world.round())
        ends_s = world.history.backoff["cpu"].until_s
        assert launched(world.round(ends_s + PROBATION_S - world.now_s)) == {"cpu": 9}

    def test_what_fails_on_its_way_up_is_forgiven_at_a_join_as_ever(self) -> None:
        world = World(demands=(demand(2, CPU=4),))
        good, bad = world.coming(ago_s=1), world.coming(ago_s=1)
        world.change_row(bad, state=BackendState.FAILED, detail="exit code 1")
        world.obey(world.round())
        assert world.history.backoff["cpu"].refused is False
        world.change_row(good, state=BackendState.RUNNING)
        world.join(good, Resources())
        world.round()
        assert world.history.backoff == {}


class TestForGood:
    def world(self) -> World:
        world = World(demands=(demand(1),))
        launch_refused(world, world.round(), WRONG)
        return world

    def test_it_is_asked_rarely_and_shown_as_such(self) -> None:
        world = self.world()
        (one,) = world.round().deferred
        assert one.text.startswith("cpu was refused for good, asked again in ")
        assert one.text.endswith(" s (`heliostat apply FILE` asks at once): no such account")
        waited_s, _ = next_launch(world, within_s=1000)
        assert waited_s >= PERMANENT_FIRST_S

    def test_and_at_once_when_its_shape_has_changed(self) -> None:
        world = self.world()
        world.obey(world.round())
        world.policy = policy(newer(kind()))
        assert launched(world.round()) == {"cpu": 1}

    def test_but_not_when_only_its_limits_have(self) -> None:
        world = self.world()
        world.obey(world.round())
        world.policy = policy(kind(max_workers=50))
        assert launched(world.round()) == {}

    def test_what_fails_in_the_old_shape_holds_back_nothing_of_the_new(self) -> None:
        world = World(demands=(demand(1),))
        old = world.coming(ago_s=1)
        world.policy = policy(newer(kind()))
        world.change_row(old, state=BackendState.FAILED, detail="no image")
        made = world.round()
        assert launched(made) == {"cpu": 1}
        assert world.history.backoff == {}
