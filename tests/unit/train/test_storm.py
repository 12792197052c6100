"""Groups in bad weather: whatever comes and goes, the rules hold, and when it is over all is as wanted."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heliostat.train import ElasticGroup, MemberLost, Roles
from tests.unit.train.fake_cluster import FakeCluster
from tests.unit.train.test_group import BUNDLE, Heir, empty

NAMES = [f"n{number}" for number in range(6)]
EVENTS = st.lists(
    st.tuples(
        st.sampled_from(["join", "lose", "drain", "kill", "target", "map", "wait"]),
        st.sampled_from(NAMES),
        st.integers(0, 6),
    ),
    max_size=40,
)


class Worker(Heir):
    pass


def happen(cluster: FakeCluster, group: ElasticGroup, event: tuple[str, str, int]) -> None:
    """Let one thing happen, if it can."""
    what, name, number = event
    there = name in cluster.nodes
    if what == "join" and not there:
        cluster.join(name, {"GPU": float(1 + number % 2), "CPU": 2.0})
    elif what == "lose" and there:
        cluster.lose(name)
    elif what == "drain" and there:
        cluster.drain(name, deadline_s=None if number == 0 else 10.0 * number)
    elif what == "kill":
        for actor in cluster.on(name)[:1]:
            cluster.kill(actor)
    elif what == "target":
        group.target = number
    elif what == "wait":
        cluster.clock_s += number


def check(cluster: FakeCluster, group: ElasticGroup) -> None:
    assert [one.rank for one in group] == list(range(len(group)))
    assert len({one.id for one in group}) == len(group)
    assert all(one.actor.died is None and not one.actor.ended for one in group)
    draining = {one.id for one in cluster.nodes.values() if one.drain_at_s is not None}
    assert not draining & {one.node_id for one in group}


def room(cluster: FakeCluster) -> int:
    return sum(int(one.total["GPU"]) for one in cluster.nodes.values() if one.drain_at_s is None)


def options(cluster: FakeCluster, **rest: Any) -> dict[str, Any]:
    return {"bundle": BUNDLE, "min_size": 0, "max_size": 5, "cluster": cluster, "max_restarts": 999, **rest}


@given(EVENTS, st.sampled_from([0.0, 3.0]))
def test_a_group_keeps_its_rules_and_ends_as_wanted(
    events: list[tuple[str, str, int]], start_s: float
) -> None:
    cluster = FakeCluster(*NAMES[:2])
    cluster.start_s = start_s
    cluster.takes = lambda actor, method: 1.0
    generation = 0
    with ElasticGroup(Worker, **options(cluster)) as group:
        for event in events:
            happen(cluster, group, event)
            change = group.sync()
            check(cluster, group)
            assert group.world.generation == generation + bool(change)
            generation = group.world.generation
            if event[0] == "map" and len(group):
                assert group.map("square", range(event[2])) == [n * n for n in range(event[2])]
        for _ in range(6):
            cluster.clock_s += 5
            group.sync()
        assert len(group) == min(room(cluster), group.target)
        assert cluster.demand == group.waiting == group.target - len(group)
        assert len(cluster.living) == len(group)
    assert empty(cluster)


@given(EVENTS, st.sampled_from([0.0, 0.8]), st.sampled_from([(1, 1), (2, 1), (1, 3)]))
def test_roles_keep_their_rules_and_end_in_fair_shares(
    events: list[tuple[str, str, int]], lag_s: float, weights: tuple[int, int]
) -> None:
    cluster = FakeCluster(*NAMES[:2])
    cluster.rooms_lag_s = lag_s
    groups = {
        name: ElasticGroup(Worker, **options(cluster, name=name, weight=weight))
        for name, weight in zip("ab", weights, strict=True)
    }
    with Roles(**groups) as roles:
        for index, event in enumerate(events):
            happen(cluster, roles["ab"[index % 2]], event)
            roles.sync()
            for group in roles.values():
                check(cluster, group)
            if event[0] == "map" and len(roles["a"]):
                assert roles["a"].map("square", [3]) == [9]
        worlds = []
        for _ in range(30):
            cluster.clock_s += 1
            roles.sync()
            worlds.append([group.world for group in roles.values()])
        assert worlds[-1] == worlds[-8]
        check_shares(cluster, roles)
    assert empty(cluster)


def check_shares(cluster: FakeCluster, roles: Roles) -> None:
    sizes = {name: len(group) for name, group in roles.items()}
    wants = {name: group.target for name, group in roles.items()}
    assert sum(sizes.values()) == min(room(cluster), sum(wants.values()))
    for poor, rich in (("a", "b"), ("b", "a")):
        weight = {name: group.engine.settings.weight for name, group in roles.items()}
        if sizes[poor] < wants[poor]:
            assert (sizes[poor] + 1) / weight[poor] >= sizes[rich] / weight[rich] - 1e-9
    if sizes == wants:
        assert cluster.demand == 0
    else:
        assert cluster.demand == sum(wants.values()) - sum(sizes.values())


def test_a_map_during_a_storm_ends() -> None:
    cluster = FakeCluster(*NAMES)
    cluster.takes = lambda actor, method: 3.0
    with ElasticGroup(Worker, **options(cluster)) as group:
        for at_s in range(1, 60, 2):
            cluster.at(at_s, lambda at_s=at_s: storm(cluster, at_s))  # type: ignore[misc]
        for _ in range(10):
            group.sync()
            try:
                assert group.map("square", range(12)) == [n * n for n in range(12)]
            except MemberLost as error:
                pytest.fail(f"no item can have cost three members here: {error}")
    assert empty(cluster)


def storm(cluster: FakeCluster, at_s: int) -> None:
    """End a node and bring another one, each time elsewhere."""
    name = NAMES[at_s % len(NAMES)]
    if name in cluster.nodes:
        cluster.lose(name)
    else:
        cluster.join(name)
