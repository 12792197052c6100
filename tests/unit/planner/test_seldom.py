"""Rules that show only in rare scenes: two that meet, or one that must hold when something is silent."""

from __future__ import annotations

from dataclasses import replace

from heliostat.model.demand import GangStrategy
from heliostat.model.history import History
from heliostat.model.instance import BackendState, NodeStatus
from heliostat.model.node_type import NodeType
from heliostat.model.plan import Why
from heliostat.model.snapshot import OperatorSettings
from heliostat.planner import fold
from heliostat.planner.limits import LOST_AFTER_S
from tests.unit.planner.world import (
    World,
    demand,
    drained,
    gang,
    kind,
    launched,
    limiters,
    policy,
    released,
)

A, B = {"zone": "a"}, {"zone": "b"}


def test_a_floor_above_the_maximum_is_the_maximum_and_lacks_nothing() -> None:
    world = World(policy=policy(kind(max_workers=3)), operator=OperatorSettings(floors={"cpu": 5}))
    made = world.round()
    assert (launched(made), made.deferred) == ({"cpu": 3}, ())


def test_two_small_nodes_rather_than_one_that_stays_nearly_empty() -> None:
    world = World(policy=policy(kind("a", 4), kind("b", 64)), demands=(demand(5),))
    assert launched(world.round()) == {"a": 2}


def test_demand_without_gpus_keeps_the_node_without_gpus() -> None:
    world = World(policy=policy(kind("cpu", 8), kind("gpu", 4, 1)), demands=(demand(2),))
    cpu, gpu = world.running("cpu", idle_s=100), world.running("gpu", idle_s=100)
    made = world.round()
    assert drained(made) == {gpu: Why.IDLE}
    assert made.kept[cpu].why is Why.DEMAND


def test_demand_keeps_the_node_with_the_label_it_prefers() -> None:
    types = kind("roomy", 8, labels=A), kind("tight", 4, labels=B)
    world = World(policy=policy(*types), demands=(demand(1, "zone=a|zone=b"),))
    liked, fallback = world.running("roomy", idle_s=100), world.running("tight", idle_s=100)
    made = world.round()
    assert drained(made) == {fallback: Why.IDLE}
    assert made.kept[liked].why is Why.DEMAND


class TestWhichRoomFirst:
    """Each pair is so named that the other one stands first where nothing else decides."""

    def kept(self, *types: NodeType, where: str = "") -> list[str]:
        """Return which of idle nodes, one of each type, one bundle is placed on."""
        world = World(policy=policy(*types), demands=(demand(1, where),))
        names = {world.running(one.name, idle_s=100): one.name for one in types}
        made = world.round()
        assert len(drained(made)) == len(types) - 1
        return [names[one] for one in made.kept]

    def test_the_preferred_label(self) -> None:
        types = kind("a", labels=B), kind("z", labels=A)
        assert self.kept(*types, where="zone=a|zone=b") == ["z"]

    def test_the_one_without_an_unneeded_device(self) -> None:
        assert self.kept(kind("a", 4, 1), kind("z", 4)) == ["z"]

    def test_the_cheaper_one_of_those_that_are_alike(self) -> None:
        assert self.kept(kind("a", price_usd_per_h=5.0), kind("z", price_usd_per_h=1.0)) == ["z"]

    def test_the_tighter_one_so_that_large_rooms_stay_whole(self) -> None:
        world = World(policy=policy(kind("a", 8, labels=A), kind("z", 2, labels=A)))
        world.running("a")
        world.running("z")
        world.demands = (demand(3, "zone=a", CPU=2), demand(1, CPU=4))
        assert launched(world.round()) == {}


def test_different_bundles_of_a_spread_gang_are_on_nodes_of_their_own_too() -> None:
    wanted = gang(GangStrategy.STRICT_SPREAD, demand(1, CPU=1), demand(1, CPU=2))
    assert launched(World(gangs=(wanted,)).round()) == {"cpu": 2}


def test_what_the_last_packing_does_not_use_is_not_launched() -> None:
    """The gang alone would bring a GPU node; beside what demand brings it needs none."""
    types = kind("gpu", 8, 1, priority=1, labels=A), kind("cpu", 16, labels=B)
    world = World(policy=policy(*types), demands=(demand(9, "zone=b"),))
    assert launched(world.round()) == {"cpu": 1}
    world.gangs = (gang(GangStrategy.PACK, demand(1, CPU=1)),)
    assert launched(world.round()) == {"cpu": 1}


def test_a_gang_waits_with_the_gang_whose_node_it_shares() -> None:
    """The first gang is held back, so the second, which leans on one of its nodes, is not sent in part."""
    untried, tried = kind("untried", 4, labels=A), kind("tried", 4, labels=B)
    world = World(policy=policy(untried, tried))
    world.history = History(proven={"tried": "shape-tried"})
    world.gangs = (
        gang(GangStrategy.STRICT_SPREAD, demand(5, "zone=a", CPU=3), name="a"),
        gang(GangStrategy.PACK, demand(2, "zone=a", CPU=1), demand(1, "zone=b", CPU=4), name="b"),
    )
    world.coming("untried", ago_s=1)
    made = world.round()
    assert launched(made) == {}
    assert limiters(made) == ["FIRST_SUCCESS", "FIRST_SUCCESS"]


def test_no_more_are_drained_than_are_too_many() -> None:
    world = World(policy=policy(kind(max_workers=2)))
    for _ in range(3):
        world.running(idle_s=5)
    assert list(drained(world.round()).values()) == [Why.OVER_MAX]


def test_ray_is_asked_again_to_let_a_removed_node_go_but_not_in_every_round() -> None:
    world = World()
    one = world.running(idle_s=5)
    world.history = replace(world.history, reports={})
    world.operator = OperatorSettings(removals={one: None})
    asked = [bool(drained(world.round())) for _ in range(8)]
    assert asked == [False, True, False, False, True, False, False, True]


class TestOverOnlyWhatIsSure:
    def test_nothing_is_lost_while_ray_is_silent(self) -> None:
        world = World()
        world.asked()
        world.round()
        world.ray_answers = False
        assert released(world.round(LOST_AFTER_S + 1)) == {}
        world.ray_answers = True
        assert list(released(world.round()).values()) == [Why.LOST]

    def test_a_dead_node_is_not_released_while_its_backend_is_silent(self) -> None:
        world = World()
        one = world.running()
        world.change_node(one, status=NodeStatus.DEAD)
        world.silent = {"fake": "timed out"}
        assert released(world.round()) == {}
        world.silent = {}
        assert list(released(world.round())) == [one]

    def test_a_listing_from_before_the_ask_says_nothing(self) -> None:
        world = World()
        one = world.asked(ago_s=0)
        snapshot = world.snapshot()
        old = {"fake": replace(snapshot.backends["fake"], listed_at_s=world.now_s - 1)}
        history = fold(world.history, replace(snapshot, backends=old), world.policy)
        assert history.absent_since == {}
        assert fold(history, replace(snapshot, now_s=world.now_s), world.policy).absent_since == {}
        world.round()
        assert world.history.absent_since == {one: world.now_s}


def test_a_failure_is_told_once_however_long_it_lasts() -> None:
    world = World(operator=OperatorSettings(paused=True))
    world.coming(state=BackendState.STARTING)
    world.round()
    for _ in range(4):
        world.round(400)
    assert len(world.history.failures) == 1


def test_paused_releases_nothing_not_even_what_is_over() -> None:
    world = World(operator=OperatorSettings(paused=True))
    one = world.coming(state=BackendState.FAILED)
    assert world.round().actions == ()
    world.operator = OperatorSettings()
    assert list(released(world.round())) == [one]
