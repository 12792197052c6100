"""`map` and `call` on a virtual cluster: who works at what, and what becomes of it when members go."""

from __future__ import annotations

import contextlib
from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heliostat.train import Dropped, Failure, MemberLost, Reason, Roles
from heliostat.train.errors import TooFewMembers, TooManyRestarts
from tests.unit.train.fake_cluster import FakeCluster
from tests.unit.train.test_group import Heir, Trainer, empty, group_on, nodes, settle
from tests.unit.train.test_roles import role


class Worker(Trainer):
    done: list[int]

    def work(self, item: int) -> int:
        Worker.done.append(item)
        return item * 10

    def fails(self, item: int) -> None:
        raise ValueError(f"bad item {item}")


@pytest.fixture
def cluster() -> FakeCluster:
    Worker.done = []
    cluster = FakeCluster("a", "b", "c")
    cluster.takes = lambda actor, method: 10.0
    return cluster


def running(cluster: FakeCluster, **options: Any) -> Any:
    return group_on(cluster, actor_class=options.pop("actor_class", Worker), **options)


@pytest.mark.parametrize("count", [0, 1, 3, 7])
def test_results_are_in_the_order_of_items(cluster: FakeCluster, count: int) -> None:
    with running(cluster) as group:
        settle(group)
        begun_s = cluster.clock_s
        assert group.map("work", iter(range(count))) == [10 * item for item in range(count)]
        assert cluster.clock_s - begun_s == pytest.approx(10 * -(-count // 3))
        assert group.steps == 1


def test_the_first_items_go_to_the_ranks_in_order(cluster: FakeCluster) -> None:
    with running(cluster) as group:
        settle(group)
        group.map("work", [5, 6, 7])
        assert cluster.calls == [("a", "work"), ("b", "work"), ("c", "work")]


def test_an_item_of_a_lost_member_goes_to_another(cluster: FakeCluster) -> None:
    with running(cluster) as group:
        settle(group)
        cluster.at(4, lambda: cluster.kill(cluster.on("b")[0]))
        assert group.map("work", range(6)) == [0, 10, 20, 30, 40, 50]
        assert sorted(Worker.done) == list(range(6))
        assert len(group) == 3
        assert cluster.figures.added["lost_work_s"] == pytest.approx(4)
        change = group.sync()
        assert [(one.member.node_id, one.reason) for one in change.left] == [("b", Reason.DIED)]


def test_drop_leaves_a_mark_in_its_place(cluster: FakeCluster) -> None:
    with running(cluster) as group:
        settle(group)
        cluster.at(4, lambda: cluster.kill(cluster.on("b")[0]))
        results = group.map("work", range(3), on_failure=Failure.DROP)
        assert results == [0, Dropped(1, "killed by signal 9"), 20]


def test_drop_with_nobody_left_drops_the_rest(cluster: FakeCluster) -> None:
    with running(cluster, max_size=1) as group:
        cluster.at(4, lambda: cluster.kill(cluster.living[0]))
        results = group.map("work", range(2), on_failure=Failure.DROP)
        assert results == [Dropped(0, "killed by signal 9"), Dropped(1, "no member is left")]


def test_raise_says_who_and_what(cluster: FakeCluster) -> None:
    with running(cluster) as group:
        settle(group)
        cluster.at(4, lambda: cluster.kill(cluster.on("b")[0]))
        with pytest.raises(MemberLost, match="work: item 1: killed by signal 9"):
            group.map("work", range(3), on_failure=Failure.RAISE)
        group.sync()
        assert group.map("work", [1]) == [10]
    assert empty(cluster)


def test_what_to_do_on_failure_may_be_said_in_words(cluster: FakeCluster) -> None:
    with running(cluster) as group:
        settle(group)
        cluster.at(4, lambda: cluster.kill(cluster.on("b")[0]))
        with pytest.raises(MemberLost, match="work: item 1: killed by signal 9"):
            group.map("work", range(3), on_failure="raise")
        with pytest.raises(ValueError, match="on_failure is 'ignore': it must be retry, drop, raise"):
            group.map("work", range(3), on_failure="ignore")


def test_an_error_of_the_method_is_raised_as_it_is(cluster: FakeCluster) -> None:
    with running(cluster) as group:
        settle(group)
        with pytest.raises(ValueError, match="bad item 0"):
            group.map("fails", range(3))
        assert group.steps == 0


def test_with_nobody_left_a_map_waits_for_successors(cluster: FakeCluster) -> None:
    joined: list[str] = []
    with running(cluster, max_size=1, on_join=lambda member: joined.append(member.node_id)) as group:
        cluster.at(4, lambda: cluster.lose("a"))
        assert group.map("work", range(3)) == [0, 10, 20]
        assert joined == ["a", "b"]
        change = group.sync()
        assert ([one.member.node_id for one in change.left], nodes(group)) == (["a"], ["b"])
        assert [one.node_id for one in change.joined] == ["a", "b"]
        assert joined == ["a", "b"]


@pytest.mark.parametrize("min_size", [0, 1])
def test_a_map_does_not_wait_for_successors_for_ever(min_size: int) -> None:
    cluster = FakeCluster("a")
    cluster.takes = lambda actor, method: 10.0
    Worker.done = []
    with running(cluster, min_size=min_size, timeout_s=60) as group:
        settle(group)
        cluster.at(4, lambda: cluster.lose("a"))
        with pytest.raises(TooFewMembers):
            group.map("work", [1])
        assert cluster.clock_s == pytest.approx(164, abs=1)


@pytest.mark.parametrize(("on_failure", "node_s"), [(Failure.RETRY, 100), (Failure.RETRY, 29.9)])
def test_the_time_of_a_map_holds_while_it_waits_for_successors(on_failure: Failure, node_s: float) -> None:
    cluster = FakeCluster("a")
    cluster.takes = lambda actor, method: 10.0
    Worker.done = []
    with running(cluster) as group:
        settle(group)
        begun_s = cluster.clock_s
        cluster.at(4, lambda: cluster.lose("a"))
        cluster.at(node_s, lambda: cluster.join("b"))
        with pytest.raises(MemberLost, match="no answer within 30 s"):
            group.map("work", [1], on_failure=on_failure, timeout_s=30)
        assert cluster.clock_s - begun_s == pytest.approx(30)
        group.sync()
        assert nodes(group) == ["b"]


def test_one_that_came_too_late_for_a_map_is_not_blamed() -> None:
    cluster = FakeCluster("a")
    cluster.takes = lambda actor, method: 10.0
    Worker.done = []
    with running(cluster, max_size=1) as group:
        settle(group)
        cluster.at(4, lambda: cluster.lose("a"))
        cluster.at(6, lambda: cluster.join("b"))
        cluster.start_s = 30
        with pytest.raises(MemberLost, match="no answer within 30 s"):
            group.map("work", [1], timeout_s=30)
        actor = cluster.on("b")[0]
        group.sync()
        assert [one.actor for one in group] == [actor]


def test_a_map_that_waits_asks_for_no_more_than_there_was() -> None:
    cluster = FakeCluster("a", "b", "c", "d")
    groups = {"a": role(cluster, "a"), "b": role(cluster, "b", target=1)}
    with Roles(**groups) as roles:
        for _ in range(8):
            cluster.clock_s += 0.5
            roles.sync()
        assert {name: len(one) for name, one in roles.items()} == {"a": 3, "b": 1}
        roles["b"].target = 8
        roles.sync()
        # The others hold back, and so does it: its share is two.
        assert cluster.demand == 1
        cluster.kill(roles["b"].members[0].actor)
        assert roles["b"].map("square", [3]) == [9]
        assert len(cluster.open_groups) == 5


@pytest.mark.parametrize("hook", ["join", "leave", "size"])
def test_a_map_in_a_hook_may_lose_everybody(hook: str) -> None:
    cluster = FakeCluster("a")
    cluster.takes = lambda actor, method: 10.0
    Worker.done = []
    heard: list[str] = []
    results: list[int] = []

    def note(what: str) -> None:
        heard.append(what)
        if what == hook and not results:
            cluster.at(4, lambda: cluster.kill(cluster.living[0]))
            results.extend(group.map("work", [1, 2]))

    group = running(
        cluster,
        max_size=1,
        on_join=lambda member: note("join"),
        on_leave=lambda member, reason: note("leave"),
        on_resize=lambda world: note("size"),
    )
    with group:
        if hook == "leave":
            cluster.kill(cluster.living[0])
        change = group.sync()
        assert results == [10, 20]
        assert (len(change.left), len(group)) == (heard.count("leave"), 1)
        # Whatever was going on, the hooks hear of the successor after that, and of the size last.
        assert heard[-3:] == ["leave", "join", "size"]
    assert empty(cluster)


def test_a_map_in_a_hook_of_roles_may_lose_everybody_of_another() -> None:
    cluster = FakeCluster("x", "y")
    heard: list[str] = []

    def joined(_: Any) -> None:
        for actor in cluster.living:
            if actor is roles["a"].members[0].actor:
                cluster.kill(actor)
        heard.extend(f"square {one}" for one in roles["a"].map("square", [3]))

    groups = {"a": role(cluster, "a", on_leave=lambda member, reason: heard.append("a left"))}
    roles = Roles(**groups, b=role(cluster, "b", on_join=joined))
    with roles:
        assert heard == ["square 9", "a left"]


def test_an_item_that_ends_its_members_is_not_given_for_ever(cluster: FakeCluster) -> None:
    cluster.takes = lambda actor, method: 1e9
    for after in (1, 2, 3):
        cluster.at(after, lambda: cluster.kill(next(one for one in cluster.living if one.free_at_s > 1e6)))
    with running(cluster) as group:
        settle(group)
        with pytest.raises(MemberLost, match="item 0 has cost 3 members"):
            group.map("work", [1])


def node_with_many(cluster: FakeCluster, **rest: Any) -> Any:
    """Four members on one node; what works at an item takes 10 s."""
    Worker.done = []
    cluster.join("big", {"GPU": 4.0, "CPU": 4.0})
    cluster.takes = lambda actor, method: 10.0
    return running(cluster, max_size=rest.pop("max_size", 4), **rest)


def test_a_node_that_goes_with_many_members_costs_no_item() -> None:
    cluster = FakeCluster()
    with node_with_many(cluster) as group:
        settle(group)
        cluster.at(4, lambda: cluster.lose("big"))
        cluster.at(5, lambda: cluster.join("small"))
        assert group.map("work", range(2)) == [0, 10]
        assert sorted(Worker.done) == [0, 1]


def test_nor_does_one_that_goes_without_a_word() -> None:
    cluster = FakeCluster()
    with node_with_many(cluster) as group:
        settle(group)
        cluster.at(4, lambda: cluster.vanish("big"))
        assert group.map("work", range(1)) == [0]


def test_an_item_leaves_a_node_that_may_be_gone() -> None:
    cluster = FakeCluster()
    with node_with_many(cluster, max_size=5) as group:
        settle(group)
        cluster.join("other")
        settle(group)
        cluster.at(4, lambda: cluster.vanish("big"))
        assert group.map("work", range(2)) == [0, 10]
        # The first that is lost goes to the other node; the second tries who is free meanwhile, in vain.
        assert cluster.calls[2] == cluster.calls[-1] == ("other", "work")


def test_who_does_not_answer_in_time_is_lost(cluster: FakeCluster) -> None:
    cluster.takes = lambda actor, method: 1e9 if actor.group.node and actor.group.node.id == "b" else 1.0
    with running(cluster) as group:
        settle(group)
        results = group.map("work", range(4), on_failure=Failure.DROP, timeout_s=30)
        assert results == [0, Dropped(1, "no answer within 30 s"), 20, 30]
        assert [one.member.node_id for one in group.sync().left] == ["b"]
        settle(group)
        with pytest.raises(MemberLost, match="no answer within 30 s"):
            group.map("work", range(3), timeout_s=30)


@pytest.mark.parametrize("on_failure", list(Failure))
def test_all_who_do_not_answer_in_time_are_lost(cluster: FakeCluster, on_failure: Failure) -> None:
    cluster.takes = lambda actor, method: 1e9
    with running(cluster) as group:
        settle(group)
        with contextlib.suppress(MemberLost):
            group.map("work", range(3), on_failure=on_failure, timeout_s=30)
        assert len(group.sync().left) == 3


@pytest.mark.parametrize("method", ["map", "call"])
def test_one_time_that_is_over_is_one_failure(method: str) -> None:
    cluster = FakeCluster(*(f"n{number}" for number in range(12)))
    with running(cluster, max_size=12, max_restarts=1) as group:
        settle(group)
        assert len(group) == 12
        cluster.takes = lambda actor, method: 1e9
        work = partial(group.map, "work", range(12)) if method == "map" else partial(group.call, "work", 1)
        with pytest.raises(MemberLost):
            work(timeout_s=30)
        assert len(group.sync().left) == 12
        settle(group)
        with pytest.raises(MemberLost):
            work(timeout_s=30)
        with pytest.raises(TooManyRestarts, match="more than 1 failures"):
            group.sync()


def test_time_that_is_over_is_no_loss_if_all_is_done(cluster: FakeCluster) -> None:
    with running(cluster) as group:
        settle(group)
        assert group.map("work", range(3), timeout_s=10) == [0, 10, 20]


def test_who_is_drained_during_a_map_finishes_its_item_and_hands_over(cluster: FakeCluster) -> None:
    class Both(Worker, Heir):
        pass

    cluster.takes = lambda actor, method: 10.0 if method == "work" else 0.0
    with running(cluster, actor_class=Both) as group:
        settle(group)
        group.call("told", "epoch 7")
        cluster.at(4, lambda: cluster.drain("b", deadline_s=100))
        cluster.at(104, lambda: cluster.lose("b"))
        assert group.map("work", range(60)) == [10 * item for item in range(60)]
        assert sorted(Worker.done) == list(range(60))
        # It worked on while there was time to, and handed over while there was time for that.
        assert 6 <= cluster.calls.count(("b", "work")) <= 7
        assert [call for call in cluster.calls if call[0] == "b"][-2:] == [("b", "work"), ("b", "leaving")]
        assert len(group) == 3
        change = group.sync()
        assert [(one.reason, one.state[0]) for one in change.left] == [(Reason.DRAINED, "epoch 7")]
        cluster.join("d")
        settle(group)
        assert group.call("shown")[-1] == "epoch 7 taken over"


@pytest.mark.parametrize(("notice_s", "asked_s"), [(60, 30), (12, 6)])
def test_who_works_longer_than_the_notice_hands_over_beside_its_work(
    cluster: FakeCluster, notice_s: float, asked_s: float
) -> None:
    class Both(Worker, Heir):
        pass

    cluster.takes = lambda actor, method: 100.0 if method == "work" else 0.0
    cluster.beside = True
    with running(cluster, actor_class=Both, leave_timeout_s=30) as group:
        settle(group)
        group.call("told", "epoch 7")
        begun_s = cluster.clock_s
        cluster.at(4, lambda: cluster.drain("b", deadline_s=notice_s))
        cluster.at(4 + notice_s, lambda: cluster.lose("b"))
        assert group.map("work", range(3)) == [0, 10, 20]
        assert cluster.clock_s - begun_s == pytest.approx(200)
        [left] = group.sync().left
        assert (left.reason, left.state[0]) == (Reason.DRAINED, "epoch 7")
        assert asked_s - 1.5 <= left.state[1] <= asked_s
        # Its item went to another, and was lost once.
        assert cluster.figures.added["lost_work_s"] == pytest.approx(4 + notice_s - asked_s, abs=1.5)


def test_who_does_one_thing_at_a_time_is_not_asked_while_it_works(cluster: FakeCluster) -> None:
    class Both(Worker, Heir):
        pass

    cluster.takes = lambda actor, method: 50.0 if method == "work" else 0.0
    with running(cluster, actor_class=Both, leave_timeout_s=30) as group:
        settle(group)
        cluster.at(4, lambda: cluster.drain("b", deadline_s=60))
        cluster.at(64, lambda: cluster.lose("b"))
        assert group.map("work", range(3)) == [0, 10, 20]
        assert [(one.reason, one.state[0]) for one in group.sync().left] == [(Reason.DRAINED, "fresh")]
        assert sorted(Worker.done) == [0, 1, 2]


def test_who_is_drained_with_time_to_spare_leaves_at_the_next_sync(cluster: FakeCluster) -> None:
    with running(cluster) as group:
        settle(group)
        cluster.at(4, lambda: cluster.drain("b", deadline_s=3600))
        assert group.map("work", range(9)) == [10 * item for item in range(9)]
        assert len(group.call("shown")) == 3
        assert [one.member.node_id for one in group.sync().left] == ["b"]


@pytest.mark.parametrize("method", ["map", "call"])
def test_a_newcomer_starts_during_a_step_and_joins_after_it(cluster: FakeCluster, method: str) -> None:
    cluster.start_s = 5
    with running(cluster) as group:
        settle(group)
        cluster.clock_s += 5
        group.sync()
        assert len(group) == 3
        cluster.at(2, lambda: cluster.join("d"))
        assert len(group.map("work", range(3)) if method == "map" else group.call("work", 1)) == 3
        assert (len(cluster.on("d")), len(group)) == (1, 3)
        assert [one.node_id for one in group.sync().joined][-1] == "d"


def test_nothing_starts_during_a_step_on_a_node_that_drains(cluster: FakeCluster) -> None:
    def come_and_drain() -> None:
        cluster.join("d")
        assert cluster.demand == 0
        cluster.drain("d", deadline_s=3600)

    with running(cluster) as group:
        settle(group)
        cluster.at(2, come_and_drain)
        group.map("work", range(3))
        assert cluster.on("d") == []
        cluster.at(2, lambda: cluster.lose("d"))
        group.map("work", range(3))
        settle(group)
        assert (len(group), group.waiting) == (3, 1)


def test_call_returns_by_rank_and_raises_at_the_first_loss(cluster: FakeCluster) -> None:
    with running(cluster) as group:
        settle(group)
        assert group.call("work", 4) == [40, 40, 40]
        cluster.at(4, lambda: cluster.kill(cluster.on("b")[0]))
        with pytest.raises(MemberLost, match="killed by signal 9"):
            group.call("work", 4)
        with pytest.raises(MemberLost, match="1 of 3 are gone already"):
            group.call("work", 4)
        settle(group)
        assert len(group.call("work", 4)) == 3
        with pytest.raises(ValueError, match="bad item"):
            group.call("fails", 1)
        with pytest.raises(MemberLost, match="3 did not answer within 5 s"):
            group.call("work", 4, timeout_s=5)


@given(
    items=st.integers(0, 20),
    kills=st.lists(st.tuples(st.floats(0, 80), st.sampled_from("abcd")), max_size=12),
    drop=st.booleans(),
)
def test_each_item_counts_once_whoever_is_killed(
    items: int, kills: list[tuple[float, str]], drop: bool
) -> None:
    Worker.done = []
    cluster = FakeCluster(*"abcd")
    cluster.takes = lambda actor, method: 10.0

    def kill(name: str) -> None:
        for actor in cluster.on(name):
            cluster.kill(actor)

    with running(cluster, max_restarts=99) as group:
        settle(group)
        for at_s, name in kills:
            cluster.at(at_s, lambda name=name: kill(name))  # type: ignore[misc]
        on_failure = Failure.DROP if drop else Failure.RETRY
        # Chance may kill whoever has one item again and again.
        with contextlib.suppress(MemberLost):
            results = group.map("work", range(items), on_failure=on_failure)
            kept = [item for item, one in enumerate(results) if not isinstance(one, Dropped)]
            assert [results[item] for item in kept] == [10 * item for item in kept]
            assert len(results) == items
            assert drop or len(kept) == items
        settle(group)
        assert len(group) == 4
    assert empty(cluster)
