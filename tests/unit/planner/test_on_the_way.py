"""What was asked for is used for what it was asked for, whatever comes first and whatever its name."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations

import pytest

from heliostat.model.demand import Gang, GangStrategy
from heliostat.model.instance import BackendState
from heliostat.model.node_type import NodeType
from heliostat.model.plan import Why
from heliostat.model.resources import NOTHING
from tests.unit.planner.world import World, demand, drained, gang, kind, launched, policy, released

NAMES = [*permutations(["a", "b"]), ("small", "big")]


def two_sizes(small: str, big: str) -> tuple[NodeType, NodeType]:
    return kind(small, 4, price_usd_per_h=1.0), kind(big, 16, price_usd_per_h=5.0)


class TestGangsBesideOtherWork:
    """A gang that small nodes hold, and work that needs a large one."""

    @pytest.mark.parametrize(("small", "big"), NAMES)
    @pytest.mark.parametrize("strategy", GangStrategy)
    def test_the_cheapest_whatever_the_types_are_called(
        self, strategy: GangStrategy, small: str, big: str
    ) -> None:
        world = World(policy=policy(*two_sizes(small, big)), demands=(demand(1, CPU=16),))
        world.gangs = (gang(strategy, demand(1, CPU=3)),)
        assert launched(world.round()) == {small: 1, big: 1}

    @pytest.mark.parametrize(("small", "big"), NAMES)
    @pytest.mark.parametrize("strategy", GangStrategy)
    @pytest.mark.parametrize("first", [0, 1])
    def test_nothing_is_asked_for_again_or_given_back_whichever_starts_first(
        self, strategy: GangStrategy, small: str, big: str, first: int
    ) -> None:
        world = World(policy=policy(*two_sizes(small, big)), demands=(demand(1, CPU=16),))
        world.gangs = (gang(strategy, demand(1, CPU=3)),)
        world.obey(world.round())
        for name in (small, big)[first:] + (small, big)[:first]:
            for state in (BackendState.STARTING, BackendState.RUNNING):
                one = next(one for one, row in world.rows.items() if row.node_type == name)
                world.change_row(one, state=state)
                if state is BackendState.RUNNING:
                    world.join(one, NOTHING)
                for _ in range(3):
                    made = world.round()
                    assert (launched(made), released(made), drained(made)) == ({}, {}, {})

    @pytest.mark.parametrize("strategy", GangStrategy)
    def test_it_stays_on_a_node_that_works_when_an_empty_one_comes_up(self, strategy: GangStrategy) -> None:
        """One CPU beside the one in use, though the new node is the cheaper one."""
        cheap, dear = kind("cheap", price_usd_per_h=0.5), kind("dear", price_usd_per_h=1.0, max_workers=1)
        world = World(policy=policy(cheap, dear), demands=(demand(2, CPU=3),))
        world.gangs = (gang(strategy, demand(1)),)
        world.running("dear", used={"CPU": 1})
        made = world.round()
        assert launched(made) == {"cheap": 2}
        world.obey(made)
        first = next(one for one, row in world.rows.items() if row.node_type == "cheap")
        for state in (BackendState.STARTING, BackendState.RUNNING):
            world.change_row(first, state=state)
            if state is BackendState.RUNNING:
                world.join(first, NOTHING)
            for _ in range(4):
                assert world.round().actions == ()

    def test_but_it_rides_on_what_other_work_brings(self) -> None:
        """Beside nine CPUs of work a node of sixteen has room for the gang: no node on its account."""
        world = World(policy=policy(*two_sizes("a", "b")), demands=(demand(1, CPU=9),))
        world.gangs = (gang(GangStrategy.PACK, demand(2, CPU=3)),)
        assert launched(world.round()) == {"b": 1}

    def test_of_two_that_come_the_dearer_is_given_back(self) -> None:
        world = World(policy=policy(*two_sizes("small", "big")))
        world.gangs = (gang(GangStrategy.PACK, demand(1, CPU=3)),)
        world.coming("small"), world.coming("big")
        made = world.rounds(5)
        assert [world.intents[one].node_type for one in released(made)] == ["big"]


@pytest.mark.parametrize(("sooner", "later"), [("a", "b"), ("b", "a")])
def test_of_types_at_one_price_the_sooner_is_used_first(sooner: str, later: str) -> None:
    world = World(policy=policy(kind("a", 4), kind("b", 4, backend="two")), demands=(demand(4),))
    world.change_row(world.coming(later), expected_start_s=world.now_s + 7200)
    world.change_row(world.coming(sooner), expected_start_s=world.now_s + 60)
    made = world.rounds(5)
    assert {world.intents[one].node_type: why for one, why in released(made).items()} == {
        later: Why.NOT_NEEDED
    }


class TestWhereAPartLies:
    """The rest of a gang goes to the backend where the first part is, however cheap another is."""

    def world(self, strategy: GangStrategy, *, on: str | None) -> World:
        dear, cheap = kind("dear", backend="one", price_usd_per_h=3.0), kind("cheap", backend="two")
        world = World(policy=policy(dear, replace(cheap, price_usd_per_h=1.0)))
        lost: Gang = gang(strategy, demand(1))
        world.gangs = (lost,)
        if on:
            world.change_node(world.running(on, used={"CPU": 4}), labels={lost.mark: ""})
        return world

    @pytest.mark.parametrize("strategy", [one for one in GangStrategy if one is not GangStrategy.STRICT_PACK])
    def test_there_and_nowhere_else(self, strategy: GangStrategy) -> None:
        assert launched(self.world(strategy, on=None).round()) == {"cheap": 1}
        assert launched(self.world(strategy, on="dear").round()) == {"dear": 1}
        assert launched(self.world(strategy, on="cheap").round()) == {"cheap": 1}

    def test_unless_the_file_says_otherwise(self) -> None:
        world = self.world(GangStrategy.PACK, on="dear")
        world.policy = replace(world.policy, gangs_across_backends=True)
        assert launched(world.round()) == {"cheap": 1}

    def test_a_foreign_node_binds_it_to_no_backend(self) -> None:
        world = self.world(GangStrategy.PACK, on=None)
        world.foreign(CPU=4, used={"CPU": 4})
        name, node = world.nodes.popitem()
        world.nodes[name] = replace(node, labels={world.gangs[0].mark: ""})
        assert launched(world.round()) == {"cheap": 1}


class TestNotWithinOneBackend:
    """Each bundle has its place, and all of them together have none within one backend."""

    def world(self) -> World:
        types = kind("a", backend="one", labels={"zone": "a"}), kind("b", backend="two", labels={"zone": "b"})
        world = World(policy=policy(*types))
        world.gangs = (gang(GangStrategy.PACK, demand(1, "zone=a", CPU=1), demand(1, "zone=b", CPU=1)),)
        return world

    def test_it_is_infeasible(self) -> None:
        made = self.world().round()
        assert (launched(made), made.deferred) == ({}, ())
        (never,) = made.infeasible
        assert never.wanted == self.world().gangs[0]
        assert never.text.startswith(
            "no backend alone can hold all of it; of one's types, no node type has the"
        )
        assert (never.nearest, never.labels) == ("a", ("zone in (b)",))

    def test_unless_the_file_says_otherwise(self) -> None:
        world = self.world()
        world.policy = replace(world.policy, gangs_across_backends=True)
        made = world.round()
        assert (launched(made), made.infeasible) == ({"a": 1, "b": 1}, ())
