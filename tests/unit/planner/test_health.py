"""A type of which many that should be up are not: nothing else of it ends, and everything else goes on."""

from __future__ import annotations

from dataclasses import replace

import pytest

from heliostat.model.history import Down
from heliostat.model.instance import BackendState, NodeStatus
from heliostat.model.plan import Plan, Why
from heliostat.model.rejection import Rejection
from heliostat.model.resources import Resources
from heliostat.model.snapshot import OperatorSettings
from heliostat.planner.limits import DOWN_KEPT_S
from tests.unit.planner.scenes import apply, newer
from tests.unit.planner.world import World, drained, kind, policy, released

BUSY = {"CPU": 1.0}


def world_of(working: int) -> tuple[World, list[str]]:
    """Return a world and its nodes, all of which work."""
    world = World(policy=policy(kind(max_workers=100), kind("b"), max_workers=100))
    several = [world.running(used=BUSY) for _ in range(working)]
    world.round()
    return world, several


def die(world: World, several: list[str]) -> None:
    for one in several:
        world.change_node(one, status=NodeStatus.DEAD)


def with_idle(world: World) -> tuple[str, Plan]:
    """Add one that nobody has needed for long, and return it with the next plan."""
    one = world.running(idle_s=900)
    return one, world.round()


def ends(world: World) -> bool:
    """Say whether another of the type ends once what happened has been seen and done with."""
    world.obey(world.round())
    one, made = with_idle(world)
    return one in drained(made)


class TestHowMany:
    @pytest.mark.parametrize(
        ("working", "dead", "goes"),
        [
            # Two are few, whatever the share; 45% itself is still well.
            (2, 2, True),
            (3, 3, False),
            (10, 4, True),
            (10, 5, False),
            (19, 9, True),
            (19, 10, False),
        ],
    )
    def test_more_than_45_percent_and_at_least_three(self, working: int, dead: int, goes: bool) -> None:
        world, several = world_of(working)
        die(world, several[:dead])
        world.obey(world.round())
        idle, made = with_idle(world)
        assert (idle in drained(made)) is goes
        if not goes:
            expected = f"; {dead} of {working + 1} cpu that should be up are not, so nothing else of it ends"
            assert made.kept[idle].text.endswith(expected)
            assert (made.kept[idle].data["down"], made.kept[idle].data["expected"]) == (dead, working + 1)

    def test_those_that_are_down_end_all_the_same(self) -> None:
        world, several = world_of(5)
        die(world, several)
        assert set(released(world.round())) == set(several)

    def test_another_type_is_well(self) -> None:
        world, several = world_of(5)
        die(world, several)
        world.obey(world.round())
        other = world.running("b", idle_s=900)
        assert drained(world.round()) == {other: Why.IDLE}


class TestWhoIsDown:
    def test_what_failed_or_ended_by_itself(self) -> None:
        world, several = world_of(5)
        for one, state in zip(several, [BackendState.FAILED, BackendState.ENDED] * 3, strict=False):
            world.change_row(one, state=state)
            world.change_node(one, status=NodeStatus.DEAD)
        assert not ends(world)

    def test_one_that_its_backend_tells_before_ray_does_counts_once(self) -> None:
        world, several = world_of(5)
        for one in several[:2]:
            world.change_row(one, state=BackendState.FAILED, detail="NODE_FAIL")
        world.round()
        die(world, several[:2])
        assert ends(world)
        assert world.history.down["cpu"].count == 2

    def test_one_that_lived_all_the_same_no_longer_counts(self) -> None:
        world, several = world_of(5)
        for one in several:
            world.change_row(one, state=BackendState.ENDED)
        world.round()
        assert world.history.down["cpu"].count == 5
        for one in several:
            world.change_row(one, state=BackendState.RUNNING)
        assert ends(world)
        assert (world.history.down, world.history.fallen) == ({}, frozenset())

    def test_one_that_comes_back_after_a_silence_no_longer_counts(self) -> None:
        world, several = world_of(5)
        for one in several:
            world.change_row(one, state=BackendState.ENDED)
        world.round()
        world.ray_answers = False
        for one in several:
            world.change_row(one, state=BackendState.RUNNING)
        world.round()
        world.ray_answers = True
        assert ends(world)

    def test_one_that_never_counted_does_not_stand_for_another(self) -> None:
        world, several = world_of(8)
        die(world, several[:3])
        world.obey(world.round())
        world.operator = OperatorSettings(removals=dict.fromkeys(several[3:6]))
        for state in (BackendState.ENDED, BackendState.RUNNING):
            for one in several[3:6]:
                world.change_row(one, state=state)
            world.round()
        assert world.history.down["cpu"].count == 3

    def test_one_that_flaps_does_not_keep_the_others_from_being_forgotten(self) -> None:
        world, several = world_of(8)
        die(world, several[:3])
        world.obey(world.round())
        for state in (BackendState.STOPPING, BackendState.STOPPING, BackendState.STOPPING):
            world.change_row(several[4], state=state)
            world.silent.pop("fake", None)
            world.round(DOWN_KEPT_S / 4)
            world.silent["fake"] = "busy"
            world.round(DOWN_KEPT_S / 4)
        assert world.history.down == {}

    @pytest.mark.parametrize("how", ["dead", "failed"])
    def test_what_was_idle_and_went_without_being_asked(self, how: str) -> None:
        world = World(policy=policy(kind(max_workers=100), max_workers=100))
        several = [world.running(idle_s=30) for _ in range(5)]
        world.rounds(3)
        for one in several:
            if how == "failed":
                world.change_row(one, state=BackendState.FAILED, detail="NODE_FAIL")
            else:
                world.change_node(one, status=NodeStatus.DEAD)
        assert not ends(world)

    def test_not_what_was_idle_and_asked_to_go(self) -> None:
        world = World(policy=policy(kind(max_workers=100), max_workers=100))
        for _ in range(5):
            world.running(idle_s=900)
        made = world.round()
        assert len(drained(made)) == 5
        world.obey(made)
        assert ends(world)

    def test_what_ray_no_longer_knows(self) -> None:
        world, several = world_of(5)
        for one in several:
            del world.nodes[f"n-{one}"]
        assert not ends(world)

    def test_what_began_and_never_came_up(self) -> None:
        world, _ = world_of(0)
        for _ in range(3):
            one = world.coming(state=BackendState.STARTING, ago_s=1)
            world.change_row(one, state=BackendState.FAILED, started_at_s=world.now_s)
        assert not ends(world)

    def test_what_did_not_join_in_time(self) -> None:
        world, _ = world_of(0)
        for _ in range(3):
            world.coming(state=BackendState.STARTING)
        world.round()
        world.now_s += 400
        assert not ends(world)

    @pytest.mark.parametrize("how", ["queued", "failed in the queue", "refused", "never listed"])
    def test_not_what_never_began(self, how: str) -> None:
        world, _ = world_of(0)
        for _ in range(9):
            one = world.coming(ago_s=1)
            world.operator = OperatorSettings(protected=world.operator.protected | {one})
            world.round()
            if how == "failed in the queue":
                world.change_row(one, state=BackendState.FAILED)
            elif how == "refused":
                world.change_row(one, state=BackendState.FAILED, rejection=Rejection("full"))
            elif how == "never listed":
                del world.rows[one]
                world.intents[one] = replace(world.intents[one], requested_at_s=world.now_s - 60)
        assert ends(world)

    def test_not_what_drained_or_was_to_go_or_had_its_time(self) -> None:
        world, several = world_of(9)
        drains, asked, over = several[:3], several[3:6], several[6:]
        for one in drains:
            world.change_node(one, status=NodeStatus.DRAINING)
        world.operator = OperatorSettings(removals=dict.fromkeys(asked))
        for one in over:
            world.change_row(one, expires_at_s=world.now_s + 5)
        world.round()
        die(world, several)
        assert ends(world)


class TestUntilWhen:
    def sick(self) -> World:
        world, several = world_of(5)
        die(world, several)
        world.obey(world.round())
        assert world.history.down == {"cpu": Down(5, world.now_s)}
        return world

    def test_until_as_many_have_joined(self) -> None:
        world = self.sick()
        idle, made = with_idle(world)
        for count in (4, 3, 2):
            assert drained(made) == {}
            one = world.coming(state=BackendState.RUNNING)
            world.join(one, Resources.of(BUSY))
            made = world.round()
            assert world.history.down["cpu"].count == count
        assert drained(made) == {idle: Why.IDLE}

    def test_or_a_few_minutes_after_the_last_of_them(self) -> None:
        world = self.sick()
        world.now_s += DOWN_KEPT_S - 3
        assert not ends(world)
        assert ends(world)
        assert world.history.down == {}

    def test_a_clock_that_is_set_back_forgets_them(self) -> None:
        world = self.sick()
        world.now_s -= 900
        world.round()
        assert world.history.down == {}


class TestWhatEndsAnyway:
    def test_what_people_ask_for_and_leases(self) -> None:
        world, several = world_of(5)
        die(world, several)
        world.obey(world.round())
        asked, leased, other = (world.running(idle_s=900) for _ in range(3))
        world.operator = OperatorSettings(removals={asked: None})
        world.change_row(leased, expires_at_s=world.now_s + 30)
        plans = [world.round() for _ in range(3)]
        seen = {one: why for made in plans for one, why in drained(made).items()}
        assert seen == {asked: Why.REMOVED_BY_HAND, leased: Why.LEASE_ENDS}
        assert other in plans[-1].kept

    def test_a_new_shape_that_does_not_come_up_does_not_replace_the_old_one(self) -> None:
        world, _ = world_of(0)
        idle = [world.running(idle_s=5) for _ in range(3)]
        apply(world, policy(newer(kind(max_workers=100)), max_workers=100))
        for _ in range(3):
            one = world.coming(state=BackendState.STARTING, ago_s=1)
            world.change_row(one, state=BackendState.FAILED, started_at_s=world.now_s)
        made = world.round()
        assert drained(made) == {}
        assert all("3 of 6 cpu that should be up are not" in made.kept[one].text for one in idle)
