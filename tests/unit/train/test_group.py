"""A group on a virtual cluster: it grows, shrinks, replaces, hands over, and leaves nothing."""

from __future__ import annotations

from typing import Any

import pytest

from heliostat.train import ElasticGroup, Reason
from tests.unit.train.fake_cluster import FakeCluster

BUNDLE = {"GPU": 1.0, "CPU": 1.0}


class Trainer:
    def __init__(self, config: str = "") -> None:
        self.config = config

    def square(self, number: int) -> int:
        return number * number


def group_on(cluster: FakeCluster, *, min_size: int = 1, max_size: int = 4, **options: Any) -> ElasticGroup:
    actor_class = options.pop("actor_class", Trainer)
    return ElasticGroup(
        actor_class, bundle=BUNDLE, min_size=min_size, max_size=max_size, cluster=cluster, **options
    )


def test_it_takes_the_room_there_is_and_asks_for_more() -> None:
    cluster = FakeCluster("a", "b")
    with group_on(cluster) as group:
        group.sync()
        assert [one.node_id for one in group] == ["a", "b"]
        assert [one.rank for one in group] == [0, 1]
        assert cluster.demand == 2
        assert group.map("square", [1, 2, 3]) == [1, 4, 9]
    assert (cluster.living, cluster.open_groups) == ([], [])


def test_a_drained_member_leaves_and_is_replaced() -> None:
    cluster = FakeCluster("a", "b")
    with group_on(cluster) as group:
        group.sync()
        cluster.drain("a")
        change = group.sync()
        assert [(one.member.node_id, one.reason) for one in change.left] == [("a", Reason.DRAINED)]
        assert [(one.rank, one.node_id) for one in group] == [(0, "b")]
        cluster.join("c")
        group.sync()
        group.sync()
        assert [(one.rank, one.node_id) for one in group] == [(0, "b"), (1, "c")]


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_nothing_is_left_after_an_exception(error: type[BaseException]) -> None:
    cluster = FakeCluster("a", "b")
    with pytest.raises(error), group_on(cluster):
        raise error
    assert (cluster.living, cluster.open_groups) == ([], [])
