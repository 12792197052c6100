"""A group that is used on after a Ctrl-C (in a notebook) or a cancelled task: nothing is left half done."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from heliostat.train import GroupClosed, Reason, Roles
from tests.unit.train.fake_cluster import FakeCluster
from tests.unit.train.test_group import Heir, empty, group_on, nodes, settle

STEPS = [("ask", 1), ("ask", 2), ("start", 1), ("call", 1), ("call", 2), ("end", 1), ("end", 2), ("look", 3)]
"""Methods of the cluster, and which call of each is interrupted in an upheaval: `leaving` and `take_over` are
calls, and `end` is for the one that waits, and for the one that leaves."""


class Upheaval:
    """A member hands over, what waits is withdrawn and asked for again: every kind of step is taken."""

    def __init__(self) -> None:
        self.cluster = FakeCluster("a", "b")
        self.group = group_on(self.cluster, actor_class=Heir, max_size=3)
        self.steps: list[Callable[[], None]] = [
            lambda: setattr(self.group, "target", 2),
            lambda: self.cluster.drain("a", deadline_s=600),
            lambda: self.cluster.join("c"),
            lambda: setattr(self.group, "target", 3),
            *[lambda: None] * 8,
        ]

    def check(self) -> None:
        """All is as it would be without any interruption."""
        cluster = self.cluster
        assert nodes(self.group) == ["b", "c"]
        assert self.group.call("shown") == ["fresh", "fresh taken over"]
        assert cluster.demand == self.group.waiting == 1
        assert (len(cluster.living), len(cluster.open_groups)) == (2, 3)
        assert "replaced" not in cluster.figures.added


def interrupt(
    cluster: FakeCluster, step: tuple[str, int], stop: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> list[int]:
    """Let `stop` come after one of the method's calls, before its caller has its answer; return the count."""
    method, number = step
    real, count = getattr(cluster, method), [0]

    def interrupted(*args: Any, **kwargs: Any) -> Any:
        answer = real(*args, **kwargs)
        count[0] += 1
        if count[0] == number:
            stop()
        return answer

    monkeypatch.setattr(cluster, method, interrupted)
    return count


def ctrl_c() -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("step", STEPS)
def test_a_group_goes_on_after_a_ctrl_c(step: tuple[str, int], monkeypatch: pytest.MonkeyPatch) -> None:
    upheaval = Upheaval()
    with upheaval.group as group:
        settle(group)
        interrupt(upheaval.cluster, step, ctrl_c, monkeypatch)
        stopped = 0
        for happen in upheaval.steps:
            happen()
            try:
                group.sync()
            except KeyboardInterrupt:
                stopped += 1
        assert stopped == 1
        upheaval.check()
    assert empty(upheaval.cluster)


@pytest.mark.parametrize("step", STEPS)
async def test_a_group_goes_on_after_a_cancelled_sync(
    step: tuple[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    upheaval, loop = Upheaval(), asyncio.get_running_loop()
    syncs: list[asyncio.Task[Any]] = []
    async with upheaval.group as group:
        for _ in range(3):
            await group.async_sync()

        def cancel() -> None:
            # The step itself goes on in its thread, and only then the sync ends.
            loop.call_soon_threadsafe(syncs[-1].cancel)

        interrupt(upheaval.cluster, step, cancel, monkeypatch)
        for happen in upheaval.steps:
            happen()
            syncs.append(asyncio.create_task(group.async_sync()))
            await asyncio.wait([syncs[-1]])
        assert sum(sync.cancelled() for sync in syncs) == 1
        upheaval.check()
        # What the step has made is used, not made again.
        assert len(upheaval.cluster.actors) == 3
    assert empty(upheaval.cluster)


def test_a_place_that_has_moved_before_it_was_used_is_looked_for_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cluster = FakeCluster("a", "b")
    with group_on(cluster, actor_class=Heir, max_size=3) as group:
        settle(group)
        # What waits is placed on c, but what is left of b is removed first.
        cluster.join("c")
        cluster.lose("b")
        interrupt(cluster, ("end", 1), ctrl_c, monkeypatch)
        with pytest.raises(KeyboardInterrupt):
            group.sync()
        cluster.lose("c")
        settle(group)
        assert (nodes(group), cluster.demand, group.waiting) == (["a"], 2, 2)
        cluster.join("d")
        settle(group)
        assert (nodes(group), cluster.demand, group.waiting) == (["a", "d"], 1, 1)


def test_who_was_asked_to_leave_is_not_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = FakeCluster()
    cluster.join("a", {"GPU": 2.0, "CPU": 2.0})
    with group_on(cluster, actor_class=Heir, min_size=0, max_size=2) as group:
        settle(group)
        cluster.drain("a")
        interrupt(cluster, ("end", 1), ctrl_c, monkeypatch)
        with pytest.raises(KeyboardInterrupt):
            group.sync()
        assert [one.reason for one in group.sync().left] == [Reason.DRAINED] * 2
        assert [method for _, method in cluster.calls] == ["leaving"] * 2
        cluster.join("b", {"GPU": 2.0, "CPU": 2.0})
        settle(group)
        assert group.call("shown") == ["fresh taken over"] * 2


def test_a_placement_group_that_somebody_else_removes_is_asked_for_again() -> None:
    cluster = FakeCluster("a")
    with group_on(cluster, max_size=2) as group:
        settle(group)
        cluster.remove(cluster.open_groups[-1])
        group.sync()
        assert cluster.demand == group.waiting == 1
        cluster.join("b")
        settle(group)
        assert nodes(group) == ["a", "b"]


@pytest.mark.parametrize("method", ["end", "sweep"])
def test_a_second_ctrl_c_leaves_nothing_either(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = FakeCluster("a", "b")
    group = group_on(cluster).__enter__()
    settle(group)
    interrupt(cluster, (method, 1), ctrl_c, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        group.__exit__(None, None, None)
    assert empty(cluster)
    with pytest.raises(GroupClosed):
        group.sync()


def test_what_a_second_ctrl_c_has_cut_off_may_be_done_later(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = FakeCluster("a", "b")
    group = group_on(cluster).__enter__()
    settle(group)
    with monkeypatch.context() as broken:
        broken.setattr(cluster, "end", lambda actor, place: ctrl_c())
        broken.setattr(cluster, "sweep", lambda prefix: ctrl_c())
        with pytest.raises(KeyboardInterrupt):
            group.__exit__(None, None, None)
    assert not empty(cluster)
    group.__exit__(None, None, None)
    assert empty(cluster)


def test_each_role_is_ended_whatever_comes_of_another(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = FakeCluster("a", "b", "c")
    roles = Roles(**{name: group_on(cluster, name=name) for name in "xyz"})
    roles.__enter__()
    assert len(cluster.living) == 3
    interrupt(cluster, ("end", 1), ctrl_c, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        roles.__exit__(None, None, None)
    assert empty(cluster)
