"""How many a group wants: numbers, functions, what pays, and what each costs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from heliostat.train import (
    Reason,
    Throughput,
)
from tests.unit.train.fake_cluster import FakeCluster
from tests.unit.train.test_group import empty, group_on, nodes, settle


def test_demand_is_withdrawn_when_the_target_falls() -> None:
    cluster = FakeCluster("a", "b")
    with group_on(cluster) as group:
        settle(group)
        assert cluster.demand == 2
        group.target = 3
        group.sync()
        assert (cluster.demand, group.target, len(group)) == (1, 3, 2)
        group.target = 1
        change = group.sync()
        assert (cluster.demand, nodes(group)) == (0, ["a"])
        assert [(one.member.node_id, one.reason) for one in change.left] == [("b", Reason.RELEASED)]
        assert len(cluster.open_groups) == 1


@pytest.mark.parametrize(("target", "size"), [(0, 1), (2, 2), (9, 4), (None, 4)])
def test_a_target_stays_within_the_limits(target: int | None, size: int) -> None:
    cluster = FakeCluster("a", "b", "c", "d", "e")
    with group_on(cluster, target=target) as group:
        settle(group)
        assert (len(group), group.target) == (size, size)


def test_a_target_may_be_a_function() -> None:
    cluster = FakeCluster("a", "b", "c")
    with group_on(cluster, target=lambda group: group.steps + 1) as group:
        settle(group)
        assert len(group) == 1
        group.map("square", [1])
        settle(group)
        assert len(group) == 2


def test_a_target_function_must_return_a_number() -> None:
    cluster = FakeCluster("a")
    with pytest.raises(TypeError, match="no whole number"), group_on(cluster, target=lambda group: "many"):
        pass
    assert empty(cluster)


@pytest.mark.parametrize("wanted", [1.5, "2", True])
def test_a_target_that_is_none_is_told_where_it_is_set(wanted: Any) -> None:
    with group_on(FakeCluster("a", "b")) as group:
        with pytest.raises(
            ValueError, match=r"target is .*: None, a whole number, a function, or Throughput"
        ):
            group.target = wanted
        settle(group)
        assert (len(group), group.target) == (2, 4)


@pytest.mark.parametrize("wanted", [np.int64(2), lambda group: np.int32(2), lambda group: np.array(7) - 5])
def test_a_target_may_be_a_whole_number_of_numpy(wanted: Any) -> None:
    for options in ({"target": wanted}, {}):
        with group_on(FakeCluster("a", "b", "c"), **options) as group:
            group.target = wanted
            settle(group)
            assert (len(group), group.target) == (2, 2)
            assert type(group.target) is int


def test_throughput_grows_while_it_pays_and_gives_back_what_does_not() -> None:
    cluster = FakeCluster("a", "b", "c", "d", "e")
    # Beyond two, members share one thing, and each gets slower.
    cluster.takes = lambda actor, method: 1.0 if len(group) <= 2 else len(group) / 2
    sizes, demands = [], []
    with group_on(cluster, target=Throughput(gain=0.5), max_size=5) as group:
        for _ in range(60):
            group.sync()
            sizes.append(len(group))
            demands.append(cluster.demand)
            group.map("square", range(6 * len(group)))
    assert max(sizes) == 3
    assert sizes[-20:] == [2] * 20
    assert demands[-20:] == [0] * 20


@pytest.mark.parametrize(
    ("step_s", "sizes"),
    [
        # A step that takes as long with any number of members, and one that is cut in as many parts.
        (lambda size: 1.0, (1, 2)),
        (lambda size: 1.0 / size, (5, 5)),
    ],
)
@pytest.mark.parametrize("method", ["map", "call"])
def test_a_fixed_batch_is_as_much_work_for_any_number(
    step_s: Callable[[int], float], sizes: tuple[int, int], method: str
) -> None:
    cluster = FakeCluster("a", "b", "c", "d", "e")
    cluster.takes = lambda actor, method: step_s(len(group))
    seen: list[int] = []
    with group_on(cluster, target=Throughput(gain=0.5), max_size=5) as group:
        for _ in range(60):
            group.sync()
            seen.append(len(group))
            if method == "map":
                group.map("square", range(len(group)), amount=64)
            else:
                group.call("square", 3, amount=64)
        assert group.steps == 60
        assert cluster.figures.added["steps"] == 60
    assert (seen[-1], max(seen)) == sizes


def test_a_call_without_an_amount_is_no_step() -> None:
    cluster = FakeCluster("a", "b")
    cluster.takes = lambda actor, method: 1.0
    with group_on(cluster, target=Throughput()) as group:
        for _ in range(10):
            group.sync()
            group.call("square", 3)
        assert (group.steps, len(group)) == (0, 1)


@pytest.mark.parametrize("amount", [-1, float("nan"), float("inf")])
def test_an_amount_must_be_one(amount: float) -> None:
    with group_on(FakeCluster("a")) as group:
        with pytest.raises(ValueError, match="it must be 0 or more"):
            group.map("square", [1], amount=amount)
        with pytest.raises(ValueError, match="it must be 0 or more"):
            group.call("square", 1, amount=amount)


def test_the_costliest_leaves_first() -> None:
    cluster = FakeCluster("dear", "cheap")
    cluster.takes = lambda actor, method: float(len(group))
    price = {"dear": 9.0, "cheap": 1.0}
    target = Throughput(cost=lambda member: price[member.node_id])
    with group_on(cluster, target=target) as group:
        for _ in range(30):
            group.sync()
            group.map("square", range(4))
        assert nodes(group) == ["cheap"]


def test_what_costs_nothing_is_used_and_what_costs_after_it_is_not() -> None:
    cluster = FakeCluster("own", "own2", "dear")
    cluster.takes = lambda actor, method: 1.0
    target = Throughput(cost=lambda member: float(member.node_id == "dear"))
    with group_on(cluster, target=target) as group:
        for _ in range(30):
            group.sync()
            group.map("square", range(12))
        assert nodes(group) == ["own", "own2"]


@pytest.mark.parametrize("cost", [-1.0, float("nan"), float("inf")])
def test_a_cost_must_be_one(cost: float) -> None:
    cluster = FakeCluster("a")
    target = Throughput(cost=lambda member: cost)
    with group_on(cluster, target=target) as group, pytest.raises(ValueError, match="it must be 0 or more"):
        group.sync()
    assert empty(cluster)
