"""Which backend a gang gets its nodes from, how it wishes to lie, and whom its bundles may lie with."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heliostat.model.demand import Gang, GangStrategy
from heliostat.model.history import Backoff, History
from heliostat.model.instance import Offer
from heliostat.model.node_type import NodeType
from heliostat.model.plan import Limiter
from tests.examples import many
from tests.unit.planner.world import (
    NOW_S,
    World,
    demand,
    gang,
    kind,
    launched,
    launches,
    limiters,
    policy,
    released,
)

PACK, SPREAD = GangStrategy.PACK, GangStrategy.SPREAD
STRICT_PACK, STRICT_SPREAD = GangStrategy.STRICT_PACK, GangStrategy.STRICT_SPREAD
EVERY = tuple(GangStrategy)


def one(**changed: object) -> NodeType:
    return kind("a", backend="one", **{"price_usd_per_h": 1.0, **changed})


def two(**changed: object) -> NodeType:
    return kind("b", backend="two", **{"price_usd_per_h": 3.0, **changed})


def world(*types: NodeType, gangs: tuple[Gang, ...] = (), across: bool = False, **changed: object) -> World:
    made = World(policy=policy(*types, gangs_across_backends=across, **changed), gangs=gangs)
    return made


def apart(count: int, cpus: float = 3, name: str = "a") -> Gang:
    return gang(STRICT_SPREAD, demand(count, CPU=cpus), name=name)


class TestOneBackend:
    def test_not_half_here_and_half_there(self) -> None:
        made = world(one(max_workers=2), two(max_workers=2), gangs=(apart(3),)).round()
        assert made.actions == ()
        assert limiters(made) == ["TYPE_MAX_WORKERS"]
        assert "a has 2 of at most 2" in made.deferred[0].text
        assert "b has 2 of at most 2" in made.deferred[0].text

    def test_but_across_backends_where_the_file_says_so(self) -> None:
        made = world(one(max_workers=2), two(max_workers=2), gangs=(apart(3),), across=True).round()
        assert launched(made) == {"a": 2, "b": 1}

    def test_two_types_of_one_backend_may_share_it(self) -> None:
        near = kind("b", backend="one", price_usd_per_h=3.0)
        assert launched(world(one(max_workers=2), near, gangs=(apart(3),)).round()) == {"a": 2, "b": 1}

    def test_the_cheaper_one_that_has_room_for_all(self) -> None:
        assert launched(world(one(), two(), gangs=(apart(3),)).round()) == {"a": 3}
        assert launched(world(two(), one(), gangs=(apart(3),)).round()) == {"a": 3}
        assert launched(world(one(max_workers=2), two(), gangs=(apart(3),)).round()) == {"b": 3}

    def test_cheaper_for_the_whole_and_not_by_the_node(self) -> None:
        types = one(cpus=2, price_usd_per_h=1.0), two(cpus=16, price_usd_per_h=3.0)
        assert launched(world(*types, gangs=(gang(PACK, demand(8, CPU=2)),)).round()) == {"b": 1}
        assert launched(world(*types, gangs=(gang(PACK, demand(2, CPU=2)),)).round()) == {"a": 2}

    def test_at_the_price_that_is_offered_now(self) -> None:
        made = world(one(), two(), gangs=(apart(2),))
        made.offers = (Offer("b", price_usd_per_h=0.1),)
        assert launched(made.round()) == {"b": 2}

    def test_what_is_there_makes_a_backend_cheaper(self) -> None:
        made = world(one(price_usd_per_h=2.0), two(), gangs=(apart(3),))
        made.running("b")
        made.running("b")
        assert launched(made.round()) == {"b": 1}

    def test_nothing_new_where_one_backend_holds_it_all(self) -> None:
        made = world(one(), two(), gangs=(apart(2),))
        made.running("b")
        made.coming("b")
        assert launched(made.round()) == {}

    def test_what_is_there_on_two_is_no_place_for_it(self) -> None:
        made = world(one(), two(), gangs=(apart(2),))
        made.running("a")
        made.running("b")
        assert launched(made.round()) == {"a": 1}
        made.policy = replace(made.policy, gangs_across_backends=True)
        assert launched(made.round()) == {}

    def test_a_node_of_nobodys_goes_with_either(self) -> None:
        made = world(one(), two(), gangs=(apart(3),))
        made.foreign(CPU=4)
        assert launched(made.round()) == {"a": 2}

    @pytest.mark.parametrize("limit", ["backoff", "silent", "capacity"])
    def test_the_other_one_while_the_cheaper_can_not_be_had(self, limit: str) -> None:
        made = world(one(), two(), gangs=(apart(2),))
        if limit == "backoff":
            made.history = replace(made.history, backoff={"a": Backoff(1, made.now_s + 99, "no image")})
        elif limit == "silent":
            made.silent = {"one": "timed out"}
        else:
            made.offers = (Offer("a", count=1),)
        assert launched(made.round()) == {"b": 2}

    def test_the_budget_is_of_both(self) -> None:
        made = world(one(), two(), gangs=(apart(2),), max_cost_usd_per_h=6.5)
        made.running("a", used={"CPU": 4})
        assert launched(made.round()) == {"a": 2}
        made.policy = replace(made.policy, max_cost_usd_per_h=2.5)
        assert limiters(made.round()) == ["BUDGET"]

    def test_each_gang_has_its_own(self) -> None:
        types = one(max_workers=3), two(max_workers=2)
        gangs = (apart(2, name="a"), apart(3, name="b"))
        assert launched(world(*types, gangs=gangs).round()) == {"a": 3, "b": 2}
        # Where two bundles have room on a node, two gangs may share it.
        gangs = (apart(2, 1, name="a"), apart(3, 1, name="b"))
        assert launched(world(*types, gangs=gangs).round()) == {"a": 3}

    def test_demand_is_not_bound_to_one(self) -> None:
        made = world(one(max_workers=1), two())
        made.demands = (demand(2, CPU=4),)
        assert launched(made.round()) == {"a": 1, "b": 1}

    def test_words_say_what_it_is_for(self) -> None:
        made = world(one(), two(), gangs=(apart(2),))
        (launch,) = launches(made.round())
        assert launch.reason.data["gang"] == str(made.gangs[0])


class TestWhatIsMissing:
    def test_only_the_bundles_that_have_no_place(self) -> None:
        made = world(one(), gangs=(apart(5),))
        made.running("a")
        made.running("a", used={"CPU": 1})
        made.running("a", used={"CPU": 2})
        made.coming("a")
        assert launched(made.round()) == {"a": 2}

    def test_rays_mark_of_the_part_that_is_placed_already(self) -> None:
        """Ray reports what a group lost; on the nodes that still hold the rest is its mark."""
        made = world(one())
        lost = replace(apart(1).demands[0].bundle, anti_affinity="_PG_a")
        made.gangs = (gang(STRICT_SPREAD, replace(demand(1), bundle=lost)),)
        for _ in range(3):
            node = made.running("a", used={"CPU": 1})
            made.change_node(node, labels={"_PG_a": "1"})
        assert launched(made.round()) == {"a": 1}

    def test_it_is_asked_for_once(self) -> None:
        made = world(one(), two(), gangs=(apart(3), gang(PACK, demand(5, CPU=2), name="b")))
        made.obey(made.round())
        for _ in range(6):
            plan = made.round()
            assert (launched(plan), released(plan)) == ({}, {})
            made.obey(plan)
            made.tick(places=False)


class TestWishes:
    def test_pack_takes_one_node_that_holds_all_before_several(self) -> None:
        made = world(one(), kind("big", 16, backend="one"), gangs=(gang(PACK, demand(3, CPU=2)),))
        small, big = [made.running("a", idle_s=500) for _ in range(2)], made.running("big", idle_s=500)
        kept = made.round().kept
        assert "fits here" in kept[big].text
        assert not any("fits here" in kept[n].text for n in small if n in kept)

    def test_pack_takes_several_where_none_holds_all(self) -> None:
        made = world(one(), gangs=(gang(PACK, demand(3, CPU=2)),))
        made.running("a")
        made.running("a")
        assert launched(made.round()) == {}

    def test_spread_takes_a_node_each_where_they_are(self) -> None:
        made = world(one(), gangs=(gang(SPREAD, demand(3, CPU=1)),))
        nodes = [made.running("a", idle_s=500) for _ in range(3)]
        kept = made.round().kept
        assert all("fits here" in kept[n].text for n in nodes)

    def test_spread_shares_nodes_where_there_are_fewer(self) -> None:
        made = world(one(), gangs=(gang(SPREAD, demand(3, CPU=1)),))
        made.running("a")
        assert launched(made.round()) == {}

    @pytest.mark.parametrize("strategy", [PACK, SPREAD])
    def test_a_wish_costs_no_new_node(self, strategy: GangStrategy) -> None:
        made = world(one(), kind("big", 16, backend="one", price_usd_per_h=9.0))
        made.gangs = (gang(strategy, demand(3, CPU=2)),)
        assert launched(made.round()) == {"a": 2}

    def test_a_wish_stays_within_one_backend_too(self) -> None:
        made = world(one(max_workers=1), two(max_workers=1), gangs=(gang(SPREAD, demand(2, CPU=1)),))
        made.running("a", idle_s=500)
        made.running("b", idle_s=500)
        plan = made.round()
        assert sum("fits here" in reason.text for reason in plan.kept.values()) == 1


class TestSelectors:
    def labelled(self, *gangs: Gang, across: bool = False) -> dict[str, int]:
        types = one(labels={"zone": "a"}), two(labels={"zone": "b"})
        return launched(world(*types, gangs=gangs, across=across).round())

    def test_every_bundle_has_its_own(self) -> None:
        near = kind("b", backend="one", labels={"zone": "b"})
        types = one(labels={"zone": "a"}), near
        wanted = gang(STRICT_SPREAD, demand(2, "zone=a", CPU=1), demand(1, "zone=b", CPU=1))
        assert launched(world(*types, gangs=(wanted,)).round()) == {"a": 2, "b": 1}

    def test_of_two_backends_only_together(self) -> None:
        wanted = gang(PACK, demand(1, "zone=a", CPU=1), demand(1, "zone=b", CPU=1))
        assert self.labelled(wanted) == {}
        assert self.labelled(wanted, across=True) == {"a": 1, "b": 1}

    def test_a_fallback_decides_the_backend(self) -> None:
        wanted = gang(PACK, demand(1, "zone=c|zone=b", CPU=1), demand(1, "zone!a", CPU=1))
        assert self.labelled(wanted) == {"b": 1}

    def test_what_one_node_shall_hold_keeps_them_all(self) -> None:
        wanted = gang(STRICT_PACK, demand(1, "zone=a|zone=b", CPU=1), demand(1, "zone=b", CPU=1))
        assert self.labelled(wanted) == {"b": 1}

    def test_one_that_no_type_has_makes_the_whole_never(self) -> None:
        made = world(one(labels={"zone": "a"}), gangs=(gang(SPREAD, demand(1), demand(1, "zone=x")),)).round()
        assert (made.actions, len(made.infeasible)) == ((), 1)


def test_a_gang_that_never_came_up_on_either_goes_out_whole() -> None:
    made = world(one(), two(), gangs=(apart(5),))
    made.history = History()
    assert launched(made.round()) == {"a": 5}


def test_the_limit_of_all_is_named_once_for_both_backends() -> None:
    made = world(one(), two(), gangs=(apart(3),), max_workers=2).round()
    assert [each.limiter for each in made.deferred] == [Limiter.MAX_WORKERS]
    assert made.deferred[0].text.count("max_workers") == 1


@many(500)
@given(
    st.lists(st.tuples(st.integers(0, 4), st.sampled_from([1.0, 2.0, 3.0])), min_size=2, max_size=4),
    st.sampled_from(EVERY),
    st.integers(1, 4),
    st.sampled_from([1.0, 3.0, 4.0]),
)
def test_new_nodes_of_one_gang_are_of_one_backend_the_cheapest_that_holds_it(
    kinds: list[tuple[int, float]], strategy: GangStrategy, count: int, cpus: float
) -> None:
    types = [
        kind(f"t{n}", backend=f"b{n % 2}", max_workers=most, price_usd_per_h=price)
        for n, (most, price) in enumerate(kinds)
    ]
    made = world(*types, gangs=(gang(strategy, demand(count, CPU=cpus)),))
    new = launched(made.round())
    need = 1 if strategy is STRICT_PACK else count
    if strategy is not STRICT_SPREAD:
        need = -(-count // int(4 // cpus))
    if strategy is STRICT_PACK and count * cpus > 4:
        need = 99
    bills = {}
    for name in ("b0", "b1"):
        prices = sorted(
            one.price_usd_per_h for one in types if one.backend == name for _ in range(one.max_workers)
        )
        if len(prices) >= need:
            bills[name] = sum(prices[:need])
    chosen = {one.backend for one in types if one.name in new}
    if not bills:
        assert new == {}
    else:
        assert sum(new.values()) == need
        assert len(chosen) == 1
        assert bills[chosen.pop()] == min(bills.values())


@pytest.mark.parametrize("queued", [0, 3, 5])
def test_what_queues_counts_where_all_that_is_in_time_is_taken(queued: int) -> None:
    """Three groups that are tired of waiting for a queue, and two nodes that could be there sooner."""
    free = kind("free", backend="slurm", patience_s=60.0)
    made = World(policy=policy(free, kind("paid", backend="cloud", price_usd_per_h=2.0, max_workers=2)))
    made.gangs = tuple(gang(GangStrategy.PACK, demand(1, CPU=3), name=name) for name in "abc")
    made.offers = (Offer("free", ready_at_s=NOW_S + 3600.0), Offer("paid", ready_at_s=NOW_S + 10.0))
    for _ in range(queued):
        made.change_row(made.coming("free", ago_s=1), expected_start_s=NOW_S + 3600.0)
    plans = [made.round()]
    for _ in range(8):
        made.obey(plans[-1])
        plans.append(made.round())
    assert launched(plans[0]) == ({"paid": 2} if queued else {"paid": 2, "free": 1})
    assert sum(sum(launched(one).values()) for one in plans[1:]) == 0
    assert len([key for one in plans for key in released(one)]) == max(0, queued - 3)
    assert released(plans[-1]) == {}
