"""A group on a virtual cluster: it grows, shrinks, replaces, hands over, and leaves nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from heliostat.train import (
    ElasticGroup,
    GroupClosed,
    GroupError,
    Member,
    Reason,
    Throughput,
    TooFewMembers,
    TooManyRestarts,
    World,
)
from tests.unit.train.fake_cluster import FakeCluster

BUNDLE = {"GPU": 1.0, "CPU": 1.0}


class Trainer:
    def __init__(self, config: str = "") -> None:
        self.config = config
        self.state = "fresh"

    def square(self, number: int) -> int:
        return number * number

    def told(self, state: str) -> None:
        self.state = state

    def shown(self) -> str:
        return self.state


class Heir(Trainer):
    def leaving(self, deadline_s: float) -> tuple[str, float]:
        return self.state, deadline_s

    def take_over(self, state: tuple[str, float]) -> None:
        self.state = f"{state[0]} taken over"


def group_on(cluster: FakeCluster, *, min_size: int = 1, max_size: int = 4, **options: Any) -> ElasticGroup:
    actor_class = options.pop("actor_class", Trainer)
    return ElasticGroup(
        actor_class, bundle=BUNDLE, min_size=min_size, max_size=max_size, cluster=cluster, **options
    )


def nodes(group: ElasticGroup) -> list[str]:
    return [one.node_id for one in group]


def settle(group: ElasticGroup, *, syncs: int = 3) -> None:
    """Sync until what was placed is up: one look for the place, one for the start."""
    for _ in range(syncs):
        group.sync()


def empty(cluster: FakeCluster) -> bool:
    return not cluster.living and not cluster.open_groups


# --- Growing -----------------------------------------------------------------------------------


def test_it_takes_the_room_there_is_and_asks_for_more() -> None:
    cluster = FakeCluster("a", "b")
    with group_on(cluster) as group:
        settle(group)
        assert nodes(group) == ["a", "b"]
        assert [one.rank for one in group] == [0, 1]
        assert cluster.demand == group.waiting == 2
        assert cluster.figures.shown == {"size": 2, "target": 4}
    assert empty(cluster)
    assert cluster.figures.shown == {"size": 0, "target": 0}


def test_it_waits_for_min_size_and_no_longer() -> None:
    cluster = FakeCluster("a")
    cluster.at(20, lambda: cluster.join("b"))
    cluster.at(40, lambda: cluster.join("c"))
    with group_on(cluster, min_size=2) as group:
        assert nodes(group) == ["a", "b"]
        assert 120 <= cluster.clock_s < 121


def test_a_new_node_joins_at_the_next_steps() -> None:
    cluster = FakeCluster("a")
    cluster.start_s = 5
    with group_on(cluster) as group:
        # The first one reports with whom the block began.
        assert [one.node_id for one in group.sync().joined] == ["a"]
        assert not group.sync()
        cluster.join("b")
        assert not group.sync()
        cluster.clock_s += 6
        change = group.sync()
        assert [one.node_id for one in change.joined] == ["b"]
        assert (change.left, change.world, len(change.world)) == ((), group.world, 2)
        assert not group.sync()


def test_generation_grows_with_each_change_and_members_keep_theirs() -> None:
    cluster = FakeCluster("a")
    with group_on(cluster) as group:
        assert group.world.generation == 1
        cluster.join("b")
        settle(group)
        assert [one.generation for one in group.members] == [1, 2]
        cluster.drain("a")
        group.sync()
        assert group.world.generation == 3
        assert [(one.rank, one.generation) for one in group] == [(0, 2)]


def test_ids_are_never_used_again() -> None:
    cluster = FakeCluster("a")
    seen: list[str] = []
    with group_on(cluster, max_size=1, max_restarts=99) as group:
        for _ in range(5):
            seen += [one.id for one in group]
            cluster.kill(cluster.living[0])
            settle(group)
    assert len(set(seen)) == 5


# --- Targets -----------------------------------------------------------------------------------


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


# --- Losses ------------------------------------------------------------------------------------


def test_the_dead_are_replaced_at_the_next_sync() -> None:
    cluster = FakeCluster("a", "b")
    with group_on(cluster) as group:
        settle(group)
        cluster.kill(cluster.on("a")[0])
        change = group.sync()
        assert [(one.member.rank, one.reason, one.detail) for one in change.left] == [
            (0, Reason.DIED, "killed by signal 9")
        ]
        assert [(one.rank, one.node_id) for one in group] == [(0, "b")]
        settle(group)
        assert [(one.rank, one.node_id) for one in group] == [(0, "b"), (1, "a")]
        assert cluster.figures.added["replaced"] == 1


def test_below_min_size_a_sync_waits_for_successors() -> None:
    cluster = FakeCluster("a")
    cluster.start_s = 7
    with group_on(cluster) as group:
        group.sync()
        cluster.kill(cluster.living[0])
        change = group.sync()
        assert len(group) == 1
        assert (len(change.joined), len(change.left)) == (1, 1)


def test_a_clear_end_when_min_size_cannot_be_held() -> None:
    cluster = FakeCluster("a", "b")
    with group_on(cluster, min_size=2, timeout_s=60) as group:
        cluster.lose("b")
        with pytest.raises(TooFewMembers, match="1 members, fewer than 2, for 60 s; 3 × "):
            group.sync()
    assert cluster.clock_s == pytest.approx(160, abs=1)
    assert empty(cluster)


def test_a_crash_loop_ends() -> None:
    class Broken:
        def __init__(self) -> None:
            raise ValueError("no such data set")

    cluster = FakeCluster("a")
    group = group_on(cluster, actor_class=Broken, max_restarts=2)
    with pytest.raises(TooManyRestarts, match=r"more than 2 failures in 600 s, the last: .*no such data set"):
        group.__enter__()
    assert empty(cluster)


def test_lost_nodes_are_no_failures_of_the_group() -> None:
    cluster = FakeCluster("a")
    with group_on(cluster, max_restarts=0) as group:
        for name in "bcd":
            cluster.join(name)
            settle(group)
            cluster.lose(nodes(group)[0])
            group.sync()
        assert nodes(group) == ["d"]


def test_a_node_that_is_only_later_seen_to_be_gone_is_forgiven() -> None:
    cluster = FakeCluster("a", "b")
    cluster.join("c", {"GPU": 3.0, "CPU": 3.0})
    with group_on(cluster, max_restarts=1, max_size=5) as group:
        settle(group)
        for actor in cluster.on("c"):
            cluster.kill(actor, "unavailable")
        cluster.nodes["c"].drain_at_s = 1e9
        group.sync()
        cluster.lose("c")
        cluster.clock_s += 1
        cluster.kill(cluster.on("a")[0])
        assert len(group.sync().left) == 1


def test_what_does_not_come_up_is_replaced_and_counted() -> None:
    cluster = FakeCluster("a", "b")
    with group_on(cluster, start_timeout_s=10, max_restarts=1) as group:
        settle(group)
        cluster.start_s = 1e9
        cluster.join("c")
        group.sync()
        cluster.clock_s += 11
        group.sync()
        assert cluster.figures.added["replaced"] == 1
        group.sync()
        cluster.clock_s += 11
        with pytest.raises(TooManyRestarts, match="did not come up within 10 s"):
            group.sync()


def test_health_checks_find_the_sick_and_the_stuck() -> None:
    class Checked(Trainer):
        def check_health(self) -> None:
            if self.state == "sick":
                raise RuntimeError("the GPU fell off the bus")

    cluster = FakeCluster("a", "b")
    cluster.takes = lambda actor, method: 1e9 if actor.thing and actor.thing.state == "stuck" else 0.0
    with group_on(cluster, actor_class=Checked, health_every_s=30, health_timeout_s=60) as group:
        settle(group)
        calls = len(cluster.calls)
        group.sync()
        assert len(cluster.calls) == calls
        cluster.on("a")[0].thing.state, cluster.on("b")[0].thing.state = "sick", "stuck"
        left = []
        for _ in range(4):
            cluster.clock_s += 31
            left += [(one.member.node_id, one.detail) for one in group.sync().left]
        assert [node for node, _ in left] == ["a", "b"]
        assert "the GPU fell off the bus" in left[0][1]
        assert left[1][1] == "it did not answer its health check within 60 s"
        settle(group)
        assert len(group) == 2


# --- Draining ----------------------------------------------------------------------------------


def test_a_drained_member_hands_over_to_its_successor() -> None:
    cluster = FakeCluster("a", "b")
    with group_on(cluster, actor_class=Heir, leave_timeout_s=20) as group:
        settle(group)
        group.call("told", "epoch 7")
        cluster.drain("a", deadline_s=12)
        change = group.sync()
        assert [(one.member.node_id, one.reason, one.state) for one in change.left] == [
            ("a", Reason.DRAINED, ("epoch 7", 12.0))
        ]
        assert change.left[0].detail == "its node drains, 12 s left"
        cluster.lose("a")
        cluster.join("c")
        settle(group)
        assert group.call("shown") == ["epoch 7", "epoch 7 taken over"]


def test_all_of_a_node_are_asked_before_one_is_ended() -> None:
    cluster = FakeCluster()
    cluster.join("a", {"GPU": 2.0, "CPU": 2.0})
    living: list[int] = []

    class Counts(Heir):
        def leaving(self, deadline_s: float) -> tuple[str, float]:
            living.append(len(cluster.living))
            return self.state, deadline_s

    with group_on(cluster, actor_class=Counts, min_size=0, max_size=2) as group:
        settle(group)
        cluster.drain("a")
        group.sync()
        assert living == [2, 2]


def test_nobody_waits_long_for_one_that_does_not_leave() -> None:
    cluster = FakeCluster("a", "b")
    cluster.takes = lambda actor, method: 1e6 if method == "leaving" else 0.0
    with group_on(cluster, actor_class=Heir, leave_timeout_s=5) as group:
        settle(group)
        cluster.drain("a")
        change = group.sync()
        assert change.left[0].state is None
        assert cluster.clock_s == pytest.approx(105, abs=0.5)


def test_nobody_waits_for_one_that_dies_while_it_leaves() -> None:
    cluster = FakeCluster("a", "b")
    cluster.takes = lambda actor, method: 1e6 if method == "leaving" else 0.0
    with group_on(cluster, actor_class=Heir) as group:
        settle(group)
        cluster.drain("a")
        begun_s = cluster.clock_s
        cluster.at(2, lambda: cluster.lose("a"))
        change = group.sync()
        assert [(one.reason, one.state) for one in change.left] == [(Reason.DRAINED, None)]
        assert cluster.clock_s - begun_s == pytest.approx(2)


def test_an_error_in_leaving_costs_the_state_and_no_more() -> None:
    class Bad(Heir):
        def leaving(self, deadline_s: float) -> tuple[str, float]:
            raise RuntimeError("disk full")

    cluster = FakeCluster("a", "b")
    with group_on(cluster, actor_class=Bad) as group:
        settle(group)
        cluster.drain("a")
        assert [one.state for one in group.sync().left] == [None]


def test_a_state_that_could_not_be_taken_over_goes_to_the_next() -> None:
    fails = [True]

    class Once(Heir):
        def take_over(self, state: tuple[str, float]) -> None:
            if fails.pop() if fails else False:
                raise RuntimeError("out of memory")
            super().take_over(state)

    cluster = FakeCluster("a", "b")
    with group_on(cluster, actor_class=Once) as group:
        settle(group)
        cluster.drain("a")
        group.sync()
        cluster.join("c")
        settle(group, syncs=6)
        assert fails == []
        assert group.call("shown") == ["fresh", "fresh taken over"]
        assert cluster.figures.added["replaced"] == 1


def test_a_state_that_nobody_can_take_over_is_given_up(caplog: pytest.LogCaptureFixture) -> None:
    class Cursed(Heir):
        def take_over(self, state: tuple[str, float]) -> None:
            raise ValueError("a wrong shape")

    cluster = FakeCluster("a", "b")
    with group_on(cluster, actor_class=Cursed, max_size=2) as group:
        settle(group)
        cluster.drain("a")
        group.sync()
        cluster.join("c")
        settle(group, syncs=12)
        assert group.call("shown") == ["fresh", "fresh"]
        assert cluster.figures.added["replaced"] == 3
        assert "given up, 3 successors have failed with it, the last: take_over failed: " in caplog.text
        assert "a wrong shape" in caplog.text


def test_a_node_that_goes_is_not_held_against_the_state() -> None:
    cluster = FakeCluster("a", "b")
    cluster.takes = lambda actor, method: 5.0 if method == "take_over" else 0.0
    with group_on(cluster, actor_class=Heir, max_size=2) as group:
        settle(group)
        cluster.drain("a")
        group.sync()
        for name in "cdef":
            cluster.join(name)
            settle(group, syncs=2)
            cluster.lose(name)
            group.sync()
        cluster.join("g")
        settle(group, syncs=2)
        cluster.clock_s += 6
        group.sync()
        assert group.call("shown") == ["fresh", "fresh taken over"]


def test_states_are_kept_only_for_those_who_can_take_them_over() -> None:
    class Writes(Trainer):
        def leaving(self, deadline_s: float) -> str:
            return "x" * 1000

    cluster = FakeCluster("a", "b")
    with group_on(cluster, actor_class=Writes) as group:
        settle(group)
        cluster.drain("a")
        assert group.sync().left[0].state == "x" * 1000
        assert not group.engine.roster._estates


def test_the_state_of_a_successor_that_answers_and_dies_goes_to_the_next() -> None:
    cluster = FakeCluster("a", "b")
    with group_on(cluster, actor_class=Heir, max_size=2) as group:
        settle(group)
        cluster.drain("a")
        group.sync()
        cluster.join("c")
        settle(group, syncs=2)
        (heir,) = cluster.on("c")
        cluster.finish(heir)
        assert heir.thing.state == "fresh taken over"
        cluster.kill(heir)
        settle(group, syncs=6)
        assert group.call("shown") == ["fresh", "fresh taken over"]


@pytest.mark.parametrize(
    ("takes_s", "shown"), [(0.0, "fresh taken over taken over"), (1e6, "fresh taken over")]
)
def test_the_state_of_a_successor_that_is_not_wanted_goes_to_the_next(takes_s: float, shown: str) -> None:
    cluster = FakeCluster("a", "b")
    with group_on(cluster, actor_class=Heir, max_size=2) as group:
        settle(group)
        cluster.drain("a")
        group.sync()
        cluster.join("c")
        settle(group, syncs=2)
        group.target = 1
        cluster.takes = lambda actor, method: takes_s if method == "leaving" else 0.0
        # It takes over, and is one too many, both at this sync.
        assert not group.sync()
        assert cluster.on("c") == []
        group.target = 2
        settle(group, syncs=4)
        assert group.call("shown") == ["fresh", shown]


def test_a_released_member_may_leave_its_state_too() -> None:
    cluster = FakeCluster("a", "b")
    with group_on(cluster, actor_class=Heir, leave_timeout_s=20) as group:
        settle(group)
        group.target = 1
        change = group.sync()
        assert change.left[0].state == ("fresh", 20)
        group.target = 2
        settle(group)
        # It is nobody's successor: nothing is taken over.
        assert group.call("shown") == ["fresh", "fresh"]


def test_one_that_is_needed_works_on_until_its_successor_is_up() -> None:
    cluster = FakeCluster("a")
    cluster.start_s = 5
    with group_on(cluster, actor_class=Heir, max_size=1) as group:
        group.sync()
        cluster.drain("a", deadline_s=600)
        for epoch in range(30):
            assert not group.sync()
            assert group.call("told", f"epoch {epoch}") == [None]
            cluster.clock_s += 10
        cluster.join("b")
        group.sync()
        cluster.clock_s += 6
        change = group.sync()
        assert [one.state[0] for one in change.left] == ["epoch 29"]
        assert (nodes(group), group.call("shown")) == (["b"], ["epoch 29 taken over"])


def test_one_that_is_needed_leaves_in_time_without_a_successor() -> None:
    cluster = FakeCluster("a")
    asked_s: list[float] = []

    class Noted(Heir):
        def leaving(self, deadline_s: float) -> tuple[str, float]:
            asked_s.append(cluster.clock_s)
            return self.state, deadline_s

    with group_on(cluster, actor_class=Noted, leave_timeout_s=30) as group:
        group.sync()
        begun_s = cluster.clock_s
        cluster.drain("a", deadline_s=200)
        cluster.at(300, lambda: cluster.join("b"))
        while nodes(group) == ["a"]:
            cluster.clock_s += 20
            group.sync()
        # Steps take 20 s: had it waited for another, the next sync might have come too late.
        assert [one - begun_s for one in asked_s] == [140]
        assert 300 <= cluster.clock_s - begun_s <= 302
        assert (nodes(group), group.call("shown")) == (["b"], ["fresh taken over"])


def test_nothing_starts_on_a_node_that_drains() -> None:
    cluster = FakeCluster("a")
    cluster.start_s = 5
    with group_on(cluster) as group:
        cluster.join("b")
        group.sync()
        cluster.drain("b")
        settle(group)
        assert nodes(group) == ["a"]
        assert cluster.on("b") == []
        assert cluster.demand == 3


# --- Hooks -------------------------------------------------------------------------------------


def test_hooks_hear_of_everything_in_its_order() -> None:
    cluster = FakeCluster("a")
    heard: list[str] = []

    def joined(member: Member) -> None:
        heard.append(f"join {member.node_id} as {member.rank}")

    def left(member: Member, reason: Reason) -> None:
        heard.append(f"leave {member.node_id}: {reason}")

    def resized(world: World) -> None:
        heard.append(f"size {len(world)}: {group.call('shown')}")

    group = group_on(cluster, on_join=joined, on_leave=left, on_resize=resized)
    with group:
        cluster.join("b")
        settle(group)
        cluster.drain("a")
        group.sync()
        group.sync()
    assert heard == [
        "join a as 0",
        "size 1: ['fresh']",
        "join b as 1",
        "size 2: ['fresh', 'fresh']",
        "leave a: drained",
        "size 1: ['fresh']",
    ]


def test_a_hook_must_not_sync() -> None:
    group = group_on(FakeCluster("a"), on_resize=lambda world: group.sync())
    with pytest.raises(GroupError, match="none in a hook"), group:
        pass


# --- The block ---------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_nothing_is_left_after_an_exception(error: type[BaseException]) -> None:
    cluster = FakeCluster("a", "b")
    with pytest.raises(error), group_on(cluster):
        raise error
    assert empty(cluster)


@pytest.mark.parametrize("method", ["ask", "start", "look", "pause"])
def test_nothing_is_left_when_the_wait_for_min_size_is_interrupted(
    method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster = FakeCluster("a")
    real, calls = getattr(cluster, method), []

    def interrupted(*args: Any, **kwargs: Any) -> Any:
        calls.append(real(*args, **kwargs))
        if len(calls) == 2 or method == "start":
            # What was made just now has not got to the group.
            raise KeyboardInterrupt
        return calls[-1]

    monkeypatch.setattr(cluster, method, interrupted)
    with pytest.raises(KeyboardInterrupt), group_on(cluster, min_size=2):
        pass
    assert cluster.open_groups == []


def test_a_closed_group_stays_closed() -> None:
    group = group_on(FakeCluster("a"))
    with pytest.raises(GroupClosed):
        group.sync()
    with group:
        assert len(group) == 1
    assert len(group) == 0
    for use in (group.sync, group.__enter__, lambda: group.map("square", [1]), lambda: group.call("shown")):
        with pytest.raises(GroupClosed):
            use()


def test_one_look_is_all_that_a_quiet_sync_costs() -> None:
    cluster = FakeCluster(*(f"n{number}" for number in range(16)))
    with group_on(cluster, max_size=16) as group:
        settle(group)
        looks, calls = cluster.looks, len(cluster.calls)
        assert not group.sync()
        assert (cluster.looks - looks, len(cluster.calls) - calls) == (1, 0)


async def test_the_same_without_blocking_the_event_loop() -> None:
    cluster = FakeCluster("a", "b")
    heard: list[int] = []

    async def resized(world: World) -> None:
        await asyncio.sleep(0)
        heard.append(len(world))

    async with group_on(cluster, on_resize=resized) as group:
        for _ in range(3):
            await group.async_sync()
        assert await group.async_map("square", range(5)) == [0, 1, 4, 9, 16]
        assert await group.async_call("shown") == ["fresh", "fresh"]
    assert heard[-1] == 2
    assert empty(cluster)


def test_an_async_hook_needs_an_event_loop() -> None:
    async def resized(world: World) -> None: ...

    with pytest.raises(TypeError, match="async_sync"), group_on(FakeCluster("a"), on_resize=resized):
        pass
