"""A group on a virtual cluster: it grows, shrinks, replaces, hands over, and leaves nothing."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from heliostat.train import (
    ElasticGroup,
    GroupClosed,
    GroupError,
    Member,
    Reason,
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
