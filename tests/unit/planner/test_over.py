"""What is over is released, each with the right cause and the backend's own words."""

from __future__ import annotations

import pytest

from heliostat.model.instance import BackendState, InstanceState, NodeStatus
from heliostat.model.plan import Release, Why
from heliostat.model.snapshot import OperatorSettings
from heliostat.planner.limits import LOST_AFTER_S, OUTLIVED_S
from tests.unit.planner.world import World, kind, launched, policy, released


def the_release(world: World) -> Release:
    (one,) = (action for action in world.round().actions if isinstance(action, Release))
    return one


def test_a_node_that_died_while_it_worked() -> None:
    world = World()
    one = world.running(used={"CPU": 1})
    world.round()
    world.change_node(one, status=NodeStatus.DEAD)
    release = the_release(world)
    assert (release.instance_id, release.reason.why) == (one, Why.NODE_DIED)
    assert release.reason.text == "w1 died: no word from the backend"
    assert world.history.backoff == {}


@pytest.mark.parametrize("status", [NodeStatus.DRAINING, NodeStatus.IDLE])
def test_a_node_that_drained_or_was_idle_left_as_it_should(status: NodeStatus) -> None:
    world = World()
    one = world.running()
    world.change_node(one, status=status)
    world.rounds(2)
    world.change_node(one, status=NodeStatus.DEAD)
    assert released(world.round()) == {one: Why.DRAINED}


def test_the_machine_went_under_a_node() -> None:
    world = World()
    one = world.running(used={"CPU": 1})
    world.round()
    world.change_node(one, status=NodeStatus.DEAD)
    world.change_row(one, state=BackendState.ENDED, detail="preempted by the owner")
    assert the_release(world).reason.text == "w1 died: preempted by the owner"


def test_one_that_failed_says_the_backends_words_and_backs_off() -> None:
    world = World(policy=policy(kind(min_workers=1)))
    one = world.coming(ago_s=5)
    world.change_row(one, state=BackendState.FAILED, detail="exit status 1: no ray here")
    made = world.round()
    (release,) = made.actions
    assert isinstance(release, Release)
    assert (release.reason.why, release.reason.text) == (Why.FAILED, "w1 failed: exit status 1: no ray here")
    assert launched(made) == {}
    assert world.history.backoff["cpu"].failures == 1
    assert [f.error for f in world.history.failures] == ["exit status 1: no ray here"]


def test_one_that_ended_before_it_joined() -> None:
    world = World()
    one = world.coming()
    world.change_row(one, state=BackendState.STOPPING, detail="CANCELLED by 1001")
    release = the_release(world)
    assert (release.reason.why, release.reason.text) == (
        Why.FAILED,
        "w1 ended before it joined: CANCELLED by 1001",
    )


class TestStartTimeout:
    def test_counts_from_the_start_and_not_from_the_ask(self) -> None:
        world = World(policy=policy(kind(min_workers=1, start_timeout_s=20.0)))
        one = world.coming(ago_s=5000)
        assert world.round(100).actions == ()
        world.change_row(one, state=BackendState.STARTING)
        assert world.round().actions == ()
        assert released(world.round(20)) == {}
        made = world.round(1)
        assert released(made) == {one: Why.START_TIMEOUT}
        assert "did not join within 20 s (start_timeout_s)" in world.history.failures[-1].error
        assert world.history.backoff["cpu"].failures == 1

    def test_counts_anew_where_the_backend_has_begun_it_anew(self) -> None:
        world = World(policy=policy(kind(min_workers=1, start_timeout_s=20.0)))
        one = world.coming(state=BackendState.STARTING)
        world.round(15)
        world.change_row(one, started_at_s=world.now_s)
        assert released(world.round(20)) == {}
        assert released(world.round()) == {one: Why.START_TIMEOUT}

    def test_goes_on_counting_where_a_listing_lacks_it_once(self) -> None:
        world = World(policy=policy(kind(min_workers=1, start_timeout_s=20.0)))
        one = world.coming(state=BackendState.STARTING)
        world.round(1)
        row = world.rows.pop(one)
        world.round(10)
        world.rows[one] = row
        assert released(world.round(10)) == {}
        assert released(world.round(1)) == {one: Why.START_TIMEOUT}

    def test_does_not_count_what_a_backends_clock_was_set_by(self) -> None:
        """A start that was stamped before it was set lies too early for what its clock shows now."""
        world = World(policy=policy(kind(min_workers=1, start_timeout_s=300.0)))
        one = world.coming(state=BackendState.STARTING)
        world.round()
        world.change_row(one, started_at_s=world.now_s - 30 - 3600)
        assert world.round().actions == ()
        assert (world.history.failures, world.history.backoff) == ((), {})

    def test_a_queue_may_be_as_long_as_it_likes(self) -> None:
        world = World(policy=policy(kind(min_workers=1, start_timeout_s=20.0)))
        world.coming()
        assert world.round(100_000).actions == ()

    def test_a_silence_of_ray_does_not_count_as_a_failed_start(self) -> None:
        world = World(policy=policy(kind(min_workers=1, start_timeout_s=20.0)))
        world.coming(state=BackendState.STARTING)
        world.round()
        world.ray_answers = False
        assert world.round(60).actions == ()

    def test_nor_does_it_begin_anew_after_one(self) -> None:
        world = World(policy=policy(kind(min_workers=1, start_timeout_s=20.0)))
        one = world.coming(state=BackendState.STARTING)
        world.round()
        world.ray_answers = False
        world.round(10)
        world.ray_answers = True
        assert released(world.round(15)) == {one: Why.START_TIMEOUT}


def test_a_node_that_died_is_released_only_when_its_backend_answers() -> None:
    world = World(silent={"fake": "timed out"})
    one = world.running(used={"CPU": 1})
    world.round()
    world.change_node(one, status=NodeStatus.DEAD)
    assert released(world.round()) == {}
    world.silent = {}
    assert released(world.round()) == {one: Why.NODE_DIED}


class TestLost:
    def test_after_listings_far_enough_apart_lack_it(self) -> None:
        world = World(policy=policy(kind(min_workers=1)))
        one = world.asked(ago_s=1)
        assert released(world.round()) == {}
        assert released(world.round(LOST_AFTER_S)) == {}
        assert released(world.round(1)) == {one: Why.LOST}
        assert world.history.failures[-1].error == "was asked for and never seen in a listing of fake"

    def test_what_was_listed_before_is_not_said_to_have_never_been(self) -> None:
        world = World(policy=policy(kind(min_workers=1)))
        one = world.coming(ago_s=1)
        world.round()
        del world.rows[one]
        world.round()
        assert released(world.round(LOST_AFTER_S + 1)) == {one: Why.LOST}
        assert world.history.failures[-1].error == "vanished from the listings of fake"

    def test_a_late_listing_saves_it(self) -> None:
        world = World(policy=policy(kind(min_workers=1)))
        one = world.coming(ago_s=1)
        row = world.rows.pop(one)
        world.round()
        world.rows[one] = row
        world.round(10)
        del world.rows[one]
        world.round(LOST_AFTER_S - 5)
        assert released(world.round(10)) == {}

    def test_listings_that_failed_do_not_count(self) -> None:
        world = World(policy=policy(kind(min_workers=1)), silent={"fake": "timed out"})
        world.asked(ago_s=1)
        world.round()
        assert released(world.round(LOST_AFTER_S * 3)) == {}
        world.silent = {}
        assert released(world.round()) == {}


def test_ray_silent_what_the_backend_ended_is_released_and_told_once_ray_speaks() -> None:
    world = World(ray_answers=False)
    one = world.coming()
    world.change_row(one, state=BackendState.FAILED)
    assert released(world.round()) == {}
    assert world.history.failures == ()
    world.ray_answers = True
    assert released(world.round()) == {one: Why.FAILED}
    assert [each.instance_id for each in world.history.failures] == [one]


def test_what_was_released_is_not_released_again() -> None:
    world = World()
    one = world.running(used={"CPU": 1})
    world.give_up(one)
    assert world.rounds(3).actions == ()


@pytest.mark.parametrize("state", [BackendState.STOPPING, BackendState.ENDED, BackendState.FAILED])
@pytest.mark.parametrize("status", [NodeStatus.RUNNING, NodeStatus.IDLE, NodeStatus.DRAINING])
def test_a_node_that_ray_shows_alive_outlives_a_listing(state: BackendState, status: NodeStatus) -> None:
    world = World()
    one = world.running(used={"CPU": 1})
    world.change_node(one, status=status)
    world.round()
    world.change_row(one, state=state, detail="another job for its id died")
    made = world.round()
    assert released(made) == {}
    assert made.kept[one].text == (
        "fake says that it ends or is over (another job for its id died), and Ray that its node lives; "
        "believed if listings say so for 30 s"
    )
    world.rounds(20)
    assert released(world.round()) == {}
    world.change_row(one, state=BackendState.RUNNING)
    assert released(world.round()) == {}
    assert world.history.outlived_since == {}


def test_a_backend_that_insists_is_believed_in_the_end() -> None:
    world = World()
    one = world.running(used={"CPU": 1})
    world.round()
    world.change_row(one, state=BackendState.ENDED)
    assert released(world.round()) == {}
    world.now_s += OUTLIVED_S + 1
    assert released(world.round()) == {one: Why.NODE_DIED}


@pytest.mark.parametrize("state", [BackendState.STOPPING, BackendState.ENDED, BackendState.FAILED])
def test_nothing_that_has_joined_is_released_while_ray_is_silent(state: BackendState) -> None:
    world = World()
    one = world.running(used={"CPU": 1})
    world.round()
    world.ray_answers = False
    world.change_row(one, state=state)
    for _ in range(3):
        assert released(world.round()) == {}
        world.now_s += OUTLIVED_S + 1
    world.ray_answers = True
    assert released(world.round()) == {}
    world.change_node(one, status=NodeStatus.DEAD)
    assert set(released(world.round())) == {one}


def test_what_was_listed_wrongly_while_ray_was_silent_lives_on_without_a_failure() -> None:
    world = World()
    one = world.running(used={"CPU": 1})
    world.round()
    world.ray_answers = False
    world.change_row(one, state=BackendState.FAILED)
    world.round()
    world.ray_answers = True
    world.change_row(one, state=BackendState.RUNNING)
    assert released(world.round()) == {}
    assert (world.history.failures, world.history.backoff) == ((), {})


def test_the_end_of_a_lease_and_a_removals_deadline_are_not_waited_out() -> None:
    world = World()
    leased, removed = world.running(used={"CPU": 1}), world.running(used={"CPU": 1})
    world.change_row(leased, expires_at_s=world.now_s + 60)
    world.round()
    world.operator = OperatorSettings(removals={removed: world.now_s + 5})
    for one in (leased, removed):
        world.change_row(one, state=BackendState.STOPPING)
    assert released(world.round()) == {}
    assert released(world.round(5)) == {removed: Why.NODE_DIED}
    assert released(world.round(60))[leased] is Why.LEASE_ENDS


def test_a_backend_that_falls_silent_makes_it_no_supply_again() -> None:
    world = World()
    one = world.running(used={"CPU": 1})
    world.round()
    world.change_row(one, state=BackendState.STOPPING)
    world.round()
    world.silent["fake"] = "busy"
    assert released(world.round()) == {}
    assert world.history.states[one] is InstanceState.STOPPING


def test_a_change_that_is_under_way_does_not_start_the_time_anew() -> None:
    world = World()
    one = world.running(used={"CPU": 1})
    world.round()
    world.change_row(one, state=BackendState.ENDED)
    world.round()
    world.now_s += OUTLIVED_S / 2
    world.silent["fake"] = "busy"
    assert released(world.round()) == {}
    del world.silent["fake"]
    world.now_s += OUTLIVED_S / 2 + 1
    assert released(world.round()) == {one: Why.NODE_DIED}


def test_an_old_listing_does_not_insist() -> None:
    world = World()
    one = world.running(used={"CPU": 1})
    world.round()
    world.listed_at_s = world.now_s
    world.change_row(one, state=BackendState.ENDED)
    assert released(world.round()) == {}
    world.now_s += 10 * OUTLIVED_S
    assert released(world.round()) == {}


def test_a_node_that_dies_after_its_listing_said_so_is_released_at_once() -> None:
    world = World()
    one = world.running(used={"CPU": 1})
    world.round()
    world.change_row(one, state=BackendState.ENDED)
    assert released(world.round()) == {}
    world.change_node(one, status=NodeStatus.DEAD)
    assert released(world.round()) == {one: Why.NODE_DIED}
