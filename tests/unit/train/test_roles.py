"""Several groups on one virtual cluster: shares by weight and minimum, given back between steps."""

from __future__ import annotations

from typing import Any

import pytest

from heliostat.train import ElasticGroup, GroupClosed, Reason, Roles, TooFewMembers
from tests.unit.train.fake_cluster import FakeCluster, Group
from tests.unit.train.test_group import BUNDLE, Heir, Trainer, empty


def role(cluster: FakeCluster, name: str, **options: Any) -> ElasticGroup:
    sizes = {"min_size": options.pop("min_size", 1), "max_size": options.pop("max_size", 8)}
    actor_class = options.pop("actor_class", Trainer)
    return ElasticGroup(actor_class, bundle=BUNDLE, name=name, cluster=cluster, **sizes, **options)


def settle(roles: Roles, cluster: FakeCluster, *, syncs: int = 8) -> dict[str, int]:
    for _ in range(syncs):
        cluster.clock_s += 0.5
        roles.sync()
    return {name: len(group) for name, group in roles.items()}


def cluster_of(count: int) -> FakeCluster:
    return FakeCluster(*(f"n{number}" for number in range(count)))


@pytest.mark.parametrize(
    ("nodes", "weights", "sizes"),
    [
        (4, (1, 1), {"a": 2, "b": 2}),
        (4, (3, 1), {"a": 3, "b": 1}),
        (2, (9, 1), {"a": 1, "b": 1}),
        (8, (1, 3), {"a": 2, "b": 6}),
    ],
)
def test_the_cluster_is_divided_by_weights(
    nodes: int, weights: tuple[float, float], sizes: dict[str, int]
) -> None:
    cluster = cluster_of(nodes)
    groups = {name: role(cluster, name, weight=weight) for name, weight in zip("ab", weights, strict=True)}
    with Roles(**groups) as roles:
        assert settle(roles, cluster) == sizes
        assert cluster.demand == 16 - nodes
    assert empty(cluster)


def test_the_greedy_one_gives_back_when_another_comes() -> None:
    cluster = cluster_of(4)
    first, second = role(cluster, "first", actor_class=Heir), role(cluster, "second")
    with first:
        for _ in range(3):
            first.sync()
        assert len(first) == 4
        with Roles(first=first, second=second) as roles:
            assert settle(roles, cluster) == {"first": 2, "second": 2}
        assert len(first) == 2
        # What was opened outside stays open.
        assert first.map("square", [3]) == [9]
    assert empty(cluster)


def test_what_one_does_not_want_the_other_gets_and_gives_back() -> None:
    cluster = cluster_of(4)
    with Roles(a=role(cluster, "a"), b=role(cluster, "b", target=1)) as roles:
        assert settle(roles, cluster) == {"a": 3, "b": 1}
        roles["b"].target = 8
        cluster.clock_s += 2
        left = [one for _ in range(6) for one in _left_after(roles, cluster, "a")]
        assert [one.reason for one in left] == [Reason.RELEASED]
        assert {name: len(group) for name, group in roles.items()} == {"a": 2, "b": 2}


def _left_after(roles: Roles, cluster: FakeCluster, name: str) -> Any:
    cluster.clock_s += 0.6
    return roles.sync()[name].left


def test_new_nodes_end_up_shared_and_nobody_moves_in_vain() -> None:
    cluster = cluster_of(2)
    with Roles(a=role(cluster, "a"), b=role(cluster, "b")) as roles:
        settle(roles, cluster)
        for name in ("x", "y", "z", "w"):
            cluster.join(name)
        assert settle(roles, cluster, syncs=20) == {"a": 3, "b": 3}
        worlds = [group.world for group in roles.values()]
        settle(roles, cluster, syncs=20)
        assert [group.world for group in roles.values()] == worlds


def test_a_lost_node_is_borne_by_who_can() -> None:
    cluster = cluster_of(3)
    with Roles(a=role(cluster, "a", min_size=2), b=role(cluster, "b", min_size=0, weight=5)) as roles:
        assert settle(roles, cluster) == {"a": 2, "b": 1}
        cluster.lose(roles["a"].members[0].node_id)
        assert settle(roles, cluster) == {"a": 2, "b": 0}


def test_a_minimum_that_cannot_be_held_ends_it_and_leaves_nothing() -> None:
    cluster = cluster_of(1)
    groups = {name: role(cluster, name, timeout_s=60) for name in "ab"}
    with pytest.raises(TooFewMembers, match="b: 0 members, fewer than 1"), Roles(**groups):
        pass
    assert empty(cluster)


def test_from_zero_nodes_all_of_the_demand_is_seen() -> None:
    cluster = cluster_of(0)
    seen: list[int] = []
    cluster.at(5, lambda: seen.append(cluster.demand))
    cluster.at(6, lambda: [cluster.join(f"n{number}") for number in range(2)])  # type: ignore[func-returns-value]
    with Roles(a=role(cluster, "a"), b=role(cluster, "b")) as roles:
        assert seen == [16]
        assert settle(roles, cluster) == {"a": 1, "b": 1}


def test_a_block_is_for_groups_that_are_new_or_open() -> None:
    cluster = cluster_of(2)
    roles = Roles(a=role(cluster, "a"), b=role(cluster, "b"))
    with roles:
        pass
    with pytest.raises(GroupClosed), roles:
        pass
    # A new one beside it is not left open.
    with pytest.raises(GroupClosed), Roles(new=role(cluster, "new"), b=roles["b"]):
        pass
    assert empty(cluster)


async def test_the_same_without_blocking_the_event_loop() -> None:
    cluster = cluster_of(4)
    async with Roles(a=role(cluster, "a"), b=role(cluster, "b")) as roles:
        for _ in range(6):
            cluster.clock_s += 0.5
            await roles.async_sync()
        assert [len(group) for group in roles.values()] == [2, 2]
    assert empty(cluster)


@pytest.mark.parametrize("step_s", [5, 29, 31, 60, 300])
def test_capacity_is_given_back_however_long_steps_are(step_s: float) -> None:
    cluster = cluster_of(4)
    with Roles(a=role(cluster, "a"), b=role(cluster, "b", target=1)) as roles:
        assert settle(roles, cluster) == {"a": 3, "b": 1}
        roles["b"].target = 8
        for _ in range(6):
            roles.sync()
            cluster.clock_s += step_s
        assert {name: len(group) for name, group in roles.items()} == {"a": 2, "b": 2}


def test_one_long_pause_does_not_end_the_sharing() -> None:
    cluster = cluster_of(4)
    with Roles(a=role(cluster, "a"), b=role(cluster, "b", target=1)) as roles:
        settle(roles, cluster)
        roles["b"].target = 8
        roles.sync()
        cluster.clock_s += 40
        roles.sync()
        assert settle(roles, cluster, syncs=4) == {"a": 2, "b": 2}


def test_one_that_can_never_be_placed_does_not_end_the_sharing(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = cluster_of(6)
    ask = cluster.ask

    def never_for_c(name: str, recipe: Any) -> Any:
        # Ray's figures say that there is room for it, and Ray does not place it.
        return Group(name, recipe.bundle) if recipe.args == ("c",) else ask(name, recipe)

    monkeypatch.setattr(cluster, "ask", never_for_c)
    groups = {"a": role(cluster, "a"), "b": role(cluster, "b", target=1)}
    with Roles(**groups, c=role(cluster, "c", min_size=0, args=("c",))) as roles:
        # All hold back for c for a while, and then no more.
        settle(roles, cluster, syncs=20)
        assert len(roles["a"]) < 5
        assert settle(roles, cluster, syncs=80) == {"a": 5, "b": 1, "c": 0}
        worlds = [group.world for group in roles.values()]
        settle(roles, cluster, syncs=100)
        assert [group.world for group in roles.values()] == worlds
        roles["b"].target = 8
        assert settle(roles, cluster, syncs=10) == {"a": 3, "b": 3, "c": 0}
        assert roles["c"].waiting == 8
