"""A group whose nodes drain: who leaves when, and where what they hand over goes."""

from __future__ import annotations

import pytest

from heliostat.train import (
    Reason,
)
from tests.unit.train.fake_cluster import FakeCluster
from tests.unit.train.test_group import Heir, Trainer, group_on, nodes, settle


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
