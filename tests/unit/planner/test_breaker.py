"""When a backend's breaker opens and closes, what it lets through meanwhile, and what it never holds back."""

from __future__ import annotations

from dataclasses import replace

import pytest

from heliostat.model.demand import GangStrategy
from heliostat.model.history import Backoff, Breaker, History
from heliostat.model.plan import Limiter, Why
from heliostat.model.rejection import About, Answer, Rejection
from heliostat.planner.breaker import after_answer
from heliostat.planner.failures import tried_anew
from heliostat.planner.limits import (
    BREAKER_FAILURES,
    BREAKER_FIRST_S,
    BREAKER_MOST_S,
    HELD_FOR_GANG_S,
    JITTER,
    PROBATION_S,
)
from tests.unit.planner.world import (
    World,
    demand,
    drained,
    gang,
    kind,
    launched,
    launches,
    limiters,
    policy,
    released,
)

DOWN = Rejection("slurmctld does not answer", About.BACKEND)
LIMIT = Rejection("no more than 10 jobs", About.LIMIT)
FULL = Rejection("no machine of this kind", About.TYPE)
STRANGER = Rejection("who are you?", About.BACKEND, permanent=True)


def said(rejection: Rejection, *names: str, seed: str = "l1") -> Answer:
    return Answer(seed, rejections=dict.fromkeys(names or ("cpu",), rejection))


def after(*answers: Answer, now_s: float = 100.0, known: Breaker | None = None) -> Breaker | None:
    for one in answers:
        known = after_answer(known, one, now_s)
    return known


def opened(known: Breaker | None, now_s: float = 100.0) -> bool:
    return known is not None and known.is_open(now_s)


def open_world(*answers: Answer, **changed: object) -> World:
    """Return a world whose backend has just given these answers."""
    world = World(demands=(demand(5, CPU=4),), **changed)  # type: ignore[arg-type]
    world.answers = answers
    world.round()
    return world


class TestWhatOpensIt:
    def test_a_backend_that_does_not_answer_a_few_times_in_a_row(self) -> None:
        assert not opened(after(*[said(DOWN)] * (BREAKER_FAILURES - 1)))
        assert opened(after(*[said(DOWN)] * BREAKER_FAILURES))

    def test_one_that_no_longer_knows_us(self) -> None:
        assert opened(after(*[said(STRANGER)] * BREAKER_FAILURES))

    def test_a_limit_that_several_types_meet_and_not_one_that_one_type_meets(self) -> None:
        assert not opened(after(*[said(LIMIT, "gpu")] * 20))
        assert opened(after(said(LIMIT, "gpu"), said(LIMIT, "gpu"), said(LIMIT, "cpu")))

    def test_what_is_a_types_own_trouble_never(self) -> None:
        assert after(*[said(FULL, "gpu"), said(FULL, "cpu")] * 20) is None

    def test_nothing_in_between_that_was_accepted_even_in_part(self) -> None:
        accepted = Answer("l1", rejections={"cpu": LIMIT}, some=True)
        assert after(said(DOWN), said(DOWN), accepted, said(DOWN), said(DOWN)) == after(
            said(DOWN), said(DOWN)
        )

    def test_at_once_where_the_backend_itself_wants_to_be_left_alone(self) -> None:
        known = after(said(replace(DOWN, retry_after_s=300.0)))
        assert known is not None
        assert 300 <= (known.until_s or 0) - 100 <= 300 * (1 + JITTER)
        assert known.as_asked

    def test_calls_that_were_under_way_do_not_lengthen_it(self) -> None:
        known = after(*[said(DOWN)] * BREAKER_FAILURES)
        assert after(said(DOWN), known=known, now_s=101.0) == known


class TestHowLong:
    def test_twice_as_long_each_time_up_to_a_limit(self) -> None:
        known, waits, now_s = after(*[said(DOWN)] * (BREAKER_FAILURES - 1)), [], 100.0
        for number in range(6):
            known = after(said(DOWN, seed=f"l{number}"), known=known, now_s=now_s)
            assert known is not None
            assert known.until_s is not None
            waits.append(known.until_s - now_s)
            now_s = known.until_s + 1
        nominal = [min(BREAKER_MOST_S, BREAKER_FIRST_S * 2**n) for n in range(6)]
        assert all(n <= wait < n * (1 + JITTER) for n, wait in zip(nominal, waits, strict=True))

    def test_a_clock_that_was_set_back_closes_it(self) -> None:
        world = open_world(*[said(DOWN)] * BREAKER_FAILURES)
        world.now_s -= 5000
        world.demands = ()
        world.round()
        assert world.history.breakers["fake"].opened_at_s is None


class TestOpen:
    def test_nothing_is_launched_there_and_the_backends_words_are_shown(self) -> None:
        world = open_world(*[said(DOWN)] * BREAKER_FAILURES)
        made = world.round()
        assert launched(made) == {}
        (one,) = made.deferred
        assert one.limiter is Limiter.BREAKER
        assert one.text.startswith("fake refused 3 calls in a row, it is asked again in ")
        assert one.text.endswith(" s: slurmctld does not answer")

    def test_work_goes_to_another_backend_meanwhile(self) -> None:
        kinds = policy(kind("near", priority=1), kind("far", backend="other"))
        world = open_world(*[said(DOWN, "near")] * BREAKER_FAILURES, policy=kinds)
        assert launched(world.round()) == {"far": 5}

    def test_what_runs_there_ends_as_ever(self) -> None:
        world = World()
        one = world.running(idle_s=90)
        world.answers = (said(DOWN),) * BREAKER_FAILURES
        assert list(drained(world.round())) == [one]


class TestHalfOpen:
    def world(self, **changed: object) -> World:
        world = open_world(*[said(DOWN)] * BREAKER_FAILURES, **changed)
        until_s = world.history.breakers["fake"].until_s
        assert until_s is not None
        world.now_s = until_s - 1
        return world

    def test_one_is_tried_whatever_its_type(self) -> None:
        world = self.world(policy=policy(kind("a"), kind("b", 2, gpus=1)))
        world.demands = (demand(5, CPU=4), demand(5, GPU=1))
        made = world.round()
        assert sum(launched(made).values()) == 1
        assert set(limiters(made)) == {"BREAKER"}
        assert any("one launch is tried before the others" in one.text for one in made.deferred)

    def test_and_no_other_while_that_is_under_way(self) -> None:
        world = self.world()
        world.obey(world.round())
        assert launched(world.round()) == {}

    def test_once_that_is_accepted_all_go(self) -> None:
        world = self.world()
        world.obey(world.round())
        world.answers = (Answer("l1", frozenset({"cpu"}), some=True),)
        assert launched(world.round()) == {"cpu": 4}
        assert world.history.breakers == {}

    def test_if_it_is_refused_it_opens_for_longer(self) -> None:
        world = self.world()
        first = world.history.breakers["fake"]
        world.obey(world.round())
        world.answers = (said(DOWN),)
        assert launched(world.round()) == {}
        again = world.history.breakers["fake"]
        assert again.is_open(world.now_s)
        assert (first.trips, again.trips) == (1, 2)

    def test_if_it_is_refused_for_its_own_sake_the_others_go_until_one_is_refused(self) -> None:
        world = self.world(policy=policy(kind(), kind("b", 2, gpus=1)))
        world.obey(world.round())
        world.answers = (said(FULL),)
        world.demands = (demand(3, GPU=1),)
        made = world.round()
        assert launched(made) == {"b": 3}
        assert not world.history.breakers["fake"].is_half_open(world.now_s)
        world.obey(made)
        world.answers = (said(DOWN, "b"),)
        world.round()
        again = world.history.breakers["fake"]
        assert (again.is_open(world.now_s), again.trips) == (True, 2)

    def test_if_it_meets_a_limit_of_its_type_the_backend_answers_again(self) -> None:
        world = self.world()
        world.obey(world.round())
        world.answers = (said(LIMIT),)
        world.round()
        assert world.history.breakers["fake"] == Breaker(1, frozenset({"cpu"}), LIMIT.text, trips=1)

    @pytest.mark.parametrize("asked_again", [True, False])
    def test_a_gang_that_cannot_be_tried_in_part_goes_after_a_while_and_one_refusal_opens_it_again(
        self, asked_again: bool
    ) -> None:
        world = self.world()
        world.demands = ()
        world.gangs = (gang(GangStrategy.STRICT_SPREAD, demand(4)),)
        assert launched(world.round()) == {}
        made = world.round(PROBATION_S)
        assert [(one.count, one.reason.why.value) for one in launches(made)] == [(4, "gang")]
        if asked_again:
            world.obey(made)
            world.answers = (said(DOWN),)
            world.round()
            assert world.history.breakers["fake"].trips == 2
        else:
            assert world.history.breakers["fake"].opened_at_s is None


class TestWhatElseAGangNeeds:
    """Of four nodes two are there, idle for as long as the gang has waited, and one waits in a queue."""

    ALL = frozenset({"l001.0", "l002.0", "l003.0"})

    @pytest.fixture
    def world(self) -> World:
        world = World(gangs=(gang(GangStrategy.STRICT_SPREAD, demand(4)),))
        for _ in range(2):
            world.running(idle_s=5000)
        world.coming()
        return world

    def stop(self, world: World, how: str) -> None:
        """Let the fourth not be launched just now, for longer than anything waits."""
        began_s, until_s = world.now_s - 1, world.now_s + 9000
        backoff = Backoff(1, until_s, "no such image", began_s, permanent=how == "for good")
        breaker = Breaker(3, frozenset({"cpu"}), "down", 1, began_s, until_s)
        waits, breakers = world.history.backoff, world.history.breakers
        if how == "silent":
            world.silent, world.listed_at_s = {"fake": "timed out"}, world.now_s
        elif how == "breaker":
            breakers = {**breakers, "fake": breaker}
        else:
            waits = {**waits, "cpu": backoff}
        world.history = replace(world.history, backoff=waits, breakers=breakers)

    def go_on(self, world: World, *, for_s: float) -> set[str]:
        """Plan for so long; return what ends meanwhile. Nothing is done."""
        ends: set[str] = set()
        for _ in range(int(for_s / 5)):
            made = world.round(5)
            ends |= {*drained(made), *released(made)}
            assert launched(made) == {}
        return ends

    @pytest.mark.parametrize(
        ("how", "words"), [("breaker", "down"), ("backoff", "no such image"), ("silent", "timed out")]
    )
    def test_stays_for_ten_minutes(self, world: World, how: str, words: str) -> None:
        self.stop(world, how)
        assert self.go_on(world, for_s=HELD_FOR_GANG_S - 10) == set()
        idle = world.round(1).kept["l001.0"]
        assert idle.why is Why.GANG
        assert "would lie here, and waits for the rest of it" in idle.text
        assert words in idle.text
        asked = self.ALL - {"l003.0"} if how == "silent" else self.ALL
        assert self.go_on(world, for_s=30) == asked

    def test_goes_where_the_rest_is_refused_for_good(self, world: World) -> None:
        self.stop(world, "for good")
        assert self.go_on(world, for_s=10) == self.ALL

    def test_goes_where_another_limit_keeps_the_gang_from_being_whole(self, world: World) -> None:
        world.policy = policy(kind(max_workers=3))
        self.stop(world, "breaker")
        assert self.go_on(world, for_s=10) == self.ALL

    def test_stays_no_longer_where_the_rest_is_taken_and_refused_by_turns(self, world: World) -> None:
        """What is accepted and fails ends a wait; the time goes on."""
        began_s, ends = world.now_s, set[str]()
        while not ends and world.now_s - began_s < 3 * HELD_FOR_GANG_S:
            self.stop(world, "breaker")
            ends = self.go_on(world, for_s=60)
            world.history, fourth = replace(world.history, breakers={}), world.coming()
            assert self.go_on(world, for_s=60) == set()
            del world.intents[fourth], world.rows[fourth]
        assert ends == self.ALL
        assert HELD_FOR_GANG_S <= world.now_s - began_s <= HELD_FOR_GANG_S + 240

    def test_stays_again_when_the_gang_lacked_none_for_as_long(self, world: World) -> None:
        self.stop(world, "breaker")
        assert self.go_on(world, for_s=HELD_FOR_GANG_S + 30) == self.ALL
        world.history, fourth = replace(world.history, breakers={}), world.coming()
        assert self.go_on(world, for_s=HELD_FOR_GANG_S + 30) == set()
        del world.intents[fourth], world.rows[fourth]
        self.stop(world, "breaker")
        assert self.go_on(world, for_s=HELD_FOR_GANG_S - 10) == set()

    def test_stays_no_longer_where_the_gang_is_made_anew_every_minute(self, world: World) -> None:
        """As Ray Train does, which gives up a group that has not started."""
        began_s, ends = world.now_s, set[str]()
        self.stop(world, "breaker")
        for name in "abcdefghijklmnopqrst":
            world.gangs = (gang(GangStrategy.STRICT_SPREAD, demand(4), name=name),)
            ends |= self.go_on(world, for_s=60)
            if ends:
                break
        assert ends == self.ALL
        assert HELD_FOR_GANG_S <= world.now_s - began_s <= HELD_FOR_GANG_S + 60

    @pytest.mark.parametrize("first", ["near", "far"])
    def test_stays_where_the_gang_would_lie_whatever_comes_first_in_the_file(self, first: str) -> None:
        types = [kind("near", backend="one"), kind("far", backend="two")]
        world = World(gangs=(gang(GangStrategy.STRICT_SPREAD, demand(4)),))
        world.policy = policy(*sorted(types, key=lambda one: one.name != first))
        several = [world.running("far", idle_s=5000) for _ in range(3)]
        until_s = world.now_s + 60
        breakers = {
            name: Breaker(3, frozenset({"x"}), f"{name} is down", 1, world.now_s - 1, until_s)
            for name in ("one", "two")
        }
        world.history = replace(world.history, breakers=breakers)
        made = world.round()
        assert (drained(made), {one.why for one in made.kept.values()}) == ({}, {Why.GANG})
        assert set(made.kept) == set(several)
        assert all(one.text.endswith("two is down") for one in made.kept.values())


class TestAnOldShape:
    """A type of two nodes has moved from one backend to another, and both are idle."""

    @pytest.fixture
    def world(self) -> World:
        world = World(policy=policy(kind("a", backend="one", min_workers=2), kind("b", backend="one")))
        for _ in range(2):
            world.running("a", idle_s=100)
        moved = kind("a", backend="two", min_workers=2, shape_id="other")
        world.policy = policy(moved, kind("b", backend="one"))
        return world

    @pytest.mark.parametrize(("closed", "count"), [("one", 1), ("two", 0)])
    def test_stays_while_the_backend_that_it_is_asked_of_takes_no_new_one(
        self, world: World, closed: str, count: int
    ) -> None:
        breaker = Breaker(3, frozenset({"b"}), "down", 1, world.now_s - 1, world.now_s + 60)
        world.history = replace(world.history, breakers={closed: breaker})
        assert len(drained(world.round())) == count

    def test_stays_for_request_resources_while_what_it_lacks_is_of_a_silent_backend(self) -> None:
        world = World(policy=policy(kind("old", backend="one")), constraint=(demand(4, CPU=4),))
        several = [world.running("old", idle_s=100) for _ in range(4)]
        world.policy = policy(kind("new", backend="two"))
        world.silent, ends = {"two": "timed out"}, set[str]()
        for _ in range(20):
            made = world.round(2)
            assert launched(made) == {}
            ends |= set(drained(made))
            world.obey(made)
        assert len(ends) <= 1 < len(several)

    def test_stays_while_that_backend_is_silent(self, world: World) -> None:
        world.silent = {"two": "timed out"}
        assert drained(world.round()) == {}


def test_it_is_forgotten_with_the_last_type_of_its_backend() -> None:
    world = open_world(*[said(DOWN)] * BREAKER_FAILURES)
    world.policy = policy(kind("far", backend="other"))
    world.round()
    assert world.history.breakers == {}


def test_of_a_backend_that_the_file_has_no_types_of_any_more_nothing_is_told() -> None:
    history = History(breakers={"fake": Breaker(last_error="down", until_s=900.0)})
    assert tried_anew(history, policy(), now_s=100.0)[1] == ["fake is asked again now, last refusal: down"]
    assert tried_anew(history, policy(kind(backend="other")), now_s=100.0) == (History(), [])
